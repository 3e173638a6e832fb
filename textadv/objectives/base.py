"""An objective is a generator of loss terms; `backward` runs one in any training loop."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import correct
from textadv.objectives.schedule import ramp

__all__ = ["Clean", "Objective", "Term", "backward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """One scalar to run backward on.

    Args:
        loss: The scalar, weights included.
        name: What is being measured: `"clean"`, `"adversarial"`, ...
        logits: Logits (B, C) behind it, for accuracies in the log; None leaves them out.
        figures: Detached scalars for the log, averaged over the terms that have them.
    """

    loss: Tensor
    name: str
    logits: Tensor | None = None
    figures: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class Objective(abc.ABC):
    """What a training step minimises.

    `terms` yields losses one at a time; whoever consumes it runs backward on each *before* asking
    for the next, so an objective may read the gradient of its own leaf between terms (FreeLB does),
    and only one graph is alive at a time. After the last term it is asked once more, and may then
    update `port.memory`.
    """

    @property
    @abc.abstractmethod
    def num_terms(self) -> int:
        """How many terms are yielded: gradients are synchronised on the last one only."""

    @property
    @abc.abstractmethod
    def cost(self) -> float:
        """Forwards and backwards of one batch, in clean steps (see `textadv.passes`)."""

    @property
    def replays(self) -> int:
        """How many optimizer steps in a row are taken on the same batch."""
        return 1

    @property
    def keeps_memory(self) -> bool:
        """Whether `port.memory` is read and written: then one process and no accumulation."""
        return False

    @property
    def reads_gradients(self) -> bool:
        """Whether a yielded term's gradient is an ascent direction too, and must keep its sign."""
        return False

    @abc.abstractmethod
    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the terms of one batch; random starts come from `generator` (model's device)."""

    def at(self, progress: float) -> Objective:
        """Return the objective as scheduled when the fraction `progress` of training is done.

        While a schedule holds the adversarial weight or radius at 0, that is plain `Clean`: no
        inner pass is run.
        """
        return ramp(self, progress) or Clean()

    def check(self, problem_type: str, num_labels: int) -> None:
        """Raise `ConfigError` if a head of this kind cannot be trained like this."""
        perturbation = getattr(self, "perturbation", None)
        if perturbation is not None:
            perturbation.check(problem_type, num_labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clean(Objective):
    """Minimise the task loss of the texts as they are: the baseline.

    Cost: 1.0 clean step.
    Known failure: under embedding PGD it falls to chance and below.
    """

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def cost(self) -> float:
        """One."""
        return 1.0

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the mean task loss."""
        logits = port.logits(batch)
        yield Term(loss=port.loss(logits, batch).mean(), name="clean", logits=logits)


def backward(
    objective: Objective,
    port: EmbeddingPort,
    batch: Batch,
    accelerator: Any = None,
    *,
    generator: torch.Generator | None = None,
    scale: float = 1.0,
    sync: bool = True,
) -> dict[str, Tensor]:
    """Run all forwards and backwards of one batch: the drop-in for `loss.backward()`.

    Forward and backward of every term but the last run inside `accelerator.no_sync`, so that
    processes exchange gradients once per step.

    Args:
        objective: What to minimise.
        port: The wrapped model; `port.forward` is the prepared one when processes are several.
        batch: Tokenised texts with labels, on the model's device.
        accelerator: An `accelerate.Accelerator`, or None for plain Torch.
        generator: Random stream of the perturbations' starts. Default: drawn from Torch's global
            one.
        scale: Weight of this batch (for gradient accumulation over unequal batches).
        sync: Whether the last term exchanges gradients; False inside an accumulation window.

    Returns:
        Detached scalars, not moved off the device: `loss`, for each kind of term its `<name>_loss`
        and, for classifiers, `<name>_accuracy` (mean over its terms), and what the method monitors:
        `skipped_fraction` (share of the texts or tokens whose inner gradient was zero or not
        finite), `delta_norm` (mean norm of a token's perturbation over the mean norm of a token),
        `effective_fraction` (share of the texts right without `delta` whose loss rises with it).

    Raises:
        ConfigError: If the head cannot be trained like this, or if several processes share an
            objective that keeps memory.

    Example:
        >>> import textadv
        >>> from textadv.testing import tiny_batch, tiny_model
        >>> port = textadv.wrap(tiny_model("bert"))
        >>> objective = textadv.Adversarial(perturbation=textadv.FGM(epsilon=0.3))
        >>> sorted(textadv.backward(objective, port, tiny_batch(port.model)))[:3]
        ['adversarial_accuracy', 'adversarial_loss', 'clean_accuracy']
    """
    if generator is None:
        generator = torch.Generator(port.device)
        generator.manual_seed(int(torch.randint(2**62, (1,)).item()))
    alone = accelerator is None or accelerator.num_processes == 1
    if objective.keeps_memory and not alone:
        raise ConfigError(
            type(objective).__name__,
            got=f"{accelerator.num_processes} processes",
            expected="one: each would keep a memory of its own",
            fix="train on one process, or with another objective",
        )
    objective.check(port.problem_type(batch["labels"]), port.model.config.num_labels)
    log: dict[str, list[Tensor]] = {}
    terms = objective.terms(port, batch, generator)
    share = alone and objective.num_terms > 1
    with port.shared_embedding_gradient() if share else contextlib.nullcontext():
        for index in range(objective.num_terms):
            last = index == objective.num_terms - 1
            free = accelerator is None or (last and sync)
            with contextlib.nullcontext() if free else accelerator.no_sync(port.forward):
                term = next(terms)
                loss = term.loss * scale
                if accelerator is None:
                    loss.backward()
                else:
                    accelerator.backward(loss)
            _record(log, term, port, batch)
        if next(terms, None) is not None:
            raise RuntimeError(
                f"{type(objective).__name__} yields more than {objective.num_terms} terms"
            )
    return {
        name: torch.stack(values).sum() if name.endswith("loss") else torch.stack(values).mean()
        for name, values in log.items()
    }


def _record(log: dict[str, list[Tensor]], term: Term, port: EmbeddingPort, batch: Batch) -> None:
    loss = term.loss.detach()
    log.setdefault("loss", []).append(loss)
    log.setdefault(f"{term.name}_loss", []).append(loss)
    problem = port.problem_type(batch["labels"])
    if term.logits is not None and problem != "regression":
        right = correct(term.logits.detach(), batch["labels"], problem)
        log.setdefault(f"{term.name}_accuracy", []).append(right.float().mean())
    for name, value in term.figures.items():
        log.setdefault(name, []).append(value.detach().float())
