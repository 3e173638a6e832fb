"""Free adversarial training: the same backward pass updates weights and perturbation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.monitors import Monitor
from textadv.objectives.base import Objective, Term
from textadv.objectives.point import watch
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation
from textadv.sites import check_site

__all__ = ["FreeAT"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeAT(Objective):
    """Take several optimizer steps on each batch, moving `delta` by the gradient each one computes.

    `delta` is in `port.memory` (`free.delta.i` for micro-batch i of a step): it lives on from
    replay to replay and from batch to batch, cut or padded to the new length. A trainer deals every
    batch `num_replays` times in a row and so sees `1 / num_replays` of the data in the same number
    of steps.

    Args:
        perturbation: The step; `num_steps` is not used. A step as long as the radius by default.
        num_replays: Optimizer steps per batch, m >= 1.
        site: Where it is added; see `textadv.sites.find_site`.
        epsilon_schedule: Ramps radius and step up from 0.

    Cost: 1.0 clean step per optimizer step.
    Known failure: it revisits a batch instead of seeing new ones; divide by replays when comparing.
    Source: Shafahi et al., NeurIPS 2019, algorithm 1 (m = 4 to 8, step = epsilon).
    Deviations: `delta` is masked and projected when a batch takes it over, since its texts differ.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(norm="l2", epsilon=0.3, step_size=0.3, num_steps=1)
    )
    num_replays: int = 4
    site: str = "word"
    epsilon_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        check_site(self.site)
        if self.num_replays < 1:
            raise ConfigError("num_replays", got=str(self.num_replays), expected="an integer >= 1")
        climb = self.perturbation
        if not (climb.ignores_scale and climb.stepwise and climb.num_steps):
            raise ConfigError(
                "free: perturbation",
                got="noise, a search, or a step as long as the gradient",
                expected="a step along the gradient's direction",
                fix="use pgd with rule: steepest",
            )

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def cost(self) -> float:
        """One: each pass is a training pass."""
        return 1.0

    @property
    def replays(self) -> int:
        """`num_replays`."""
        return self.num_replays

    @property
    def keeps_memory(self) -> bool:
        """Yes: `delta`."""
        return True

    @property
    def reads_gradients(self) -> bool:
        """Yes: the training pass is the ascent pass."""
        return True

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the adversarial loss at the `delta` that was left, then move it."""
        there = port.at(self.site)
        mask, monitor = there.editable(batch), Monitor(self.perturbation.scope)
        start = self.perturbation.start(there.blank(batch), mask, generator)
        z = self._carried(port.memory.get(f"free.delta.{port.slot}"), start, mask).requires_grad_()
        delta = self.perturbation.delta(z)
        logits = there.logits(batch, delta)
        figures = watch(there, batch, delta, None)
        loss = there.loss(logits, batch).mean()
        yield Term(loss=loss, name="adversarial", logits=logits, figures=figures)
        if z.grad is None:
            raise RuntimeError("run backward on each term before asking for the next one")
        monitor.record(z.grad, mask)
        port.notes.append({"delta": self.perturbation.ascend(z.detach(), z.grad, mask)})

    def remember(self, port: EmbeddingPort, notes: Sequence[Mapping[str, Tensor]]) -> None:
        """Keep the perturbation of every micro-batch for the next one in its place."""
        for slot, note in enumerate(notes):
            if note:
                port.memory[f"free.delta.{slot}"] = note["delta"].to(port.device)

    def _carried(self, kept: Tensor | None, start: Tensor, mask: Tensor) -> Tensor:
        """Return the kept state in the shape of this batch, inside the set."""
        if kept is None:
            return start
        fitted, kept = torch.zeros_like(start), kept.to(start)
        rows, columns = min(len(kept), len(start)), min(kept.shape[1], start.shape[1])
        fitted[:rows, :columns] = kept[:rows, :columns]
        return self.perturbation.ascend(fitted, torch.zeros_like(fitted), mask)
