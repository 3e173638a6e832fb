"""Two models on the same examples: what differs, how surely, and what it would take to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textadv import statistics
from textadv.errors import ConfigError, DataError, shown
from textadv.pairing import differences
from textadv.report import PRELIMINARY_BELOW
from textadv.results import Results, group_title, load_results

__all__ = ["Comparison", "PairedRow", "compare", "compare_results"]

POWER = 0.8
LEAST_P = 1e-4
CLEAN = "clean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedRow:
    """Accuracy of two models on the same `n` examples.

    Args:
        name: What the accuracy is under: `clean`, an attack, or a group of attacks.
        n: Examples.
        first: Examples the first model has right to the end.
        second: Examples the second has.
        only_first: Examples only the first has.
        only_second: Examples only the second has.
        interval: 95 % paired bootstrap interval of the difference, second minus first.
        p_value: Exact McNemar test.
        adjusted: The same after Holm's correction over all rows.
        smallest: Smallest difference that would be significant with as many differing examples,
            before the correction; None if none would.
        needed: Examples at which a difference of the size found is significant with 80 % power,
            before the correction; None if the two are equal or 10^7 are not enough.
    """

    name: str
    n: int
    first: int
    second: int
    only_first: int
    only_second: int
    interval: tuple[float, float]
    p_value: float
    adjusted: float
    smallest: float | None
    needed: int | None

    @property
    def difference(self) -> float:
        """Accuracy of the second model minus that of the first."""
        return (self.second - self.first) / self.n


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of `compare`; `print(comparison)` shows it as text."""

    first: str
    second: str
    n: int
    alpha: float
    rows: tuple[PairedRow, ...]
    headline: str
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> PairedRow:
        """The row of the headline."""
        return next(row for row in self.rows if row.name == self.headline)

    def winner(self, name: str | None = None) -> str | None:
        """Return the model that is significantly better in a row, the headline's by default."""
        row = next(row for row in self.rows if row.name == (name or self.headline))
        if row.adjusted > self.alpha:
            return None
        return self.second if row.difference > 0 else self.first

    @property
    def verdict(self) -> str:
        """In words: a winner with its p-value, or none and what it would take."""
        row = self.main
        early = f"Preliminary, {row.n} examples: " if row.n < PRELIMINARY_BELOW else ""
        rates = [_percent(row.first, row.n), _percent(row.second, row.n)]
        what = "clean" if row.name == CLEAN else f"under {group_title(row.name)}"
        better = self.winner()
        if better is not None:
            high, low = rates if row.difference < 0 else rates[::-1]
            bounds = sorted(100 * abs(bound) for bound in row.interval)
            return (
                f"{early}{better} is more accurate {what}: {high} against {low}, a difference of "
                f"{100 * abs(row.difference):.1f} points [{bounds[0]:.1f}, {bounds[1]:.1f}], "
                f"{_p(row.adjusted)}."
            )
        none = "no winner" if early else "No winner"
        found = f"{early}{none} {what}: {rates[0]} and {rates[1]}, {_p(row.adjusted)}."
        return f"{found} {self._what_it_takes(row)}"

    def _what_it_takes(self, row: PairedRow) -> str:
        pairs = row.only_first + row.only_second
        if row.smallest is None:
            shows = f"With {pairs} examples that differ, no split would be significant."
        else:
            shows = (
                f"The smallest difference this sample can show is {100 * row.smallest:.1f} points."
            )
        if not row.difference:
            return f"{shows} A difference of 0 needs no further examples."
        size = f"a difference of {100 * abs(row.difference):.1f} points"
        if row.needed is None:
            return f"{shows} To show {size} more than 10 million examples are needed."
        return f"{shows} To show {size} takes about {row.needed:,} examples (80 % power)."

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        rows = [{**dataclasses.asdict(row), "difference": row.difference} for row in self.rows]
        own = dataclasses.asdict(dataclasses.replace(self, rows=()))
        return {**own, "rows": rows, "winner": self.winner(), "verdict": self.verdict}

    def table(self) -> list[list[str]]:
        """Return the rows as text, headings first."""
        heads = ["", "first", "second", "difference, 95 %", "only 1st / 2nd", "p (Holm)"]
        body = [
            [
                row.name,
                f"{100 * row.first / row.n:.1f} %",
                f"{100 * row.second / row.n:.1f} %",
                f"{100 * row.difference:+.1f} "
                f"[{100 * row.interval[0]:+.1f}, {100 * row.interval[1]:+.1f}]",
                f"{row.only_first} / {row.only_second}",
                f"{row.adjusted:.2g}",
            ]
            for row in self.rows
        ]
        return [heads, *body]

    def __str__(self) -> str:
        preliminary = " - preliminary, too few examples" if self.n < PRELIMINARY_BELOW else ""
        lines = [
            f"first:  {shown(self.first, 200)[1:-1]}",
            f"second: {shown(self.second, 200)[1:-1]}",
            f"n = {self.n}, the same examples{preliminary}; differences are second minus first",
            "",
            *_aligned(self.table()),
            "",
            shown(self.verdict, 1000)[1:-1],
            *(f"note: {shown(note, 1000)[1:-1]}" for note in self.notes),
        ]
        return "\n".join(lines)


