"""The training loop: one loop for every objective, on one process or many."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textadv.batching import Encoded, MicroBatches
from textadv.embeddings import enable_gradient_checkpointing, wrap
from textadv.errors import ConfigError, NonFiniteError
from textadv.journal import Callback, Journal, mean_rows
from textadv.launch import make_accelerator
from textadv.monitors import overfitting_alarm
from textadv.objectives import Objective, backward
from textadv.perturb import Perturbation
from textadv.seeding import preserve_rng, seed_everything, torch_generator
from textadv.store import RunStore, State
from textadv.training import TrainingConfig, learning_rate_factor, make_optimizer
from textadv.validation import validate

__all__ = ["TrainResult", "Trainer"]

logger = logging.getLogger(__name__)

MAX_NON_FINITE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training ends with.

    Args:
        model: The final (best or last) model, unwrapped, in eval mode.
        step: Optimizer steps taken.
        best_step: Step whose weights were kept, when a metric chose.
        metrics: Figures of the last validation.
        seconds: Time spent, resumed parts included.
        skipped: Steps whose gradient was not finite.
    """

    model: Any
    step: int
    best_step: int | None
    metrics: dict[str, float]
    seconds: float
    skipped: int


class Trainer:
    """Minimise an objective and leave a run directory.

    The directory holds `model/` (plain `save_pretrained`), `checkpoints/`, `metrics.jsonl` and
    `env.json`. Order, dropout and perturbations of a step depend on the seed and the step alone, so
    a resumed run ends with the same weights as an uninterrupted one.

    Args:
        model: A Transformers sequence classifier.
        tokenizer: Saved beside the model.
        objective: What to minimise.
        config: The `training` block.
        train: Encoded training examples.
        output_dir: The run directory.
        validation: Encoded validation examples.
        perturbations: Each gives an `accuracy_under_<name>` beside the clean accuracy.
        fingerprint: What a resumed run must have in common with this one, as plain data.
        callback: Gets told about progress.

    Raises:
        OutputExistsError: If `output_dir` holds a run, and `fit` is not told to resume it.
        CheckpointError: If there is nothing to resume, or it belongs to another recipe or data.
        NonFiniteError: If gradients are NaN or infinite in three steps in a row.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        objective: Objective,
        config: TrainingConfig,
        train: Encoded,
        *,
        output_dir: str | Path,
        validation: Encoded | None = None,
        perturbations: dict[str, Perturbation] | None = None,
        fingerprint: dict[str, Any] | None = None,
        callback: Callback | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.objective, self.config = objective, config
        self.train_data, self.validation = train, validation
        self.perturbations = perturbations or {}
        self.callback = callback
        self.memory: dict[str, Tensor] = {}
        if objective.keeps_memory and config.gradient_accumulation_steps > 1:
            raise ConfigError(
                "training.gradient_accumulation_steps",
                got=f"{config.gradient_accumulation_steps} with an objective that keeps memory",
                expected="1: what it keeps belongs to one batch after the other",
                fix="use a larger batch_size",
            )
        self.store = RunStore(Path(output_dir), fingerprint or {}, config.keep_checkpoints)
        if config.best_metric is not None and validation is None:
            raise ConfigError(
                "training.best_metric", got=config.best_metric, expected="validation data beside it"
            )

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Train to the end, save the final model, and return it."""
        self.store.claim(resume=resume)
        config, folder = self.config, self.store.folder
        self.accelerator = make_accelerator(config.precision, config.trackers, folder / "trackers")
        self.journal = Journal(folder, self.accelerator, self.callback)
        with preserve_rng(self.accelerator.device):
            state = self._fit(resume)
        if state.best_step is not None and state.best_step != state.step:
            self.store.load_best(self.model, state.best_step)
        self.model.eval()
        if self.accelerator.is_main_process:
            self.store.save_model(self.model, self.tokenizer)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return TrainResult(
            model=self.model,
            step=state.step,
            best_step=state.best_step,
            metrics=state.metrics,
            seconds=state.seconds,
            skipped=state.skipped,
        )

    def _fit(self, resume: bool) -> State:
        config, accelerator = self.config, self.accelerator
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(self.model)
        if config.freeze_embeddings:
            self.model.get_input_embeddings().requires_grad_(False)
        self.model.to(accelerator.device)
        optimizer: Any = make_optimizer(self.model, config)
        state = State()
        if resume:
            state = self.store.resume(self.model, optimizer, accelerator.scaler, self.memory)
        if accelerator.is_main_process:
            self.store.checkpoints.mkdir(parents=True, exist_ok=True)
        accelerator.wait_for_everyone()
        if config.compile:
            self.model.compile(dynamic=True)
        prepared, optimizer = accelerator.prepare(self.model, optimizer)
        self.port = wrap(self.model, self.tokenizer, forward=prepared)
        self.port.memory.update(self.memory)
        self.micro_batches = MicroBatches(
            self.train_data.lengths,
            batch_size=config.batch_size,
            accumulation=config.gradient_accumulation_steps,
            seed=config.seed,
            length_bucketing=config.length_bucketing,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        self.journal.start(total_steps=self.total_steps, step=state.step)
        started = time.monotonic() - state.seconds
        with self.port.attached():
            while state.step < self.total_steps and not state.stopped:
                self._step(prepared, optimizer, state)
                state.seconds = time.monotonic() - started
                if self._due(state.step, config.eval_steps):
                    self._validate(state)
                if self._due(state.step, config.save_steps):
                    self._save(optimizer, state)
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        return state

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        if self.config.max_steps is not None:
            return self.config.max_steps
        return max(1, round(self.config.epochs * self.micro_batches.steps_per_epoch))

    def _step(self, prepared: Any, optimizer: Any, state: State) -> None:
        config, step, accelerator = self.config, state.step, self.accelerator
        prepared.train()
        objective = self.objective.at(step / self.total_steps)
        rate = config.learning_rate * learning_rate_factor(step, self.total_steps, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        share = self.micro_batches[step // self.objective.replays]
        logs: list[tuple[float, dict[str, Tensor]]] = []
        for position, (number, indices, weight) in enumerate(share):
            # Keyed by the micro-batch, not by the process: any split of a step draws the same.
            seed_everything(config.seed, "dropout", step, number)
            batch = self.train_data.batch(indices, accelerator.device)
            batch["example_id"] = torch.tensor(indices, device=accelerator.device)
            log = backward(
                objective,
                self.port,
                batch,
                accelerator,
                generator=torch_generator(
                    accelerator.device, config.seed, "perturbation", step, number
                ),
                scale=weight,
                sync=position == len(share) - 1,
            )
            logs.append((weight, log))
        grad_norm = float(
            accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm or math.inf)
        )
        self._update(optimizer, state, grad_norm)
        state.step += 1
        figures = self._mean_figures(logs) | {"grad_norm": grad_norm, "learning_rate": rate}
        state.window.append(figures)
        row = None
        if self._due(state.step, config.log_steps):
            row, state.window = mean_rows(state.window), []
        self.journal.step(state.step, row, self._clock(state))

    def _update(self, optimizer: Any, state: State, grad_norm: float) -> None:
        """Step the optimizer; a gradient that is not finite never reaches the weights.

        With fp16 the loss scaler decides: it expects overflows while it looks for its scale.
        """
        if math.isfinite(grad_norm) or self.accelerator.scaler is not None:
            optimizer.step()
            state.skipped += bool(getattr(optimizer, "step_was_skipped", False))
            state.non_finite = 0
        else:
            state.non_finite += 1
            state.skipped += 1
            logger.warning("step %d: gradient not finite, step skipped", state.step)
        optimizer.zero_grad()
        if state.non_finite >= MAX_NON_FINITE:
            raise NonFiniteError(
                f"step {state.step}",
                got=f"gradients that are not finite in {MAX_NON_FINITE} steps in a row",
                expected="finite ones",
                fix="lower training.learning_rate or the radius, or use training.precision: fp32",
            )

    def _mean_figures(self, logs: list[tuple[float, dict[str, Tensor]]]) -> dict[str, float]:
        """Average the figures of a step over its examples, on all processes."""
        names = list(logs[0][1])
        rows = torch.stack(
            [weight * torch.stack([log[name].float() for name in names]) for weight, log in logs]
        )
        means = self.accelerator.reduce(rows.sum(0), "mean").tolist()
        return dict(zip(names, means, strict=True))

    def _validate(self, state: State) -> None:
        """Measure, and keep the weights if the chosen metric has never been better."""
        if self.validation is None:
            return
        before, state.metrics = (
            state.metrics,
            validate(
                self.port,
                self.validation,
                self.perturbations,
                self.accelerator,
                batch_size=self.config.eval_batch_size,
                seed=self.config.seed,
            ),
        )
        self.journal.validation(state.step, state.metrics, self._clock(state))
        if alarm := overfitting_alarm(before, state.metrics):
            logger.warning("step %d: %s", state.step, alarm)
        name = self.config.best_metric
        if name is None:
            return
        if name not in state.metrics:
            raise ConfigError(
                "training.best_metric", got=name, expected="one of " + ", ".join(state.metrics)
            )
        value = -state.metrics[name] if "loss" in name else state.metrics[name]
        if state.best_value is None or value > state.best_value:
            state.best_value, state.best_step, state.stale = value, state.step, 0
            if self.accelerator.is_main_process:
                self.store.save_best(self.model, state.step)
        else:
            state.stale += 1
            state.stopped = self.config.patience is not None and state.stale >= self.config.patience

    def _save(self, optimizer: Any, state: State) -> None:
        if self.accelerator.is_main_process:
            self.store.save(self.model, optimizer, self.accelerator.scaler, state, self.port.memory)
        self.accelerator.wait_for_everyone()

    def _due(self, step: int, every: int | None) -> bool:
        return step % (every or self.micro_batches.steps_per_epoch) == 0 or step == self.total_steps

    def _clock(self, state: State) -> dict[str, float]:
        return {
            "epoch": round(state.step / self.micro_batches.steps_per_epoch, 4),
            "seconds": round(state.seconds, 2),
        }
