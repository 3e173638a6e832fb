"""TRADES: clean loss plus the divergence of perturbed predictions from clean ones."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.losses import Divergence
from textadv.objectives.base import Term
from textadv.objectives.consistency import Consistency
from textadv.perturb import PGD, Perturbation

__all__ = ["TRADES"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRADES(Consistency):
    """Minimise `L_clean + lambda_adv * KL(p(x) || p(x + delta))`, where `delta` maximises the KL.

    Args:
        perturbation: The climb. It must start at random: the divergence has no gradient at 0.
        site: Where it is added; see `textadv.sites.find_site`.
        center: Moves the text that the climb starts from to a random neighbour.
        lambda_adv: The paper's beta, >= 0. Text wants 1 to 3; 6 is a value for images.
        divergence: `"kl"`.
        detach_clean: Whether the divergence leaves the clean predictions without gradient.
        inner_mode: `"train"` reuses the clean logits of the outer pass as the target;
            `"eval"` climbs without dropout, for one more forward.
        lambda_schedule: Ramps `lambda_adv` up from 0.
        epsilon_schedule: Ramps the radius (and steps, and start) up from 0.

    Cost: (6 + 2K) / 3 clean steps.
    Known failure: two graphs are alive at once, so it needs twice the activation memory.
    Source: Zhang et al., ICML 2019, equation 5 and algorithm 1.
    Deviations: the target of the climb is computed once, not in each step; inner steps run in train
    mode by default, with the same dropout masks in each.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(norm="l2", epsilon=0.3, num_steps=3, init="normal")
    )
    lambda_adv: float = 2.0
    divergence: Divergence = "kl"

    def combine(
        self, port: EmbeddingPort, batch: Batch, clean: Tensor | None, perturbed: Tensor
    ) -> Term:
        """Return the clean loss plus the weighted mean divergence."""
        return dataclasses.replace(super().combine(port, batch, clean, perturbed), name="trades")
