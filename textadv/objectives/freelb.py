"""FreeLB: every ascent pass is a training pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from textadv.embeddings import Batch, EmbeddingPort
from textadv.objectives.base import Objective, Term
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation

__all__ = ["FreeLB"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeLB(Objective):
    """Minimise the mean loss over the K points of an ascent, each weighted 1/K.

    One backward pass gives both the parameter gradient of a point and the direction to the next.

    Args:
        perturbation: The climb; `num_steps` is K, the number of points (fairseq's `adv_steps` + 1).
            FreeLB++ is a `pgd` with `epsilon: null` and K of 5 to 10.
        epsilon_schedule: Ramps radius, steps and start up from 0.

    Cost: K clean steps; no pass is wasted, so there is nothing to save.
    Known failure: there is no clean loss; with published radii it regularises more than it
    protects.
    Source: Zhu et al., ICLR 2020, algorithm 1; Li et al., EMNLP 2021 (FreeLB++).
    Deviations: special tokens are not perturbed; the start is projected into the ball.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(
            norm="l2", epsilon=0.6, step_size=0.1, num_steps=3, init="uniform"
        )
    )
    epsilon_schedule: Schedule | None = None

    @property
    def num_terms(self) -> int:
        """K."""
        return self.perturbation.num_steps

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield K adversarial losses, each from the point the last gradient led to."""
        mask = port.editable(batch)
        z = self.perturbation.start(port.embed(batch), mask, generator)
        for point in range(self.num_terms):
            z = z.detach().requires_grad_()
            logits = port.logits(batch, self.perturbation.delta(z))
            loss = port.loss(logits, batch).mean() / self.num_terms
            yield Term(loss=loss, name="adversarial", logits=logits)
            if z.grad is None:
                raise RuntimeError("run backward on each term before asking for the next one")
            if point < self.num_terms - 1:
                z = self.perturbation.ascend(z.detach(), z.grad, mask)
