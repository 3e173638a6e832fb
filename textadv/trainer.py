"""The training loop: one loop for every objective, on one process or many."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textadv.batching import Encoded, MicroBatches, Share
from textadv.diskspace import full_disk_named
from textadv.embeddings import enable_gradient_checkpointing, wrap
from textadv.errors import ConfigError
from textadv.interrupts import Interrupted, listening
from textadv.journal import Callback, Journal, mean_figures, mean_rows
from textadv.launch import make_accelerator, prepare
from textadv.monitors import overfitting_alarm
from textadv.nonfinite import Guard, warn_of_skips
from textadv.objectives import Objective, backward
from textadv.perturb import Perturbation
from textadv.runlock import run_lock
from textadv.seeding import preserve_rng, seed_everything, torch_generator
from textadv.sharding import unsharded
from textadv.store import RunStore, State
from textadv.training import TrainingConfig, learning_rate_factor, make_optimizer
from textadv.validation import validate

__all__ = ["TrainResult", "Trainer"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training ends with.

    Args:
        model: The final (best or last) model, unwrapped, in eval mode.
        step: Optimizer steps taken.
        best_step: Step whose weights were kept, when a metric chose.
        metrics: Figures of the last validation.
        seconds: Time spent, resumed parts included.
        skipped: Steps that did not reach the weights, because something in them was not finite.
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
    a resumed run ends with the same weights as an uninterrupted one. SIGTERM, SIGINT and SIGUSR1
    let the step end, save a checkpoint and raise `Interrupted`.

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
        merge_adapters: Whether the final model has its LoRA updates added in.

    Raises:
        OutputExistsError: If `output_dir` holds a run, and `fit` is not told to resume it.
        BusyError: If another process trains in it.
        DiskFullError: If what is to be kept does not fit, or ceases to.
        CheckpointError: If there is nothing to resume, or it belongs to another recipe or data.
        NonFiniteError: If losses or gradients are NaN or infinite in three steps in a row.
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
        merge_adapters: bool = True,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.objective, self.config = objective, config
        self.train_data, self.validation = train, validation
        self.perturbations = perturbations or {}
        self.callback, self.merge = callback, merge_adapters
        self.memory: dict[str, Tensor] = {}
        self.store = RunStore(Path(output_dir), fingerprint or {}, config.keep_checkpoints)
        if config.best_metric is not None and validation is None:
            raise ConfigError(
                "training.best_metric", got=config.best_metric, expected="validation data beside it"
            )

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Train to the end, save the final model, and return it."""
        folder = self.store.folder
        with listening() as self.signals, full_disk_named(folder), run_lock(folder):
            return self._fit(resume)

    def _fit(self, resume: bool) -> TrainResult:
        self.store.claim(resume=resume)
        config, folder = self.config, self.store.folder
        self.accelerator = make_accelerator(config.precision, config.trackers, folder / "trackers")
        self.journal = Journal(folder, self.accelerator, self.callback)
        with preserve_rng(self.accelerator.device):
            state = self._train(resume)
        self.model = unsharded(self.model)
        if state.best_step is not None and state.best_step != state.step:
            self.store.load_best(self.model)
        warn_of_skips(state)
        self.model.eval()
        main = self.accelerator.is_main_process
        self.model = self.store.finish(self.model, self.tokenizer, merge=self.merge, main=main)
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

    def _train(self, resume: bool) -> State:
        config, accelerator = self.config, self.accelerator
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(self.model)
        if config.freeze_embeddings:
            self.model.get_input_embeddings().requires_grad_(False)
        self.model.to(accelerator.device)
        optimizer: Any = make_optimizer(self.model, config)
        state = State()
        with accelerator.main_process_first():
            main = accelerator.is_main_process
            if main:
                self.store.check_room(self.model, best=config.best_metric is not None)
                self.store.checkpoints.mkdir(exist_ok=True)
            if resume:
                state = self.store.resume(
                    self.model, optimizer, accelerator.scaler, self.memory, main=main
                )
        if config.compile:
            self.model.compile(dynamic=True)
        prepared, optimizer = prepare(accelerator, self.model, optimizer)
        self.port = wrap(self.model, self.tokenizer, forward=prepared)
        self.port.memory.update(self.memory)
        self.guard = Guard(self.port, self.train_data, accelerator)
        self.port.parts.resume(state.limits, accelerator)
        self.micro_batches = MicroBatches.of(self.train_data.lengths, config, accelerator)
        self.journal.start(total_steps=self.total_steps, step=state.step)
        # Processes wait for each other, so there signals wait until all can stop at one step.
        waits = self.signals.held() if accelerator.num_processes > 1 else contextlib.nullcontext()
        with self.port.attached(), waits:
            try:
                self._loop(prepared, optimizer, state)
            except Interrupted as interrupted:
                self._save(optimizer, state)
                raise Interrupted(interrupted.signum, f"saved at step {state.step}") from None
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        return state

    def _loop(self, prepared: Any, optimizer: Any, state: State) -> None:
        """Step, validate and save until the end; between these, a signal finds `state` whole."""
        config, started = self.config, time.monotonic() - state.seconds
        saved = (state.step, state.validated)
        while True:
            if state.validated < state.step and self._due(state, config.eval_steps):
                self._validate(state)
            if saved != (state.step, state.validated) and self._due(state, config.save_steps):
                with self.signals.held():
                    self._save(optimizer, state)
                    saved = (state.step, state.validated)
            if state.step >= self.total_steps or state.stopped:
                return
            with self.signals.held():
                self._step(prepared, optimizer, state)
                state.seconds = time.monotonic() - started
            self.signals.stop_together(self.accelerator)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = round(self.config.epochs * self.micro_batches.steps_per_epoch)
        return self.config.max_steps or max(1, steps)

    def _step(self, prepared: Any, optimizer: Any, state: State) -> None:
        config, step, accelerator = self.config, state.step, self.accelerator
        prepared.train()
        objective = self.objective.at(step / self.total_steps)
        rate = config.learning_rate * learning_rate_factor(step, self.total_steps, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        share = self.micro_batches[step // self.objective.replays]

        def undo() -> None:
            optimizer.zero_grad()
            self.port.notes.clear()

        logs = self.port.parts.fitting(
            lambda: self._gradients(objective, share, step), undo=undo, where=f"step {step + 1}"
        )
        limit = config.max_grad_norm or math.inf
        grad_norm = float(accelerator.clip_grad_norm_(self.model.parameters(), limit))
        figures = mean_figures(logs, accelerator) | {"grad_norm": grad_norm, "learning_rate": rate}
        indices = [index for _, chosen, _ in share for index in chosen]
        if self.guard.update(optimizer, state, figures, indices):
            state.window.append(figures)
        state.step += 1
        row = None
        if self._due(state, config.log_steps):
            row = mean_rows(state.window or [figures]) | {"skipped_steps": state.skipped}
            state.window = []
        self.journal.step(state.step, row, self._clock(state))

    def _gradients(self, objective: Objective, share: Share, step: int) -> list[tuple[float, Any]]:
        """Run all passes of a step on this process, and return the figures by weight."""
        accelerator, seed, logs = self.accelerator, self.config.seed, []
        for position, (number, indices, weight) in enumerate(share):
            # Keyed by the micro-batch, not by the process: any split of a step draws the same.
            seed_everything(seed, "dropout", step, number)
            batch = self.train_data.batch(indices, accelerator.device)
            batch["example_id"] = torch.tensor(indices, device=accelerator.device)
            log = backward(
                objective,
                self.port,
                batch,
                accelerator,
                generator=torch_generator(accelerator.device, seed, "perturbation", step, number),
                scale=weight,
                sync=position == len(share) - 1,
            )
            logs.append((weight, log))
        return logs

    def _validate(self, state: State) -> None:
        """Measure, and keep the weights if the chosen metric has never been better."""
        figures = {}
        if self.validation is not None:
            figures = validate(
                self.port,
                self.validation,
                self.perturbations,
                self.accelerator,
                batch_size=self.config.eval_batch_size,
                seed=self.config.seed,
            )
        with self.signals.held():
            before, state.metrics = state.metrics, figures or state.metrics
            state.validated = state.step
            if not figures:
                return
            self.journal.validation(state.step, figures, self._clock(state))
            if alarm := overfitting_alarm(before, figures):
                logger.warning("step %d: %s", state.step, alarm)
            name = self.config.best_metric
            if name is not None and state.judge(name, self.config.patience):
                self.store.save_best(self.model, main=self.accelerator.is_main_process)

    def _save(self, optimizer: Any, state: State) -> None:
        state.limits = self.port.parts.limits(self.accelerator)
        main, scaler = self.accelerator.is_main_process, self.accelerator.scaler
        self.store.save(self.model, optimizer, scaler, state, self.port.memory, main=main)
        self.accelerator.wait_for_everyone()

    def _due(self, state: State, every: int | None) -> bool:
        last = state.step == self.total_steps or state.stopped
        return last or state.step % (every or self.micro_batches.steps_per_epoch) == 0

    def _clock(self, state: State) -> dict[str, float]:
        return {
            "epoch": round(state.step / self.micro_batches.steps_per_epoch, 4),
            "seconds": round(state.seconds, 2),
        }
