"""Uncertainty of comparisons on the same examples, as pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy import stats

from textadv.errors import DataError
from textadv.metrics import Status, wilson_interval, worst_case

__all__ = [
    "CurvePoint",
    "Outcome",
    "Spread",
    "bootstrap_interval",
    "examples_needed",
    "holm",
    "mcnemar",
    "mcnemar_power",
    "query_curve",
    "smallest_difference",
    "spread",
    "worst_statuses",
]

MOST_EXAMPLES = 10_000_000


class Outcome(Protocol):
    """What a record of one attack on one example has."""

    @property
    def id(self) -> str:
        """The example."""
        ...

    @property
    def attack(self) -> str:
        """The attack."""
        ...

    @property
    def status(self) -> Status:
        """How it ended."""
        ...

    @property
    def num_queries(self) -> int:
        """Texts the attack asked about."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Accuracy under attack when every search may ask about at most `budget` texts."""

    budget: int
    survived: int
    num_examples: int
    accuracy: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """One figure over several seeds, each of them shown."""

    values: tuple[float, ...]
    mean: float
    low: float
    high: float


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two models differ, from discordant pairs.

    Args:
        only_first: Examples that only the first model gets right.
        only_second: Examples that only the second gets right.

    Source: McNemar, Psychometrika 1947, with the binomial distribution in place of chi-square.

    Example:
        >>> mcnemar(0, 6)
        0.03125
    """
    if only_first < 0 or only_second < 0:
        raise DataError("discordant pairs", got=f"{only_first}, {only_second}", expected=">= 0")
    total = only_first + only_second
    return float(stats.binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over examples.

    For a paired comparison, give one difference per example; for several attacks per example, give
    one mean per example, so that examples are what is drawn.

    Source: Efron, 1979. Equal values are drawn together from a multinomial, which is the same
    distribution.
    """
    if not values:
        raise DataError("bootstrap", got="no values", expected="one value per example")
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    # Drawn by how often they occur, so that a difference and its negative have mirrored intervals.
    order = np.lexsort((distinct, counts))
    distinct, counts = distinct[order], counts[order]
    n = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws @ distinct / n, [tail, 1 - tail])
    return float(low), float(high)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for having made all of these tests.

    Source: Holm, Scandinavian Journal of Statistics 1979 (step-down Bonferroni).

    Example:
        >>> holm({"a": 0.01, "b": 0.03, "c": 0.04})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def smallest_difference(discordant: int, n: int, alpha: float = 0.05) -> float | None:
    """Return the smallest difference in accuracy that would be significant, None if none would.

    Args:
        discordant: Examples on which the two models differ.
        n: All examples.
        alpha: Level of the exact McNemar test.

    Example:
        >>> smallest_difference(20, 200)
        0.05
    """
    rejected = int(_largest_rejected(np.array([discordant]), alpha)[0])
    return (discordant - 2 * rejected) / n if rejected >= 0 and n else None


def mcnemar_power(n: int, difference: float, discordant: float, alpha: float = 0.05) -> float:
    """Return how often `n` examples show a true difference at level `alpha`.

    Args:
        n: Examples, paired.
        difference: True difference in accuracy, in shares.
        discordant: Share of examples on which the models differ, at least |difference|.
        alpha: Level of the exact McNemar test.

    Example:
        >>> round(mcnemar_power(500, 0.05, 0.2), 2)
        0.68
    """
    if not (0 < discordant <= 1 and abs(difference) <= discordant + 1e-12):
        got = f"difference {difference}, discordant share {discordant}"
        raise DataError("power", got=got, expected="|difference| <= discordant share <= 1")
    # Numbers of discordant pairs outside this range have a chance below 1e-9.
    low, high = stats.binom.ppf([1e-9, 1 - 1e-9], n, discordant)
    pairs = np.arange(max(int(low), 0), int(high) + 1)
    chance = min(1.0, (discordant + abs(difference)) / (2 * discordant))
    rejected = _largest_rejected(pairs, alpha)
    tails = stats.binom.cdf(rejected, pairs, chance)
    tails = tails + stats.binom.sf(pairs - rejected - 1, pairs, chance)
    reject = np.where(rejected >= 0, tails, 0.0)
    return float((stats.binom.pmf(pairs, n, discordant) * reject).sum())


def examples_needed(
    difference: float, discordant: float, *, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Return how many examples show a true difference with the given power; None above 10^7.

    Args:
        difference: True difference in accuracy, in shares.
        discordant: Share of examples on which the models differ.
        power: Chance of a significant result.
        alpha: Level of the exact McNemar test.
    """
    low, high = 0, 64
    while mcnemar_power(high, difference, discordant, alpha) < power:
        low, high = high, 2 * high
        if high > MOST_EXAMPLES:
            return None
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        enough = mcnemar_power(middle, difference, discordant, alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def query_curve(
    outcomes: Iterable[Outcome], budgets: Sequence[int] | None = None
) -> list[CurvePoint]:
    """Return accuracy under one attack at smaller query budgets, from one run.

    A search sees the same scores whatever its budget, so a success after q queries is a success at
    every budget of q or more. The last request of a search counts as a whole: with a budget that
    ends inside it, the accuracy can be lower than the curve says, never higher.

    Args:
        outcomes: One record per example, all of one attack.
        budgets: Budgets to show; by default about 24 from 1 to the most queries asked, evenly on a
            logarithmic scale.
    """
    rows = list(outcomes)
    if (names := {row.attack for row in rows}) and len(names) > 1:
        raise DataError("query curve", got=f"{len(names)} attacks", expected="records of one")
    flips = np.sort([row.num_queries for row in rows if row.status == "flipped"])
    survived = sum(row.status == "survived" for row in rows)
    if budgets is None:
        most = max((row.num_queries for row in rows), default=1)
        grid = np.unique(np.round(np.geomspace(1, max(most, 1), 24)).astype(int))
        budgets = [int(budget) for budget in grid]
    points = []
    for budget in budgets:
        later = len(flips) - int(np.searchsorted(flips, budget, side="right"))
        standing = survived + later
        points.append(
            CurvePoint(
                budget=budget,
                survived=standing,
                num_examples=len(rows),
                accuracy=standing / max(len(rows), 1),
                interval=wilson_interval(standing, len(rows)),
            )
        )
    return points


def spread(values: Sequence[float]) -> Spread:
    """Return mean and range of one figure over several seeds.

    Example:
        >>> spread([0.25, 0.5, 0.75]).mean
        0.5
    """
    if not values:
        raise DataError("seeds", got="no values", expected="one figure per seed")
    found = tuple(float(value) for value in values)
    return Spread(values=found, mean=float(np.mean(found)), low=min(found), high=max(found))


def worst_statuses(outcomes: Iterable[Outcome]) -> dict[str, Status]:
    """Return the outcome of each example under all attacks (or seeds) taken together."""
    found: dict[str, list[Status]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.id, []).append(outcome.status)
    return {name: worst_case(statuses) for name, statuses in found.items()}


def _largest_rejected(pairs: np.ndarray, alpha: float) -> np.ndarray:
    """Return the largest smaller count that rejects for each number of pairs, -1 for none."""
    # ppf returns the first count whose tail is at least alpha / 2.
    first = stats.binom.ppf(alpha / 2, pairs, 0.5)
    tail = stats.binom.cdf(first, pairs, 0.5)
    rejected: np.ndarray = np.where(tail <= alpha / 2 * (1 + 1e-12), first, first - 1)
    return np.where(pairs > 0, rejected, -1).astype(int)