def compare(first: str | Path, second: str | Path, *, alpha: float = 0.05) -> Comparison:
    """Compare two evaluations by their directories; see `compare_results`."""
    return compare_results(load_results(first), load_results(second), alpha=alpha)


def compare_results(first: Results, second: Results, *, alpha: float = 0.05) -> Comparison:
    """Compare two models example by example.

    A model wins only if the exact McNemar test says so at `alpha`, after Holm's correction over
    all rows of the table.

    Args:
        first: One evaluation.
        second: Another, of the same data under the same attacks. Seeds of the attacks may differ.
        alpha: Level of the tests.

    Raises:
        DataError: Evaluations that cannot be paired; the difference is named.
    """
    if not 0 < alpha < 1:
        raise ConfigError("alpha", got=shown(alpha), expected="between 0 and 1")
    for difference in differences(first, second):
        raise DataError(
            "compare",
            got=f"two evaluations with different {difference}",
            expected="the same examples under the same attacks",
            fix="evaluate both models with the same data, cascade and options",
        )
    ids = sorted(first.labels)
    names, outcomes = [CLEAN], [(first.right, second.right)]
    for group in first.groups:
        names.append(group)
        outcomes.append((_standing(first, group), _standing(second, group)))
    pairs = [[(one[name], other[name]) for name in ids] for one, other in outcomes]
    p_values = {
        name: statistics.mcnemar(pair.count((True, False)), pair.count((False, True)))
        for name, pair in zip(names, pairs, strict=True)
    }
    adjusted = statistics.holm(p_values)
    return Comparison(
        first=first.name,
        second=second.name,
        n=len(ids),
        alpha=alpha,
        rows=tuple(
            _row(name, pair, p_values[name], adjusted[name], alpha)
            for name, pair in zip(names, pairs, strict=True)
        ),
        headline=first.headline or CLEAN,
        notes=tuple(_notes(first, second)),
    )


def _row(
    name: str, pairs: list[tuple[bool, bool]], p_value: float, adjusted: float, alpha: float
) -> PairedRow:
    n = len(pairs)
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    discordant = only_first + only_second
    change = (only_second - only_first) / n
    return PairedRow(
        name=name,
        n=n,
        first=sum(one for one, _ in pairs),
        second=sum(other for _, other in pairs),
        only_first=only_first,
        only_second=only_second,
        interval=statistics.bootstrap_interval([float(b) - float(a) for a, b in pairs]),
        p_value=p_value,
        adjusted=adjusted,
        smallest=statistics.smallest_difference(discordant, n, alpha),
        needed=statistics.examples_needed(change, discordant / n, power=POWER, alpha=alpha)
        if change
        else None,
    )


def _standing(results: Results, group: str) -> dict[str, bool]:
    return {name: status == "survived" for name, status in results.statuses(group).items()}


def _notes(first: Results, second: Results) -> Iterator[str]:
    if first.report.seed != second.report.seed:
        yield f"the seeds differ: {first.report.seed} and {second.report.seed}"
    headline = first.headline
    if headline is not None:
        flipped, attacked = zip(*_on_common(first, second, headline), strict=True)
        rates = [f"{_percent(k, n)}" for k, n in zip(flipped, attacked, strict=True)]
        yield (
            f"of the {attacked[0]} examples that both models have right, {rates[0]} and {rates[1]} "
            f"are flipped under {group_title(headline)}"
        )
    for results in (first, second):
        audit: Mapping[str, Any] | None = results.report.audit
        if audit is not None and audit["verdict"] != "SUPPORTED":
            yield f"the audit of {results.name} says {audit['verdict']}"
    if first.name == second.name:
        yield "both results name the same model"


def _on_common(first: Results, second: Results, group: str) -> Iterator[tuple[int, int]]:
    """Yield flips and examples of each model over the examples both have right."""
    common = [name for name, right in first.right.items() if right and second.right[name]]
    for results in (first, second):
        statuses = results.statuses(group)
        yield sum(statuses[name] == "flipped" for name in common), len(common)


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= LEAST_P else f"p < {LEAST_P:.4f}"


def _percent(k: int, n: int) -> str:
    return f"{100 * k / n:.1f} % ({k}/{n})" if n else "0/0"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
