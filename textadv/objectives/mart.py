"""MART: adversarial training that weighs examples by how wrong they are."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import boosted_cross_entropy, consistency
from textadv.objectives.base import Term
from textadv.objectives.point import PointObjective
from textadv.perturb import PGD, Perturbation

__all__ = ["MART"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MART(PointObjective):
    """Minimise a boosted loss under attack plus a divergence, heavier where the clean text is lost.

    `L = BCE(p(x + delta), y) + lambda_adv * KL(p(x) || p(x + delta)) * (1 - p_y(x))`, with
    `BCE = -log q_y - log(1 - max_{k != y} q_k)`, and `delta` from the task loss.

    Args:
        perturbation: The climb on the task loss.
        site: Where it is added; see `textadv.sites.find_site`.
        center: Moves the text that the climb starts from to a random neighbour.
        lambda_adv: The paper's beta, >= 0; 5 to 6 for images.
        inner_mode: `"train"` climbs with dropout; `"eval"` without.
        lambda_schedule: Ramps `lambda_adv` up from 0.
        epsilon_schedule: Ramps the radius (and steps, and start) up from 0.

    Cost: (6 + 2K) / 3 clean steps.
    Known failure: there is no clean loss, so clean accuracy falls more than with `trades`.
    Source: Wang et al., ICLR 2020, equations 9 to 11.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(norm="l2", epsilon=0.3, num_steps=3, init="normal")
    )
    lambda_adv: float = 5.0

    def check(self, problem_type: str, num_labels: int) -> None:
        """Refuse heads that have no single right class."""
        super().check(problem_type, num_labels)
        if problem_type != "single_label_classification":
            raise ConfigError(
                "mart",
                got=f"a {problem_type} head",
                expected="one class a text: the loss compares the gold class with the best other",
                fix="use trades",
            )

    def combine(
        self, port: EmbeddingPort, batch: Batch, clean: Tensor | None, perturbed: Tensor
    ) -> Term:
        """Return the boosted loss plus the weighted divergence."""
        if clean is None:
            raise RuntimeError("MART needs the clean logits")
        labels, problem = batch["labels"], port.problem_type(batch["labels"])
        gold = clean.float() if clean.dtype.itemsize < 4 else clean
        gold = gold.softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
        moved = consistency(perturbed, clean, problem) * (1 - gold)
        loss = boosted_cross_entropy(perturbed, labels).mean() + self.lambda_adv * moved.mean()
        return Term(loss=loss, name="mart", logits=perturbed)
