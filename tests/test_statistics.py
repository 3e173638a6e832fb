from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from textadv import statistics
from textadv.errors import DataError


def slow_mcnemar(b: int, c: int) -> float:
    total = b + c
    chance = [math.comb(total, k) / 2**total for k in range(total + 1)]
    return min(1.0, sum(p for k, p in enumerate(chance) if abs(2 * k - total) >= abs(b - c)))


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_sum(b, c):
    assert statistics.mcnemar(b, c) == pytest.approx(slow_mcnemar(b, c))
    assert statistics.mcnemar(b, c) == statistics.mcnemar(c, b)


def test_mcnemar_of_nothing_and_of_nonsense():
    assert statistics.mcnemar(0, 0) == 1.0
    with pytest.raises(DataError, match="-1"):
        statistics.mcnemar(-1, 3)


def test_bootstrap_agrees_with_scipy_and_with_the_normal():
    values = random.Random(0).choices([-1.0, 0.0, 0.0, 0.0, 1.0, 1.0], k=300)
    low, high = statistics.bootstrap_interval(values)
    with np.errstate(all="ignore"):
        other = stats.bootstrap((values,), np.mean, method="percentile", batch=100)
    assert low == pytest.approx(other.confidence_interval.low, abs=0.01)
    assert high == pytest.approx(other.confidence_interval.high, abs=0.01)
    error = np.std(values) / math.sqrt(300)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert statistics.bootstrap_interval(values) == (low, high)
    assert statistics.bootstrap_interval(values, resamples=9) != (low, high)
    assert statistics.bootstrap_interval([2.0] * 9) == (2.0, 2.0)
    mirrored = statistics.bootstrap_interval([-value for value in values])
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)
    with pytest.raises(DataError, match="no values"):
        statistics.bootstrap_interval([])


def slow_holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjusted p: the smallest level at which the step-down procedure rejects."""
    names = sorted(p_values, key=p_values.get)
    out = {}
    for name in names:
        position = names.index(name)
        steps = [(len(names) - i) * p_values[names[i]] for i in range(position + 1)]
        out[name] = min(1.0, max(steps))
    return out


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(values):
    named = {str(i): v for i, v in enumerate(values)}
    adjusted = statistics.holm(named)
    assert adjusted == pytest.approx(slow_holm(named))
    assert list(adjusted) == list(named)
    assert all(named[n] <= adjusted[n] <= min(1, len(values) * named[n] + 1e-12) for n in named)


def test_holm_keeps_the_error_rate_of_many_true_nulls():
    random_p = np.random.default_rng(0).random((2000, 6))
    wrong = sum(min(statistics.holm(dict(zip("abcdef", row, strict=True))).values()) < 0.05
                for row in random_p)  # fmt: skip
    assert wrong / 2000 < 0.065
    assert statistics.holm({}) == {}


@given(st.integers(0, 60))
def test_smallest_difference_is_the_first_that_rejects(pairs):
    wanted = [
        (pairs - 2 * c) / 100 for c in range(pairs // 2 + 1) if slow_mcnemar(pairs - c, c) <= 0.05
    ]
    assert statistics.smallest_difference(pairs, 100) == (min(wanted) if wanted else None)


def slow_power(n: int, difference: float, discordant: float) -> float:
    p, q = (discordant + difference) / 2, (discordant - difference) / 2
    total = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if b + c <= n and slow_mcnemar(b, c) <= 0.05:
            ways = math.comb(n, b) * math.comb(n - b, c)
            total += ways * p**b * q**c * (1 - discordant) ** (n - b - c)
    return total


@settings(max_examples=12, deadline=None)
@given(st.integers(4, 30), st.floats(0.1, 1.0), st.floats(0, 1))
def test_power_is_the_sum_over_all_outcomes(n, discordant, share):
    difference = share * discordant
    fast = statistics.mcnemar_power(n, difference, discordant)
    assert fast == pytest.approx(slow_power(n, difference, discordant), abs=1e-6)


def test_power_agrees_with_simulation_and_published_size():
    measured = {200: 0.28, 500: 0.68, 1000: 0.93}
    for n, power in measured.items():
        assert statistics.mcnemar_power(n, 0.05, 0.2) == pytest.approx(power, abs=0.02)
    assert statistics.mcnemar_power(1000, 0.0, 0.2) <= 0.05
    with pytest.raises(DataError, match="discordant"):
        statistics.mcnemar_power(100, 0.3, 0.2)


def test_examples_needed_reach_the_power_and_fewer_do_not():
    needed = statistics.examples_needed(0.05, 0.2)
    assert 600 < needed < 800
    assert statistics.mcnemar_power(needed, 0.05, 0.2) >= 0.8
    assert statistics.mcnemar_power(int(0.95 * needed), 0.05, 0.2) < 0.8
    assert statistics.examples_needed(0.1, 0.2) < needed
    assert statistics.examples_needed(0.00001, 0.9) is None


def row(status: str, queries: int, name: str = "x", attack: str = "a") -> SimpleNamespace:
    return SimpleNamespace(id=name, attack=attack, status=status, num_queries=queries)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["flipped", "survived", "wrong_before", "unresolved"]),
            st.integers(1, 50),
        ),
        min_size=1,
    ),
    st.integers(1, 60),
)
def test_query_curve_counts_those_not_flipped_yet(rows, budget):
    records = [row(status, queries) for status, queries in rows]
    (point,) = statistics.query_curve(records, [budget])
    standing = sum(
        s == "survived" or (s == "flipped" and queries > budget) for s, queries in rows
    )  # fmt: skip
    assert (point.survived, point.num_examples) == (standing, len(rows))
    assert point.interval[0] <= point.accuracy <= point.interval[1]


def test_query_curve_has_a_grid_and_refuses_two_attacks():
    points = statistics.query_curve([row("flipped", 3), row("survived", 900)])
    assert points[0].budget == 1
    assert points[-1].budget == 900
    assert [p.accuracy for p in points] == sorted((p.accuracy for p in points), reverse=True)
    assert statistics.query_curve([])[0].interval == (0.0, 1.0)
    with pytest.raises(DataError, match="2 attacks"):
        statistics.query_curve([row("flipped", 3), row("flipped", 3, attack="b")])


def test_seeds_and_worst_case():
    assert statistics.spread([0.2, 0.6]) == statistics.Spread(
        values=(0.2, 0.6), mean=0.4, low=0.2, high=0.6
    )
    with pytest.raises(DataError):
        statistics.spread([])
    rows = [row("survived", 1, "x"), row("flipped", 1, "x", "b"), row("unresolved", 1, "y")]
    assert statistics.worst_statuses(rows) == {"x": "flipped", "y": "unresolved"}
