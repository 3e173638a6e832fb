"""Adversarial training: the clean loss plus the loss under a perturbation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.monitors import Monitor
from textadv.objectives.base import Term
from textadv.objectives.point import Point, PointObjective
from textadv.perturb import FGM, PGD, Perturbation, Substitution, UniformNoise

__all__ = ["Adversarial", "Hybrid", "Latent", "NEFTune"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(PointObjective):
    """Minimise `L_clean + lambda_adv * L_adv`, or `L_adv` alone.

    When the perturbation starts at zero, the backward pass of the clean loss already holds the
    first gradient of `delta`, and no inner pass is spent on it.

    Args:
        perturbation: How `delta` is found: `fgm`, `fgsm`, `pgd`, or a noise control.
        site: Where it is added; see `textadv.sites.find_site`.
        center: Moves the text that the climb starts from to a random neighbour.
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

    adversarial_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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

    @property
    def needs_clean(self) -> bool:
        """Whether there is a clean loss."""
        return not self.adversarial_only

    @property
    def shares_clean_pass(self) -> bool:
        """Whether the clean backward is the first inner pass."""
        climb = self.perturbation
        return (
            not self.adversarial_only
            and climb.starts_at_zero
            and climb.num_steps > 0
            and climb.ignores_scale
            and climb.stepwise
            and climb.inner_loss == "task"
            and self.center is None
            and self.inner_mode == "train"
        )

    @property
    def reads_gradients(self) -> bool:
        """Whether the clean backward is the first inner pass."""
        return self.shares_clean_pass

    @property
    def cost(self) -> float:
        """2/3 less than a point objective when the clean pass is shared."""
        return super().cost - (2 / 3 if self.shares_clean_pass else 0)

    def combine(
        self, port: EmbeddingPort, batch: Batch, clean: Tensor | None, perturbed: Tensor
    ) -> Term:
        """Return the weighted sum of both task losses."""
        loss = self.lambda_adv * port.loss(perturbed, batch).mean()
        if clean is not None:
            loss = loss + port.loss(clean, batch).mean()
        return Term(loss=loss, name="adversarial", logits=perturbed)

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the mean clean loss (unless left out), then the weighted adversarial one."""
        z: Tensor | None = None
        clean: Tensor | None = None
        there = port.at(self.site)
        if not self.adversarial_only:
            if self.shares_clean_pass:
                start = self.perturbation.start(
                    there.blank(batch), there.editable(batch), generator
                )
                z = start.requires_grad_()
            logits = there.logits(batch, None if z is None else self.perturbation.delta(z))
            clean = logits.detach()
            yield Term(loss=port.loss(logits, batch).mean(), name="clean", logits=clean)
        if z is None:
            point = self.find(port, batch, generator, clean)
        else:
            if z.grad is None:
                raise RuntimeError("run backward on each term before asking for the next one")
            mask, monitor = there.editable(batch), Monitor(self.perturbation.scope)
            monitor.record(z.grad, mask)
            delta = self.perturbation(
                there,
                batch,
                generator=generator,
                mode=self.inner_mode,
                z=self.perturbation.ascend(z.detach(), z.grad, mask),
                num_steps=self.perturbation.num_steps - 1,
                monitor=monitor,
            )
            point = Point(port=there, batch=batch, delta=delta, monitor=monitor)
        logits = point.logits()
        loss = self.lambda_adv * port.loss(logits, batch).mean()
        figures = point.figures(batch, clean, logits)
        yield Term(loss=loss, name="adversarial", logits=logits, figures=figures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent(Adversarial):
    """Perturb what a block of the model reads, instead of the word embeddings.

    Inner steps run only the blocks above the site: what is below is computed once.

    Cost with K gradient evaluations, adversarial only, site k of N blocks:
    (2K (1 - k/N) + 3) / 3 clean steps.
    Known failure: a radius has another meaning at each layer, and robustness to hidden
    perturbations says little about changed words unless it is measured.
    Source: Casper et al., 2024 (latent adversarial training); Altinisik et al., ICML 2025 (the last
    layers of encoders suffice).
    """

    site: str = "layer:-1"
    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(norm="l2", scope="token", epsilon=1.0, num_steps=3)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NEFTune(Adversarial):
    """Train on noisy embeddings alone: uniform noise of scale alpha / sqrt(tokens * width).

    `epsilon` of the perturbation is the paper's alpha.

    Cost: 1.0 clean step.
    Known failure: a regulariser for instruction tuning; it gives no robustness.
    Source: Jain et al., ICLR 2024, algorithm 1 (alpha 5 to 15; 5 here).
    Deviations: padding and special tokens get no noise and do not count as length.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: UniformNoise(epsilon=5.0, exact=False)
    )
    adversarial_only: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hybrid(Adversarial):
    """Replace words at random, then perturb the embeddings of the text that results.

    The clean loss stays on the original text.

    Cost: (2K + 6) / 3 clean steps with K inner steps; the clean pass cannot be shared, because it
    is of another text.
    Known failure: it needs a table of candidates; without one it refuses to train.
    Source: Dekany et al., MixAT, 2025 (a ball around a discrete centre); Ivgi & Berant, EMNLP 2021
    (random substitution). The share of 15 % is ours.
    """

    perturbation: Perturbation = dataclasses.field(default_factory=lambda: FGM(epsilon=0.3))
    center: Substitution | None = dataclasses.field(default_factory=Substitution)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.center is None:
            raise ConfigError(
                "center", got="none", expected="a substitution", fix="use adversarial"
            )
