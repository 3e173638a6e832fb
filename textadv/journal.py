"""What a run tells the world: `metrics.jsonl`, trackers, and a callback."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from textadv import checkpoint
from textadv.errors import DataError
from textadv.files import read_json
from textadv.launch import environment

__all__ = ["Callback", "Journal", "mean_figures", "mean_rows"]

logger = logging.getLogger(__name__)


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
        """Write `env.json` and start the trackers; say what is not as it was before a resume."""
        if not self.accelerator.is_main_process:
            return
        info = environment(self.accelerator)
        file = self.folder / "env.json"
        if step and file.exists():
            try:
                _compare(read_json(file, "the environment of the run"), info)
            except DataError as error:
                logger.warning("%s", error)
        checkpoint.write_text(file, json.dumps(info, indent=1) + "\n")
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
            stream.write(json.dumps(plain_floats(row), allow_nan=False) + "\n")
        if self.accelerator.log_with:
            named = {f"{split}/{name}": value for name, value in figures.items()}
            self.accelerator.log(named, step=step)


def _compare(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn about what a resumed run does not have in common with its beginning."""
    names = [name for name in now if name != "versions"]
    pairs = {name: (before.get(name), now[name]) for name in names}
    versions = before.get("versions")
    for name, version in now["versions"].items():
        pairs[name] = (versions.get(name) if isinstance(versions, dict) else None, version)
    changes = [f"{name} {new} instead of {old}" for name, (old, new) in pairs.items() if old != new]
    if changes:
        logger.warning(
            "resumed with %s: the last bits may differ from those of an uninterrupted run",
            ", ".join(changes),
        )


def plain_floats(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row fit for JSON, which has no NaN and no infinity: null stands for them."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def mean_figures(
    logs: Sequence[tuple[float, Mapping[str, Tensor]]], accelerator: Any
) -> dict[str, float]:
    """Average the figures of a step over its micro-batches, by weight, and over all processes."""
    names = list(logs[0][1])
    rows = [weight * torch.stack([log[name].float() for name in names]) for weight, log in logs]
    means = accelerator.reduce(torch.stack(rows).sum(0), "mean").tolist()
    return dict(zip(names, means, strict=True))


def mean_rows(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average each figure over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    present = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in present.items()}
