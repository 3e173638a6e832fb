"""A table that fills while attacks run: one row per attack, or a plain line now and then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from textadv.metrics import Status, worst_case

__all__ = ["AttackTable"]

SECONDS_BETWEEN_LINES = 20.0
COLUMNS = ("accuracy", "flipped", "unre-\nsolved", "texts\nleft", "queries\n/s", "time\nleft")


class Display(Protocol):
    """Another live display, that ran before."""

    touched: float
    """When it last had something to show."""

    def close(self) -> None:
        """Leave the terminal to the next one; a terminal shows one at a time."""


class _Row:
    """One attack: what its records say, and how fast they come."""

    def __init__(self, before: Sequence[str]) -> None:
        self.before = before
        self.counts: Counter[str] = Counter()
        self.lost: set[str] = set()
        self.fresh = self.queries = 0
        self.started = self.ended = 0.0

    def add(self, record: Any) -> None:
        self.counts[record.status] += 1
        if record.status in ("flipped", "wrong_before"):
            self.lost.add(record.id)


class AttackTable:
    """Show accuracy under attack so far, texts left, queries per second and the time left.

    On a terminal a table is redrawn in place, and wiped when the attacks are done; elsewhere a line
    is printed every 20 seconds. Nothing appears before the first record.

    Args:
        console: Where to print.
        label: What runs.
        names: The attacks, in the order they run.
        num_examples: Texts each of them has to do.
        records: Those of an earlier start.
        before: Attacks whose flips and wrong texts an attack is not given, by its name.
        after: The display of what runs before the attacks.
        clock: Seconds, from anywhere.
    """

    def __init__(
        self,
        console: Console,
        label: str,
        names: Iterable[str],
        num_examples: int,
        *,
        records: Iterable[Any] = (),
        before: Mapping[str, Sequence[str]] | None = None,
        after: Display | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.label, self.num_examples = console, label, num_examples
        self.after, self.clock = after, clock
        self.rows = {name: _Row((before or {}).get(name, ())) for name in names}
        self.chained = bool(before)
        self.outcomes: dict[str, list[Status]] = {}
        self.live: Live | None = None
        self.began = self.last = self.printed = clock()
        for record in records:
            self._row(record.attack).add(record)
            self.outcomes.setdefault(record.id, []).append(record.status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            # What was reached stays in sight when a run is stopped.
            self.live.transient = kind is None
            self.live.update(self.table(), refresh=True)
            self.live.stop()

    def on_record(self, record: Any) -> None:
        """Count one finished record."""
        if self.after is not None:
            self.after.close()
            self.began = self.last = self.printed = self.after.touched
            self.after = None
        row = self._row(record.attack)
        if not row.fresh:
            row.started = self.last
        self.last = row.ended = self.clock()
        row.add(record)
        row.fresh += 1
        row.queries += record.num_queries
        self.outcomes.setdefault(record.id, []).append(record.status)
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, get_renderable=self.table, transient=True)
                self.live.start()
        elif self.last - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = self.last
            self.console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    def table(self) -> Table:
        """Return the table as it stands."""
        title = f"{self.label}, n = {self.num_examples}"
        table = Table(
            title=title,
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("", no_wrap=True)
        for heading in COLUMNS:
            table.add_column(heading, justify="right", no_wrap=True)
        for name in self.rows:
            table.add_row(name, *self.cells(name))
        if len(self.rows) > 1:
            table.add_section()
            table.add_row("total" if self.chained else "worst case", *self._total())
        return table

    def line(self) -> str:
        """Return the attacks that are running, in one line."""
        running = [
            f"{name} {self.cells(name)[0]}, {left} left"
            for name, row in self.rows.items()
            if row.fresh and (left := self._left(row))
        ]
        *_, speed, wait = self._total()
        so_far = "; ".join(running)
        return f"{self.label}, accuracy so far: {so_far}; {speed} queries/s, time left {wait}"

    def cells(self, name: str) -> tuple[str, ...]:
        """Return the figures of one attack, under `COLUMNS`."""
        row = self.rows[name]
        if not row.counts:
            return ("-", "-", "-", str(self._left(row)), "-", "-")
        done = self.num_examples - self._left(row)
        return (
            f"{row.counts['survived'] / max(done, 1):.1%}",
            str(row.counts["flipped"]),
            str(row.counts["unresolved"]),
            str(self._left(row)),
            f"{row.queries / max(self._seconds(row), 1e-9):.0f}" if row.fresh else "-",
            _clock(self._time_left(row)),
        )

    def _row(self, name: str) -> _Row:
        return self.rows.setdefault(name, _Row(()))

    def _left(self, row: _Row) -> int:
        """Return the texts that the attack has yet to do, as far as earlier attacks are."""
        spared: set[str] = set()
        for name in row.before:
            spared |= self.rows[name].lost
        return max(self.num_examples - row.counts.total() - len(spared), 0)

    def _seconds(self, row: _Row) -> float:
        """Return how long the attack has run: until now, or its last text."""
        return (self.clock() if self._left(row) else row.ended) - row.started

    def _time_left(self, row: _Row) -> float | None:
        left = self._left(row)
        if left and not row.fresh:
            return None
        return left * self._seconds(row) / row.fresh if left else 0.0

    def _total(self) -> tuple[str, ...]:
        """Return the figures of all attacks together, over texts that all are done with."""
        done = [found for found in self.outcomes.values() if len(found) == len(self.rows)]
        worst = Counter(map(worst_case, done))
        seconds = max(self.clock() - self.began, 1e-9)
        rows = self.rows.values()
        fresh, left = sum(row.fresh for row in rows), sum(self._left(row) for row in rows)
        pace = (
            f"{sum(row.queries for row in rows) / seconds:.0f}",
            _clock(left * seconds / fresh if fresh else None),
        )
        if self.chained:
            return ("", "", "", "", *pace)
        return (
            f"{worst['survived'] / len(done):.1%}" if done else "-",
            str(worst["flipped"]),
            str(worst["unresolved"]),
            str(self.num_examples - len(done)),
            *pace,
        )


def _clock(seconds: float | None) -> str:
    """Return minutes and seconds, or hours in front."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
