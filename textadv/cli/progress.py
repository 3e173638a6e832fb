"""Progress of training: a live bar on a terminal, plain lines elsewhere."""

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

__all__ = ["TrainProgress"]

SECONDS_BETWEEN_LINES = 20.0


class TrainProgress:
    """Show loss, clean and adversarial accuracy, and the time left.

    Args:
        console: Where to print.
        label: What is trained.
    """

    def __init__(self, console: Console, label: str) -> None:
        self.console, self.label = console, label
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
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(label, total=None, figures="", start=False)
        self.begin = self.total = 0
        self.figures = ""
        self.started = self.printed = self.touched = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self.bar.stop()

    def on_start(self, info: dict[str, Any]) -> None:
        """Print what decides the numbers, and start the bar."""
        found = info["environment"]
        self._print(
            f"{self.label}: {info['total_steps']} steps, processes: {found['num_processes']}, "
            f"{found['device']}, threads: {found['threads']}, {found['mixed_precision']}"
        )
        self.begin, self.total = info["step"], info["total_steps"]
        self.started = self.printed = self.touched = time.monotonic()
        self.bar.start()
        self.bar.update(self.task, total=self.total, completed=self.begin)
        self.bar.start_task(self.task)

    def on_step(self, step: int, figures: dict[str, float] | None) -> None:
        """Move the bar."""
        if figures is not None:
            shown = [f"loss {figures['loss']:.3f}"]
            for name in ("clean", "adversarial", "trades"):
                if f"{name}_accuracy" in figures:
                    shown.append(f"{name} acc {figures[f'{name}_accuracy']:.1%}")
            self.figures = "  ".join(shown)
        self.touched = time.monotonic()
        self.bar.update(self.task, completed=step, figures=self.figures)
        quiet = self.touched - self.printed < SECONDS_BETWEEN_LINES or step == self.total
        if quiet or self.console.is_terminal:
            return
        self.printed = self.touched
        left = (self.total - step) * (self.touched - self.started) / (step - self.begin)
        self._print(f"{self.label}  {step}/{self.total}  {self.figures}  about {left:.0f} s left")

    def on_validation(self, step: int, figures: dict[str, float]) -> None:
        """Print one line of figures."""
        shown = [
            f"{name.replace('_', ' ')} {value:.1%}"
            if "accuracy" in name
            else f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in figures.items()
            if "accuracy" in name or "clean" in name
        ]
        self.touched = time.monotonic()
        self._print(f"  step {step}: " + ", ".join(shown))

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
