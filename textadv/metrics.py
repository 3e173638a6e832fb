"""Counts, rates and intervals of an evaluation, as pure functions."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from scipy import stats

from textadv.errors import DataError, shown

__all__ = [
    "STATUSES",
    "Status",
    "accuracy_under_attack",
    "attack_success_rate",
    "mean",
    "median",
    "outcome_counts",
    "wilson_interval",
    "worst_case",
]

Status = Literal["wrong_before", "flipped", "survived", "unresolved"]
STATUSES: tuple[Status, ...] = get_args(Status)


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of the proportion `k / n`; (0, 1) when `n` is 0.

    Source: Wilson, JASA 1927. It keeps its coverage near 0 and 1, where the normal one does not.

    Example:
        >>> low, high = wilson_interval(20, 100)
        >>> round(low, 3), round(high, 3)
        (0.133, 0.289)
    """
    if not 0 <= k <= n:
        raise DataError("interval", got=f"{k} of {n}", expected="0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    interval = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def outcome_counts(statuses: Iterable[str], n: int) -> dict[str, int]:
    """Count every status and check that the counts add up to the `n` examples there were.

    Raises:
        DataError: An unknown status, or a sum that is not `n`: some example was lost.
    """
    found = Counter(statuses)
    if unknown := sorted(set(found) - set(STATUSES)):
        raise DataError("status", got=shown(unknown[0]), expected="one of " + ", ".join(STATUSES))
    if found.total() != n:
        raise DataError("outcomes", got=f"{found.total()} records", expected=f"{n}, one an example")
    return {status: found[status] for status in STATUSES}


def accuracy_under_attack(counts: Mapping[str, int]) -> float:
    """Return survived / all examples: wrong before and unresolved ones are not robust."""
    return counts["survived"] / max(sum(counts.values()), 1)


def attack_success_rate(counts: Mapping[str, int]) -> float | None:
    """Return flipped / (flipped + survived), the examples right before; None without any.

    Unresolved examples are in neither count, so an error never makes a model look robust.
    """
    attacked = counts["flipped"] + counts["survived"]
    return counts["flipped"] / attacked if attacked else None


def worst_case(statuses: Sequence[Status]) -> Status:
    """Return the outcome of one example under several attacks taken together.

    Example:
        >>> worst_case(["survived", "flipped"])
        'flipped'
    """
    order: tuple[Status, ...] = ("wrong_before", "flipped", "unresolved", "survived")
    return min(statuses, key=order.index)


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None without values."""
    return statistics.fmean(values) if values else None


def median(values: Sequence[float]) -> float | None:
    """Return the median, or None without values."""
    return float(statistics.median(values)) if values else None
