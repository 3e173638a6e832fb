"""R-Drop: two dropout masks, one prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import divergence
from textadv.objectives.base import Objective, Term
from textadv.objectives.schedule import Schedule

__all__ = ["RDrop"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RDrop(Objective):
    """Run every text twice with different dropout, and ask both runs to agree.

    `L = (L_1 + L_2) / 2 + lambda_adv * (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2`, in one pass of twice
    the batch.

    Args:
        lambda_adv: Weight of the divergence, the paper's alpha, >= 0; 0.5 to 5 by task.
        lambda_schedule: Ramps it up from 0.

    Cost: 2.0 clean steps.
    Known failure: it is a regulariser, no defence, and does nothing in a model without dropout.
    Source: Wu et al., NeurIPS 2021, equations 2 to 4.
    """

    lambda_adv: float = 1.0
    lambda_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not self.lambda_adv >= 0:
            raise ConfigError("lambda_adv", got=str(self.lambda_adv), expected="a number >= 0")

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def cost(self) -> float:
        """Two."""
        return 2.0

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the mean task loss of both runs plus their weighted divergence."""
        both = {name: torch.cat([value, value]) for name, value in batch.items()}
        logits = port.logits(both)
        first, second = logits.chunk(2)
        problem = port.problem_type(batch["labels"])
        apart = divergence(first, second, problem, "symmetric_kl").mean() / 2
        loss = port.loss(logits, both).mean() + self.lambda_adv * apart
        yield Term(loss=loss, name="rdrop", logits=first)
