"""TRADES: clean loss plus the divergence of perturbed predictions from clean ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.errors import ConfigError
from textadv.losses import consistency
from textadv.objectives.base import Objective, Term
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation

__all__ = ["TRADES"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRADES(Objective):
    """Minimise `L_clean + lambda_adv * KL(p(x) || p(x + delta))`, where `delta` maximises the KL.

    Args:
        perturbation: The climb. It must start at random: the divergence has no gradient at 0.
        lambda_adv: The paper's beta, >= 0. Text wants 1 to 3; 6 is a value for images.
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
    inner_mode: Mode = "train"
    lambda_schedule: Schedule | None = None
    epsilon_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not self.lambda_adv >= 0:
            raise ConfigError("lambda_adv", got=str(self.lambda_adv), expected="a number >= 0")
        if self.perturbation.starts_at_zero:
            raise ConfigError(
                "trades: perturbation",
                got="a start at zero",
                expected="a random start: the divergence has no gradient at delta = 0",
                fix="use pgd with init: normal or init: uniform",
            )

    @property
    def num_terms(self) -> int:
        """One: both losses share the gradient of the clean logits."""
        return 1

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the clean loss plus the weighted mean divergence."""
        labels = batch["labels"]
        problem = port.problem_type(labels)
        clean = port.logits(batch)
        target = clean.detach()
        if self.inner_mode == "eval":
            with port.attack_mode("eval"), torch.no_grad():
                target = port.logits(batch, inner=True)
        delta = self.perturbation(
            port,
            batch,
            loss=lambda logits: consistency(logits, target, problem),
            generator=generator,
            mode=self.inner_mode,
        )
        perturbed = port.logits(batch, delta)
        divergence = consistency(perturbed, clean, problem).mean()
        loss = port.loss(clean, batch).mean() + self.lambda_adv * divergence
        yield Term(loss=loss, name="trades", logits=perturbed)
