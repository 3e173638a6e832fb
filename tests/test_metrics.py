from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textadv import metrics
from textadv.errors import DataError

counts_of = st.tuples(*[st.integers(0, 50)] * 4).map(
    lambda numbers: dict(zip(metrics.STATUSES, numbers, strict=True))
)


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_interval_solves_its_equation(n: int, share: float, confidence: float) -> None:
    """At either end, the score statistic (p - q)^2 n = z^2 q (1 - q) holds."""
    k = round(share * n)
    low, high = metrics.wilson_interval(k, n, confidence)
    assert 0 <= low <= k / n <= high <= 1
    z = math.sqrt(2) * _inverse_erf(confidence)
    for q in (low, high):
        if 1e-9 < q < 1 - 1e-9:
            assert (k / n - q) ** 2 * n == pytest.approx(z * z * q * (1 - q), abs=1e-6)


def _inverse_erf(value: float) -> float:
    low, high = 0.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return low


def test_wilson_known_values_and_bounds() -> None:
    assert metrics.wilson_interval(40, 200) == pytest.approx((0.1505, 0.2608), abs=1e-4)
    assert metrics.wilson_interval(0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)
    for k, n in [(-1, 5), (6, 5)]:
        with pytest.raises(DataError, match=f"{k} of {n}"):
            metrics.wilson_interval(k, n)


@given(counts_of)
def test_counts_add_up_and_rates_agree(counts: dict[str, int]) -> None:
    statuses = [status for status, count in counts.items() for _ in range(count)]
    n = len(statuses)
    assert metrics.outcome_counts(statuses, n) == counts
    with pytest.raises(DataError, match="outcomes"):
        metrics.outcome_counts(statuses, n + 1)
    under = metrics.accuracy_under_attack(counts)
    rate = metrics.attack_success_rate(counts)
    assert under == (counts["survived"] / n if n else 0)
    if rate is None:
        assert counts["flipped"] == counts["survived"] == 0
    elif not counts["unresolved"]:
        clean = 1 - counts["wrong_before"] / n
        assert under == pytest.approx(clean * (1 - rate))


def test_unknown_status_is_refused() -> None:
    with pytest.raises(DataError, match="got 'robust'"):
        metrics.outcome_counts(["robust"], 1)


def test_worst_case_of_one_example() -> None:
    assert metrics.worst_case(["survived", "unresolved", "flipped"]) == "flipped"
    assert metrics.worst_case(["survived", "unresolved"]) == "unresolved"
    assert metrics.worst_case(["survived", "survived"]) == "survived"
    assert metrics.worst_case(["wrong_before", "wrong_before"]) == "wrong_before"


def test_means() -> None:
    assert metrics.mean([1, 2, 6]) == 3
    assert metrics.median([1, 2, 6, 7]) == 4
    assert metrics.mean([]) is metrics.median([]) is None
