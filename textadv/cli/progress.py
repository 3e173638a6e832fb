"""Progress on a terminal: live bars where there is one, plain lines where there is not."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["AttackProgress", "TrainProgress"]

SECONDS_BETWEEN_LINES = 20.0


class _Bar:
    """One task on a bar; without a terminal, a line now and then."""

    def __init__(self, console: Console, label: str) -> None:
        self.console, self.label = console, label
        self.live = console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.done, self.total, self.begin = 0, 0, 0
        self.started = self.printed = time.monotonic()
        self.task: Any = None

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.bar.stop()

    def begin_at(self, done: int, total: int) -> None:
        self.done = self.begin = done
        self.total = total
        self.started = self.printed = time.monotonic()
        if self.live:
            self.task = self.bar.add_task(self.label, total=total, completed=done, figures="")

    def move_to(self, done: int, figures: str) -> None:
        self.done = done
        if self.live:
            self.bar.update(self.task, completed=done, figures=figures)
            return
        now = time.monotonic()
        if now - self.printed >= SECONDS_BETWEEN_LINES and done < self.total:
            rate = (done - self.begin) / (now - self.started)
            left = (self.total - done) / rate
            self.printed = now
            self.console.print(
                f"{self.label}  {done}/{self.total}  {figures}  about {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )


class TrainProgress(_Bar):
    """Show loss, clean and adversarial accuracy, and the time left."""

    figures = ""

    def on_start(self, info: dict[str, Any]) -> None:
        """Print what decides the numbers, and start the bar."""
        found = info["environment"]
        self.console.print(
            f"{self.label}: {info['total_steps']} steps, processes: {found['num_processes']}, "
            f"{found['device']}, threads: {found['threads']}, {found['mixed_precision']}",
            highlight=False,
            soft_wrap=True,
        )
        self.begin_at(info["step"], info["total_steps"])

    def on_step(self, step: int, figures: dict[str, float] | None) -> None:
        """Move the bar."""
        if figures is not None:
            shown = [f"loss {figures['loss']:.3f}"]
            for name in ("clean", "adversarial", "trades"):
                if f"{name}_accuracy" in figures:
                    shown.append(f"{name} acc {figures[f'{name}_accuracy']:.1%}")
            self.figures = "  ".join(shown)
        self.move_to(step, self.figures)

    def on_validation(self, step: int, figures: dict[str, float]) -> None:
        """Print one line of figures."""
        shown = [
            f"{name.replace('_', ' ')} {value:.1%}"
            if "accuracy" in name
            else f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in figures.items()
            if "accuracy" in name or "clean" in name
        ]
        self.console.print(f"  step {step}: " + ", ".join(shown), highlight=False, soft_wrap=True)


class AttackProgress(_Bar):
    """Show how the attacks went so far, queries per second and the time left."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        super().__init__(console, label)
        self.expected = total
        self.counts: dict[str, int] = {}
        self.queries = 0

    def on_record(self, record: Any) -> None:
        """Count one finished record."""
        if self.total == 0:
            self.begin_at(0, self.expected)
        self.counts[record.status] = self.counts.get(record.status, 0) + 1
        self.queries += record.num_queries
        done = self.done + 1
        speed = self.queries / max(time.monotonic() - self.started, 1e-9)
        counts = "  ".join(
            f"{status.replace('_', ' ')} {self.counts.get(status, 0)}"
            for status in ("wrong_before", "flipped", "survived")
        )
        self.move_to(done, f"{counts}  {speed:.0f} queries/s")
