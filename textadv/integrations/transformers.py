"""Train with any objective from any `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from textadv import checkpoint
from textadv.embeddings import EmbeddingPort, wrap
from textadv.objectives import Objective, backward
from textadv.seeding import torch_generator
from textadv.tokens import OURS

__all__ = ["AdversarialTrainer", "AdversarialTrainerMixin"]

MEMORY = "objective_memory.safetensors"


class AdversarialTrainerMixin:
    """Make a `transformers.Trainer` subclass minimise an objective.

    `training_step` is replaced, not `compute_loss`, because some objectives run several backward
    passes; evaluation, prediction, logging and saving stay as they are. Figures of the objective
    are logged beside the loss.

    `model_accepts_loss_kwargs` is set to False: many heads take keyword arguments without using
    `num_items_in_batch`, and the trainer then forgets to divide by the accumulation steps.

    Args:
        objective: What to minimise.
        perturbation_seed: Seed of the perturbations' starts. Default: `args.seed`.
        args: All positional and keyword arguments of the trainer.

    Example:
        >>> class MyTrainer(AdversarialTrainerMixin, transformers.Trainer):
        ...     pass
    """

    objective: Objective

    def __init__(
        self, *args: Any, objective: Objective, perturbation_seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        trainer.model_accepts_loss_kwargs = False
        self.objective = objective
        self.perturbation_seed = (
            trainer.args.seed if perturbation_seed is None else perturbation_seed
        )
        self._port: EmbeddingPort | None = None
        self._figures: dict[str, list[Tensor]] = {}
        self._micro_step = 0
        self._replayed: tuple[int, Any] = (0, None)
        self._memory: dict[str, Tensor] = {}

    def port_of(self, model: Any) -> EmbeddingPort:
        """Return the port on the bare model whose weight-updating passes go through `model`."""
        trainer: Any = self
        bare = trainer.accelerator.unwrap_model(model)
        if self._port is None or self._port.model is not bare:
            self._port = wrap(bare, _tokenizer(trainer), forward=model)
            self._port.memory.update(self._memory)
        self._port.forward = model
        return self._port

    def training_step(
        self, model: Any, inputs: Mapping[str, Tensor], num_items_in_batch: Any = None
    ) -> Tensor:
        """Run all passes of one micro-batch and return its loss, for the log."""
        trainer: Any = self
        model.train()
        if hasattr(trainer.optimizer, "train") and callable(trainer.optimizer.train):
            trainer.optimizer.train()
        batch = trainer._prepare_inputs(dict(inputs))
        state = trainer.state
        scale = 1 / trainer.current_gradient_accumulation_steps
        generator = torch_generator(
            trainer.args.device,
            self.perturbation_seed,
            "perturbation",
            state.global_step,
            self._micro_step,
            trainer.accelerator.process_index,
        )
        self._micro_step += 1
        progress = state.global_step / max(state.max_steps, 1)
        with trainer.compute_loss_context_manager():
            log = backward(
                self.objective.at(progress),
                self.port_of(model),
                batch,
                trainer.accelerator,
                generator=generator,
                scale=scale,
                sync=trainer.accelerator.sync_gradients,
            )
        for name, value in log.items():
            if name != "loss":
                self._figures.setdefault(name, []).append(value)
        return log["loss"].detach() * scale

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> Any:
        """Return the batches of the next optimizer step: the same ones while they are replayed."""
        self._micro_step = 0
        left, samples = self._replayed
        if left == 0:
            parent: Any = super()
            left = self.objective.replays
            samples = parent.get_batch_samples(epoch_iterator, num_batches, device)
        self._replayed = (left - 1, samples)
        return samples

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the optimizer, and beside it what the objective remembers."""
        parent: Any = super()
        parent._save_optimizer_and_scheduler(output_dir)
        if self._port is not None and self._port.memory:
            checkpoint.save_tensors(self._port.memory, Path(output_dir) / MEMORY)

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        """Load the optimizer, and what the objective remembered."""
        parent: Any = super()
        parent._load_optimizer_and_scheduler(folder)
        if folder is not None and (Path(folder) / MEMORY).is_file():
            self._memory = checkpoint.load_tensors(Path(folder) / MEMORY)
            if self._port is not None:
                self._port.memory.update(self._memory)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the mean of the objective's figures since the last log."""
        if "loss" in logs and self._figures:
            means = {name: torch.stack(v).float().mean() for name, v in self._figures.items()}
            logs |= dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
            self._figures = {}
        parent: Any = super()
        parent.log(logs, *args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the columns that describe tokens to a perturbation, beside what the model takes."""
        parent: Any = super()
        parent._set_signature_columns_if_needed()
        trainer: Any = self
        trainer._signature_columns = list(dict.fromkeys([*trainer._signature_columns, *OURS]))

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the trainer does, without the columns that only perturbations read."""
        parent: Any = super()
        kept = {name: value for name, value in inputs.items() if name not in OURS}
        return parent.compute_loss(model, kept, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict without the columns that only perturbations read."""
        parent: Any = super()
        kept = {name: value for name, value in inputs.items() if name not in OURS}
        return parent.prediction_step(model, kept, *args, **kwargs)


class AdversarialTrainer(AdversarialTrainerMixin, transformers.Trainer):
    """A `transformers.Trainer` that minimises an objective.

    Tokenize with `return_special_tokens_mask=True`, or give `processing_class`, so that special
    tokens are not perturbed.

    Args:
        objective: What to minimise: `AdversarialTrainer(..., objective=textadv.FreeLB())`.
        args: All arguments of `transformers.Trainer`.
    """


def _tokenizer(trainer: Any) -> Any:
    found: Callable[..., Any] | None = getattr(trainer, "processing_class", None)
    return found if hasattr(found, "all_special_ids") else None
