"""The `training` block of a recipe, and what follows from it alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch

from textadv.errors import ConfigError

__all__ = ["TrainingConfig", "learning_rate_factor", "make_optimizer"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Say how the weights are updated.

    Args:
        learning_rate: Peak learning rate of AdamW.
        epochs: Passes over the training data; fractions stop inside one.
        max_steps: Optimizer steps, instead of `epochs`.
        batch_size: Examples per micro-batch and process.
        gradient_accumulation_steps: Micro-batches per process and optimizer step.
        eval_batch_size: Examples per batch of validation.
        weight_decay: AdamW's, on matrices only.
        max_grad_norm: Gradients are clipped to this l2 norm once per step; null for never.
        warmup_fraction: Share of the steps in which the learning rate rises from 0.
        lr_schedule: What it does then: falls to 0 `linear`ly or as a `cosine`, or stays `constant`.
        precision: `auto` takes bf16 where the hardware multiplies in it, else fp32.
        seed: Seed of the head, the order, dropout and perturbations.
        length_bucketing: Batch texts of similar length together.
        pad_to_multiple_of: Round batch widths up to a multiple of this.
        eval_steps: Steps between validations; null for once per epoch.
        eval_examples: Validate on at most this many examples, fixed by the seed; null for all.
        save_steps: Steps between checkpoints; null for once per epoch.
        keep_checkpoints: Checkpoints to keep, at least 1.
        best_metric: Name of the validation metric whose best step becomes the final model, such as
            `clean_accuracy` or `accuracy_under_pgd`; null keeps the last step.
        patience: Stop after this many validations without a better `best_metric`; null for never.
        log_steps: Steps between rows of `metrics.jsonl`.
        gradient_checkpointing: Recompute activations to save memory.
        compile: Compile the model with `torch.compile`.
        freeze_embeddings: Keep the word embeddings as they are.
        trackers: Names that Accelerate knows: tensorboard, wandb, mlflow, ...
    """

    learning_rate: float = 5e-5
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    eval_batch_size: int = 64
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0
    warmup_fraction: float = 0.1
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    precision: Precision = "auto"
    seed: int = 0
    length_bucketing: bool = True
    pad_to_multiple_of: int = 1
    eval_steps: int | None = None
    eval_examples: int | None = None
    save_steps: int | None = None
    keep_checkpoints: int = 2
    best_metric: str | None = None
    patience: int | None = None
    log_steps: int = 10
    gradient_checkpointing: bool = False
    compile: bool = False
    freeze_embeddings: bool = False
    trackers: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "a number > 0")
        for name in (
            "batch_size",
            "gradient_accumulation_steps",
            "eval_batch_size",
            "pad_to_multiple_of",
            "keep_checkpoints",
            "log_steps",
        ):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "a whole number >= 1")
        for name in ("max_steps", "eval_steps", "eval_examples", "save_steps", "patience"):
            value = getattr(self, name)
            _require(name, value, value is None or value >= 1, "a whole number >= 1, or null")
        _require("weight_decay", self.weight_decay, self.weight_decay >= 0, "a number >= 0")
        warm = self.warmup_fraction
        _require("warmup_fraction", warm, 0 <= warm <= 1, "a number from 0 to 1")
        clip = self.max_grad_norm
        _require("max_grad_norm", clip, clip is None or clip > 0, "a number > 0, or null")
        _require("seed", self.seed, self.seed >= 0, "a whole number >= 0")
        if self.patience is not None and self.best_metric is None:
            raise ConfigError(
                "patience", got=str(self.patience), expected="best_metric beside it", fix="set both"
            )


def learning_rate_factor(step: int, total: int, config: TrainingConfig) -> float:
    """Return the share of the peak learning rate that step `step` (from 0) of `total` uses.

    Example:
        >>> [learning_rate_factor(s, 4, TrainingConfig(warmup_fraction=0.5)) for s in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    warmup = round(config.warmup_fraction * total)
    if step < warmup:
        return (step + 1) / warmup
    if config.lr_schedule == "constant":
        return 1.0
    left = (total - step) / max(total - warmup, 1)
    return left if config.lr_schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def make_optimizer(model: torch.nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on matrices only, in one pass over the weights."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(name, got=str(value), expected=expected)
