"""Flooding: keep the training loss from falling to zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.objectives.base import Clean, Objective, Term

__all__ = ["Flooding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flooding(Objective):
    """Minimise `|L - level| + level` for the loss L of another objective.

    Args:
        objective: What L is. It must be one loss whose gradient is no ascent direction, since below
            the level the gradient turns round.
        level: Where the loss is held, >= 0.

    Cost: that of the objective.
    Known failure: a regulariser, no defence; large reported gains under text attacks come with
    saturated logits, so judge it with margin attacks.
    Source: Ishida et al., ICML 2020; Liu et al., Flooding-X, ACL 2022 (levels 0.1 and 0.2).
    Deviations: the level is given, not searched by gradient accordance.
    """

    objective: Objective = dataclasses.field(default_factory=Clean)
    level: float = 0.1

    def __post_init__(self) -> None:
        if not self.level >= 0:
            raise ConfigError("level", got=str(self.level), expected="a number >= 0")
        if self.objective.reads_gradients or self.objective.num_terms != 1:
            raise ConfigError(
                "flooding: objective",
                got=type(self.objective).__name__.lower(),
                expected="one loss, whose gradient is not followed uphill as well",
                fix="use clean, trades, or adversarial with adversarial_only",
            )

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def cost(self) -> float:
        """That of the objective."""
        return self.objective.cost

    @property
    def keeps_memory(self) -> bool:
        """What the objective says."""
        return self.objective.keeps_memory

    @property
    def handles_weights(self) -> bool:
        """What the objective says."""
        return self.objective.handles_weights

    def remember(self, port: EmbeddingPort, notes: Sequence[Mapping[str, Tensor]]) -> None:
        """Leave it to the objective."""
        self.objective.remember(port, notes)

    def at(self, progress: float) -> Objective:
        """Return the flooded objective as scheduled."""
        return dataclasses.replace(self, objective=self.objective.at(progress))

    def check(self, problem_type: str, num_labels: int) -> None:
        """Ask the objective."""
        self.objective.check(problem_type, num_labels)

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the flooded loss."""
        for term in self.objective.terms(port, batch, generator):
            loss = (term.loss - self.level).abs() + self.level
            yield dataclasses.replace(term, loss=loss)
