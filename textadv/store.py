"""A run directory: what a run keeps on disk, and how it is picked up again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textadv import checkpoint
from textadv.errors import CheckpointError, OutputExistsError

__all__ = ["RunStore", "State"]

MEMORY = "memory.safetensors"


@dataclasses.dataclass(kw_only=True)
class State:
    """What a checkpoint holds beside weights and optimizer: a step boundary, as plain data."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    stopped: bool = False
    non_finite: int = 0
    skipped: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    window: list[dict[str, float]] = dataclasses.field(default_factory=list)


class RunStore:
    """Keep checkpoints, the best weights and the final model of one run.

    Args:
        folder: The run directory.
        fingerprint: What a resumed run must have in common with this one, as plain data.
        keep: Checkpoints to keep.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], keep: int) -> None:
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep
        self.checkpoints = folder / "checkpoints"

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

    def save(
        self, model: Any, optimizer: Any, scaler: Any, state: State, memory: dict[str, Tensor]
    ) -> None:
        """Write a checkpoint, then drop old ones and best weights that nothing refers to."""

        def write(folder: Path) -> None:
            checkpoint.save_weights(model, folder / "model.safetensors")
            checkpoint.save_optimizer(optimizer, folder)
            if memory:
                checkpoint.save_tensors(memory, folder / MEMORY)
            contents = {
                "state": dataclasses.asdict(state),
                "fingerprint": self.fingerprint,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            checkpoint.write_text(folder / "state.json", json.dumps(contents))

        checkpoint.save(self.checkpoints / f"step-{state.step:08d}", write)
        checkpoint.prune(self.checkpoints, self.keep)
        # Every kept checkpoint may refer to the best weights of its own time.
        kept = {
            json.loads((folder / "state.json").read_text(encoding="utf-8"))["state"]["best_step"]
            for folder in checkpoint.folders(self.checkpoints)
        }
        for file in self.checkpoints.glob("best-*.safetensors"):
            if file not in {self._best(step) for step in kept if step is not None}:
                file.unlink()

    def resume(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        memory: dict[str, Tensor],
    ) -> State:
        """Restore the newest checkpoint that verifies; a fresh state if none was ever written.

        The objective's memory is put into `memory`.

        Raises:
            CheckpointError: All are damaged, or they belong to another recipe or data.
        """
        folder = checkpoint.latest(self.checkpoints)
        if folder is None:
            return State()
        saved = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        theirs = saved["fingerprint"]
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
        checkpoint.load_weights(model, folder / "model.safetensors")
        checkpoint.load_optimizer(optimizer, folder)
        if (folder / MEMORY).is_file():
            memory.update(checkpoint.load_tensors(folder / MEMORY))
        if scaler is not None and saved["scaler"] is not None:
            scaler.load_state_dict(saved["scaler"])
        return State(**saved["state"])

    def save_best(self, model: Any, step: int) -> None:
        """Keep the weights of a step, for when training ends."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoint.save_weights(model, self._best(step))

    def load_best(self, model: Any, step: int) -> None:
        """Put the kept weights of a step into the model."""
        checkpoint.load_weights(model, self._best(step))

    def save_model(self, model: Any, tokenizer: Any) -> Path:
        """Write the final model as a plain Transformers directory, whole or not at all."""

        def write(folder: Path) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        target = self.folder / "model"
        checkpoint.save(target, write, manifest=False)
        return target

    def _best(self, step: int) -> Path:
        return self.checkpoints / f"best-{step:08d}.safetensors"
