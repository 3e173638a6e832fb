"""What a run tells the world: `metrics.jsonl`, trackers, and a callback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from textadv import checkpoint
from textadv.launch import environment

__all__ = ["Callback", "Journal", "mean_rows"]


class Callback(Protocol):
    """What a progress bar or a logger implements; called on the main process only."""

    def on_start(self, info: dict[str, Any]) -> None:
        """Called once, with `total_steps`, `step` (0, or where it resumes) and `environment`."""

    def on_step(self, step: int, figures: dict[str, float] | None) -> None:
        """Called after every optimizer step; with mean figures when a row is written."""

    def on_validation(self, step: int, figures: dict[str, float]) -> None:
        """Called after every validation."""


class Journal:
    """Write rows on the main process; do nothing on the others.

    Args:
        folder: The run directory.
        accelerator: Knows which process is the main one, and the trackers.
        callback: Told about the same things.
    """

    def __init__(self, folder: Path, accelerator: Any, callback: Callback | None) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.callback = callback if accelerator.is_main_process else None
        self.file = folder / "metrics.jsonl"

    def start(self, *, total_steps: int, step: int) -> None:
        """Write `env.json`, start the trackers, and forget rows after the step a run resumes at."""
        if not self.accelerator.is_main_process:
            return
        info = environment(self.accelerator)
        checkpoint.write_text(self.folder / "env.json", json.dumps(info, indent=1) + "\n")
        if self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            checkpoint.write_text(self.file, "".join(kept))
        if self.accelerator.log_with:
            self.accelerator.init_trackers(self.folder.name)
        if self.callback is not None:
            self.callback.on_start({"total_steps": total_steps, "step": step, "environment": info})

    def step(self, step: int, figures: dict[str, float] | None, clock: dict[str, float]) -> None:
        """Note an optimizer step, and write a row when there are figures."""
        if figures is not None:
            self._write(step, "train", figures, clock)
        if self.callback is not None:
            self.callback.on_step(step, figures)

    def validation(self, step: int, figures: dict[str, float], clock: dict[str, float]) -> None:
        """Write a row of validation figures."""
        self._write(step, "validation", figures, clock)
        if self.callback is not None:
            self.callback.on_validation(step, figures)

    def _write(
        self, step: int, split: str, figures: dict[str, float], clock: dict[str, float]
    ) -> None:
        if not self.accelerator.is_main_process:
            return
        row = {"step": step, "split": split, **figures, **clock}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        if self.accelerator.log_with:
            named = {f"{split}/{name}": value for name, value in figures.items()}
            self.accelerator.log(named, step=step)


def mean_rows(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average each figure over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    present = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in present.items()}
