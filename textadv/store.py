"""A run directory: what a run keeps on disk, and how it is picked up again."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textadv import checkpoint, diskspace
from textadv.adapters import merged, save_adapters, trained_weights, unmerged
from textadv.errors import CheckpointError, ConfigError, OutputExistsError
from textadv.sharding import whole

__all__ = ["RunStore", "State"]

logger = logging.getLogger(__name__)

MODEL, BEST, MEMORY = "model.safetensors", "best.safetensors", "memory.safetensors"
METRICS = "metrics.jsonl"


@dataclasses.dataclass(kw_only=True)
class State:
    """What a checkpoint holds beside weights and optimizer: a step boundary, as plain data.

    Args:
        step: Optimizer steps taken.
        validated: Step of the last validation.
        best_step: Step whose weights are kept, and the metric there.
        best_value: That metric, so that higher is better.
        stale: Validations since then.
        stopped: Whether training ended early.
        non_finite: Steps in a row, up to this one, that did not reach the weights.
        skipped: All steps that did not.
        seconds: Time spent.
        limits: The most texts that pass through the model at once on each process, 0 for any.
        metrics: Figures of the last validation.
        window: Figures of the steps since the last row of `metrics.jsonl`.
    """

    step: int = 0
    validated: int = 0
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    stopped: bool = False
    non_finite: int = 0
    skipped: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    limits: list[int] = dataclasses.field(default_factory=list)
    window: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def judge(self, name: str, patience: int | None) -> bool:
        """Return whether a metric of the last validation is the best so far.

        Otherwise count it, and stop the run after `patience` of them.

        Raises:
            ConfigError: There is no such metric.
        """
        if name not in self.metrics:
            raise ConfigError(
                "training.best_metric", got=name, expected="one of " + ", ".join(self.metrics)
            )
        value = -self.metrics[name] if "loss" in name else self.metrics[name]
        if math.isfinite(value) and (self.best_value is None or value > self.best_value):
            self.best_value, self.best_step, self.stale = value, self.step, 0
            return True
        self.stale += 1
        self.stopped = patience is not None and self.stale >= patience
        return False


class RunStore:
    """Keep checkpoints, the best weights and the final model of one run.

    A checkpoint is whole by itself: it holds the best weights and the rows of `metrics.jsonl` of
    its time too, so that damage to any file is repaired by going one checkpoint back.

    Args:
        folder: The run directory.
        fingerprint: What a resumed run must have in common with this one, as plain data.
        keep: Checkpoints to keep.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], keep: int) -> None:
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep
        self.checkpoints = folder / "checkpoints"
        self.metrics, self.best = folder / METRICS, self.checkpoints / BEST

    def claim(self, *, resume: bool) -> None:
        """Refuse a directory that holds another run, or nothing to resume.

        Raises:
            OutputExistsError: A new run would overwrite one.
            CheckpointError: There is no run to resume.
        """
        if resume and not self.checkpoints.is_dir():
            raise CheckpointError(
                str(self.folder), got="no checkpoints", expected="a run to resume"
            )
        if not resume and self.checkpoints.exists():
            raise OutputExistsError(
                str(self.folder),
                got="another run",
                expected="a new or empty directory",
                fix="choose another --output-dir, or continue that run with --resume",
            )

    def check_room(self, model: torch.nn.Module, *, best: bool) -> None:
        """Raise `DiskFullError` if the checkpoints to keep and the model will not fit.

        Args:
            model: Its weights, and two moments of each trainable one, are written.
            best: Whether the best weights are kept too.
        """
        sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
        weights = sum(size for size, _ in sizes)
        one = weights * (2 if best else 1) + 2 * sum(size for size, trained in sizes if trained)
        # While one is written, those that it will replace are still there.
        missing = max(self.keep + 1 - len(checkpoint.folders(self.checkpoints)), 1)
        diskspace.check_room(self.folder, missing * one + weights)

    def save(
        self,
        model: Any,
        optimizer: Any,
        scaler: Any,
        state: State,
        memory: dict[str, Tensor],
        *,
        main: bool = True,
    ) -> None:
        """Write a checkpoint, then drop old ones.

        Args:
            main: Whether this process writes; with a sharded model, all must call this.
        """
        model, optimizer = whole(model, model), whole(optimizer, model)
        if not main:
            return

        def write(folder: Path) -> None:
            checkpoint.save_weights(model, folder / MODEL)
            checkpoint.save_optimizer(optimizer, folder)
            if memory:
                checkpoint.save_tensors(memory, folder / MEMORY)
            if state.best_step not in (None, state.step):
                shutil.copyfile(self.best, folder / BEST)
            rows = self.metrics.read_bytes() if self.metrics.exists() else b""
            (folder / METRICS).write_bytes(rows)
            contents = {
                "state": dataclasses.asdict(state),
                "fingerprint": self.fingerprint,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            (folder / "state.json").write_text(json.dumps(contents), encoding="utf-8")

        checkpoint.save(self.checkpoints / f"step-{state.step:08d}", write)
        checkpoint.prune(self.checkpoints, self.keep)

    def resume(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        memory: dict[str, Tensor],
        *,
        main: bool,
    ) -> State:
        """Restore the newest checkpoint that verifies; a fresh state if none was ever written.

        The objective's memory is put into `memory`. The best weights and `metrics.jsonl` become
        what they were then.

        Args:
            main: Whether this process writes: the first one, before the others call this.

        Raises:
            CheckpointError: All are damaged, or they belong to another recipe or data.
        """
        folder = checkpoint.latest(self.checkpoints)
        if folder is None:
            if main:
                self.metrics.unlink(missing_ok=True)
            return State()
        saved = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self._check(folder, saved["fingerprint"])
        state = State(**saved["state"])
        checkpoint.load_weights(model, folder / MODEL)
        checkpoint.load_optimizer(optimizer, folder)
        if (folder / MEMORY).is_file():
            memory.update(checkpoint.load_tensors(folder / MEMORY))
        if scaler is not None and saved["scaler"] is not None:
            scaler.load_state_dict(saved["scaler"])
        if main:
            if state.best_step is not None:
                best = folder / (MODEL if state.best_step == state.step else BEST)
                checkpoint.replace(self.best, lambda aside: shutil.copyfile(best, aside))
            rows = folder / METRICS
            checkpoint.replace(self.metrics, lambda aside: shutil.copyfile(rows, aside))
            logger.info("resumed from %s", folder)
        return state

    def save_best(self, model: Any, *, main: bool = True) -> None:
        """Keep the weights of this step, for when training ends; `main` as in `save`."""
        model = whole(model, model)
        if main:
            checkpoint.replace(self.best, lambda aside: checkpoint.save_weights(model, aside))

    def load_best(self, model: Any) -> None:
        """Put the kept weights into the model."""
        checkpoint.load_weights(model, self.best)

    def finish(self, model: Any, tokenizer: Any, *, merge: bool, main: bool) -> Any:
        """Write the final model, whole or not at all, and return it.

        `model/` is a plain Transformers directory. Of a model with adapters these are in
        `adapter/`, and `model/` has them added in; with `merge` off, `model/` holds them alone.

        Args:
            merge: Whether adapters are to be merged.
            main: Whether this process writes.
        """
        adapted = trained_weights(model) is not None

        def write(folder: Path) -> None:
            if trained_weights(model) is None:
                model.save_pretrained(folder)
            else:
                save_adapters(model, folder)
            tokenizer.save_pretrained(folder)

        if main and adapted and merge:
            checkpoint.save(self.folder / "adapter", write, manifest=False)
        model = merged(model) if merge else unmerged(model)
        if main:
            checkpoint.save(self.folder / "model", write, manifest=False)
        return model

    def _check(self, folder: Path, theirs: dict[str, Any]) -> None:
        differing = sorted(
            key
            for key in {*theirs, *self.fingerprint}
            if theirs.get(key) != self.fingerprint.get(key)
        )
        if differing:
            raise CheckpointError(
                str(folder),
                got=f"a run with another {', '.join(differing)}",
                expected="the same recipe and data",
                fix="resume with the recipe.yaml of the run directory, or start a new directory",
            )
