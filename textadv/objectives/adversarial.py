"""Adversarial training: the clean loss plus the loss under a perturbation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.errors import ConfigError
from textadv.objectives.base import Objective, Term
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation

__all__ = ["Adversarial"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """Minimise `L_clean + lambda_adv * L_adv`, or `L_adv` alone.

    When the perturbation starts at zero, the backward pass of the clean loss already holds the
    first gradient of `delta`, and no inner pass is spent on it.

    Args:
        perturbation: How `delta` is found: `fgm`, `fgsm`, `pgd`, or a noise control.
        lambda_adv: Weight of the adversarial loss, >= 0.
        adversarial_only: Leave the clean loss out (then `lambda_adv` must stay 1).
        inner_mode: `"train"` climbs with dropout, the same masks in each step; `"eval"` without.
        lambda_schedule: Ramps `lambda_adv` up from 0.
        epsilon_schedule: Ramps the radius (and steps) up from 0.

    Cost in clean steps, K gradient evaluations: (2K + 4) / 3 with a zero start, (2K + 6) / 3 with a
    random one; adversarial only (2K + 3) / 3; noise 2.
    Known failure: a radius near the distance between words costs clean accuracy.
    Source: Goodfellow et al., ICLR 2015; Miyato et al., ICLR 2017; Madry et al., ICLR 2018.
    Deviations: the clean and adversarial losses are added, not averaged.
    """

    perturbation: Perturbation = dataclasses.field(default_factory=PGD)
    lambda_adv: float = 1.0
    adversarial_only: bool = False
    inner_mode: Mode = "train"
    lambda_schedule: Schedule | None = None
    epsilon_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not self.lambda_adv >= 0:
            raise ConfigError("lambda_adv", got=str(self.lambda_adv), expected="a number >= 0")
        if self.adversarial_only and (self.lambda_adv != 1 or self.lambda_schedule is not None):
            raise ConfigError(
                "lambda_adv",
                got=f"{self.lambda_adv} with adversarial_only",
                expected="1 and no lambda_schedule: there is no clean loss to weigh against",
                fix="drop adversarial_only, or lambda_adv and lambda_schedule",
            )

    @property
    def num_terms(self) -> int:
        """Clean and adversarial, or adversarial alone."""
        return 1 if self.adversarial_only else 2

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the mean clean loss (unless left out), then the weighted adversarial one."""
        z: Tensor | None = None
        if not self.adversarial_only:
            z = self._shared_start(port, batch, generator)
            logits = port.logits(batch, None if z is None else self.perturbation.delta(z))
            yield Term(loss=port.loss(logits, batch).mean(), name="clean", logits=logits)
        if z is None:
            delta = self.perturbation(port, batch, generator=generator, mode=self.inner_mode)
        else:
            if z.grad is None:
                raise RuntimeError("run backward on each term before asking for the next one")
            delta = self.perturbation(
                port,
                batch,
                generator=generator,
                mode=self.inner_mode,
                z=self.perturbation.ascend(z.detach(), z.grad, port.editable(batch)),
                num_steps=self.perturbation.num_steps - 1,
            )
        logits = port.logits(batch, delta)
        loss = self.lambda_adv * port.loss(logits, batch).mean()
        yield Term(loss=loss, name="adversarial", logits=logits)

    def _shared_start(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Tensor | None:
        """Return a leaf for the clean pass if its gradient is the first one of the climb."""
        shares = self.perturbation.starts_at_zero and self.perturbation.num_steps > 0
        if not (shares and self.inner_mode == "train"):
            return None
        z = self.perturbation.start(port.embed(batch), port.editable(batch), generator)
        return z.requires_grad_()
