"""FreeLB and its relatives: every ascent pass is a training pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import divergence
from textadv.monitors import Monitor
from textadv.objectives.base import Objective, Term
from textadv.objectives.point import watch
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation
from textadv.sites import check_site

__all__ = ["VILLA", "FreeLB", "FreeLBPlusPlus"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeLB(Objective):
    """Minimise the mean loss over the K points of an ascent, each weighted 1/K.

    One backward pass gives both the parameter gradient of a point and the direction to the next.

    Args:
        perturbation: The climb; `num_steps` is K, the number of points (fairseq's `adv_steps` + 1).
        site: Where it is added; see `textadv.sites.find_site`.
        lambda_consistency: Weight of the symmetric divergence from the clean predictions at every
            point, >= 0; it costs one forward more.
        epsilon_schedule: Ramps radius, steps and start up from 0.

    Cost: K clean steps; no pass is wasted, so there is nothing to save.
    Known failure: there is no clean loss; with published radii it regularises more than it
    protects.
    Source: Zhu et al., ICLR 2020, algorithm 1.
    Deviations: special tokens are not perturbed; the start is projected into the ball.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(
            norm="l2", epsilon=0.6, step_size=0.1, num_steps=3, init="uniform"
        )
    )
    site: str = "word"
    lambda_consistency: float = 0.0
    epsilon_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        check_site(self.site)
        name = type(self).__name__.lower()
        if self.perturbation.num_steps < 1 or not self.perturbation.stepwise:
            raise ConfigError(
                f"{name}: perturbation",
                got="no steps, or steps that cannot be taken one by one",
                expected="at least one step, from a start that needs no search",
                fix="use pgd",
            )
        if not self.perturbation.ignores_scale:
            raise ConfigError(
                f"{name}: perturbation",
                got="a step as long as the gradient",
                expected="one that follows its direction: the gradient is of the mean loss / K",
                fix="use pgd with rule: steepest",
            )
        if not self.lambda_consistency >= 0:
            got = str(self.lambda_consistency)
            raise ConfigError("lambda_consistency", got=got, expected="a number >= 0")

    @property
    def num_terms(self) -> int:
        """K."""
        return self.perturbation.num_steps

    @property
    def reads_gradients(self) -> bool:
        """Yes: each training pass is an ascent pass."""
        return True

    @property
    def cost(self) -> float:
        """K, and a forward for the clean predictions if they are used."""
        return self.num_terms + (1 / 3 if self.lambda_consistency else 0)

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield K adversarial losses, each from the point the last gradient led to."""
        there = port.at(self.site)
        mask, climb = there.editable(batch), self.perturbation.bind(there, batch)
        monitor = Monitor(climb.scope)
        anchor = self._clean_logits(there, batch)
        z = self.start(there, batch, mask, generator)
        for point in range(self.num_terms):
            z = z.detach().requires_grad_()
            delta = climb.delta(z)
            logits = there.logits(batch, delta)
            loss = there.loss(logits, batch).mean()
            if anchor is not None:
                problem = there.problem_type(batch["labels"])
                moved = divergence(logits, anchor, problem, "symmetric_kl").mean()
                loss = loss + self.lambda_consistency * moved
            figures = watch(there, batch, delta, monitor)
            yield Term(
                loss=loss / self.num_terms, name="adversarial", logits=logits, figures=figures
            )
            if z.grad is None:
                raise RuntimeError("run backward on each term before asking for the next one")
            monitor.record(z.grad, mask)
            if point < self.num_terms - 1 or self.keeps_memory:
                z = climb.ascend(z.detach(), z.grad, mask)
        self.finish(there, batch, z.detach(), mask)

    def start(
        self, port: EmbeddingPort, batch: Batch, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the first state of the climb."""
        return self.perturbation.bind(port, batch).start(port.blank(batch), mask, generator)

    def finish(self, port: EmbeddingPort, batch: Batch, z: Tensor, mask: Tensor) -> None:
        """Do nothing: relatives keep what they learned from the last state."""

    def _clean_logits(self, port: EmbeddingPort, batch: Batch) -> Tensor | None:
        if not self.lambda_consistency:
            return None
        with torch.no_grad():
            return port.logits(batch, inner=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeLBPlusPlus(FreeLB):
    """FreeLB without a ball and with many small steps: it travels as far as words are apart.

    Cost: K clean steps, 10 by default.
    Known failure: accuracy under white-box attacks stays far below that under word swaps.
    Source: Li et al., EMNLP 2021 (no ball, step 0.03, start 0.05; K = 10 on IMDB, 30 on SST-2 and
    AG News).
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(
            norm="l2",
            epsilon=None,
            step_size=0.03,
            num_steps=10,
            init="uniform",
            init_scale=0.05,
        )
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VILLA(FreeLB):
    """FreeLB whose points must also keep the clean predictions.

    Cost: K clean steps and one forward: 3.33 for K = 3.
    Known failure: without a ball, the radius is whatever K steps reach.
    Source: Gan et al., NeurIPS 2020, algorithm 1 (K = 3, step 1e-3, no ball, weight 1.5).
    Deviations: text only; the clean predictions are computed once, without gradient.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(
            norm="l2",
            epsilon=None,
            step_size=1e-3,
            num_steps=3,
            init="uniform",
            init_scale=1e-3,
        )
    )
    lambda_consistency: float = 1.5
