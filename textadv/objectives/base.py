"""An objective is a generator of loss terms; `backward` runs one in any training loop."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import MemoryLimitError
from textadv.launch import check_backend
from textadv.losses import correct
from textadv.objectives.schedule import ramp
from textadv.parts import out_of_memory
from textadv.processes import exchange

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
    and only one graph is alive at a time. After the last term it is asked once more.

    An objective that keeps memory reads `port.memory` there and leaves it alone, appends one note
    of the batch to `port.notes`, and updates the memory in `remember`, once per optimizer step.
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
        """Whether `port.memory` is read, and written by `remember`."""
        return False

    @property
    def reads_gradients(self) -> bool:
        """Whether a yielded term's gradient is an ascent direction too, and must keep its sign."""
        return False

    @property
    def handles_weights(self) -> bool:
        """Whether weights are read or moved one by one, and so must be whole on each process."""
        return False

    @abc.abstractmethod
    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the terms of one batch; random starts come from `generator` (model's device)."""

    def remember(self, port: EmbeddingPort, notes: Sequence[Mapping[str, Tensor]]) -> None:
        """Update `port.memory` when all gradients of a step are there.

        Args:
            port: The wrapped model.
            notes: Those of all micro-batches of the step, on all processes, in their order: the
                same on each process. Micro-batches of weight 0 leave an empty one.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps memory, and does not say how")

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
    processes exchange gradients once per step. So do they what an objective remembers.

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
        ConfigError: If the head cannot be trained like this, or not on these processes.

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
    processes = 1 if accelerator is None else accelerator.num_processes
    rank = 0 if accelerator is None else accelerator.process_index
    noted = len(port.notes)
    port.slot = noted * processes + rank
    if processes > 1:
        check_backend(accelerator, handles_weights=objective.handles_weights)
    objective.check(port.problem_type(batch["labels"]), port.model.config.num_labels)
    log: dict[str, list[Tensor]] = {}
    share = processes == 1 and objective.num_terms > 1
    with (
        # Closed whatever happens, so that weights that a method moved are put back.
        contextlib.closing(cast(Any, objective.terms(port, batch, generator))) as terms,
        port.shared_embedding_gradient() if share else contextlib.nullcontext(),
    ):
        for index in range(objective.num_terms):
            exchanged = sync and index == objective.num_terms - 1
            with _synchronised(accelerator, port, exchanged):
                term = next(terms)
                _run_backward(term.loss * scale, accelerator, exchanged)
            _record(log, term, port, batch)
        if next(terms, None) is not None:
            name = type(objective).__name__
            raise RuntimeError(f"{name} yields more than {objective.num_terms} terms")
    if objective.keeps_memory:
        _remember(objective, port, noted, scale != 0, sync, accelerator)
    return {
        name: torch.stack(values).sum() if name.endswith("loss") else torch.stack(values).mean()
        for name, values in log.items()
    }


@contextlib.contextmanager
def _synchronised(accelerator: Any, port: EmbeddingPort, exchanged: bool) -> Iterator[None]:
    """Exchange gradients in the backward inside, or only add them to what this process has."""
    if accelerator is None or exchanged:
        yield
        return
    state = accelerator.gradient_state
    before = state.sync_gradients
    with accelerator.no_sync(port.forward):
        # DeepSpeed has no such context in ZeRO-2: its engine asks this flag.
        state._set_sync_gradients(False)
        try:
            yield
        finally:
            state._set_sync_gradients(before)


def _run_backward(loss: Tensor, accelerator: Any, exchanged: bool) -> None:
    if accelerator is None:
        loss.backward()
        return
    try:
        accelerator.backward(loss)
    except (RuntimeError, MemoryError) as error:
        if not (exchanged and accelerator.num_processes > 1 and out_of_memory(error)):
            raise
        # Other processes have this one's first gradients: there is no way back.
        raise MemoryLimitError(
            f"process {accelerator.process_index}",
            got="no memory in the pass that exchanges gradients",
            expected="micro-batches that fit on every process",
            fix="lower training.batch_size and raise gradient_accumulation_steps as much",
        ) from None


def _remember(
    objective: Objective,
    port: EmbeddingPort,
    noted: int,
    counts: bool,
    sync: bool,
    accelerator: Any,
) -> None:
    if len(port.notes) != noted + 1:
        raise RuntimeError(f"{type(objective).__name__} must append one note of each batch")
    if not counts:
        port.notes[-1] = {}
    if sync:
        notes = exchange(port.notes, accelerator)
        port.notes.clear()
        objective.remember(port, notes)


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
