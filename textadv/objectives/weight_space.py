"""Objectives that take their loss at perturbed weights: AWP, SAM, and SAM joined with FGM."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from textadv import weights
from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.monitors import Monitor
from textadv.objectives.adversarial import Adversarial
from textadv.objectives.base import Objective, Term
from textadv.objectives.point import Point, PointObjective
from textadv.perturb import FGM, PGD, Perturbation
from textadv.sites import check_site

__all__ = ["AWP", "SAM", "SAMFGM"]


def _default_point() -> Objective:
    return Adversarial(perturbation=PGD(norm="l2", epsilon=0.3, num_steps=3), adversarial_only=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AWP(Objective):
    """Take any point objective's loss where weights are moved against it as well.

    The perturbation is found at the weights as they are, the weights then move `gamma` times their
    own norm along the gradient, layer by layer, and the update is that of the loss there. Weights
    are put back to the bit.

    Args:
        objective: What is minimised: `adversarial`, `trades`, `mart`, or another that finds one
            point.
        gamma: Relative size of the move, > 0; 1e-2 with adversarial training, 5e-3 with TRADES.
        begin: Fraction of training before which only `objective` runs.

    Cost: that of the objective plus all its outer passes once more: (2K + 6) / 3 clean steps
    adversarial only.
    Known failure: from the first step on it slows learning; it needs `begin`.
    Source: Wu et al., NeurIPS 2020, algorithm 1. The direction is each process's own.
    """

    objective: Objective = dataclasses.field(default_factory=_default_point)
    gamma: float = 1e-2
    begin: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.objective, PointObjective) or not self.objective.separable:
            raise ConfigError(
                "awp: objective",
                got=type(self.objective).__name__.lower(),
                expected="one that finds a single point, such as adversarial, trades or mart",
            )
        if not self.gamma > 0:
            raise ConfigError("gamma", got=str(self.gamma), expected="a number > 0")
        if not 0 <= self.begin <= 1:
            raise ConfigError("begin", got=str(self.begin), expected="a number from 0 to 1")

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def handles_weights(self) -> bool:
        """Yes."""
        return True

    @property
    def cost(self) -> float:
        """Inner passes once, outer passes twice."""
        base = self._base
        outer = 3 + 3 * base.needs_clean
        inner = PointObjective.cost.fget(base) * 3 - outer  # type: ignore[attr-defined]
        return float(inner + 2 * outer) / 3

    def at(self, progress: float) -> Objective:
        """Return the objective without AWP before `begin`, with it after."""
        now = self.objective.at(progress)
        if progress < self.begin or not isinstance(now, PointObjective):
            return now
        return dataclasses.replace(self, objective=now)

    def check(self, problem_type: str, num_labels: int) -> None:
        """Ask the objective."""
        self.objective.check(problem_type, num_labels)

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the objective's loss at the moved weights."""
        base = self._base
        clean = port.logits(batch, inner=True) if base.needs_clean else None
        point = base.find(port, batch, generator, clean)
        loss = base.combine(port, batch, clean, point.logits(inner=True)).loss
        moving = weights.trainable(port.model)
        grads = torch.autograd.grad(loss, moving, allow_unused=True)
        del clean, loss
        with weights.moved(moving, weights.awp_moves(moving, grads, self.gamma)):
            clean = port.logits(batch) if base.needs_clean else None
            perturbed = point.logits()
            term = base.combine(port, batch, clean, perturbed)
            figures = point.figures(batch, clean, perturbed)
            yield dataclasses.replace(term, figures=figures)

    @property
    def _base(self) -> PointObjective:
        if not isinstance(self.objective, PointObjective):
            raise TypeError("AWP wraps a PointObjective")
        return self.objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAM(Objective):
    """Minimise the loss at the weights, `rho` away, where it is highest to first order.

    Args:
        rho: l2 norm of the move over all weights together, > 0.

    Cost: 2.0 clean steps.
    Known failure: it flattens the loss in the weights; alone it protects no text.
    Source: Foret et al., ICLR 2021, equations 2 and 3 (rho 0.05). The direction is each process's
    own, which the paper recommends.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ConfigError("rho", got=str(self.rho), expected="a number > 0")

    @property
    def num_terms(self) -> int:
        """One."""
        return 1

    @property
    def handles_weights(self) -> bool:
        """Yes."""
        return True

    @property
    def cost(self) -> float:
        """Two."""
        return 2.0

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the loss at the moved weights."""
        moving = weights.trainable(port.model)
        loss = port.loss(port.logits(batch, inner=True), batch).mean()
        grads = torch.autograd.grad(loss, moving, allow_unused=True)
        with weights.moved(moving, weights.sam_moves(grads, self.rho)):
            logits = port.logits(batch)
            yield Term(loss=port.loss(logits, batch).mean(), name="sam", logits=logits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAMFGM(SAM):
    """Move weights and embeddings together, by one backward pass, and minimise the loss there.

    The clean backward holds both directions, so both perturbations cost what one does.

    Args:
        rho: l2 norm of the weights' move, > 0.
        perturbation: The embeddings' move: one step from zero.
        site: Where it is added; see `textadv.sites.find_site`.

    Cost: 2.0 clean steps; SAM around FGM training would be 4.
    Known failure: as `fgm`, and there is no clean loss.
    Source: this package; the parts are Foret et al., ICLR 2021 and Miyato et al., ICLR 2017.
    """

    perturbation: Perturbation = dataclasses.field(default_factory=FGM)
    site: str = "word"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_site(self.site)
        climb = self.perturbation
        if not (climb.starts_at_zero and climb.num_steps == 1 and climb.ignores_scale):
            raise ConfigError(
                "sam-fgm: perturbation",
                got="several steps, or a start off zero",
                expected="one step from zero: there is one backward pass for it",
                fix="use fgm or fgsm",
            )

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield the loss at the moved weights and embeddings."""
        there, climb = port.at(self.site), self.perturbation
        mask, monitor = there.editable(batch), Monitor(climb.scope)
        z = climb.start(there.blank(batch), mask, generator).requires_grad_()
        moving = weights.trainable(port.model)
        clean = there.logits(batch, climb.delta(z), inner=True)
        loss = there.loss(clean, batch).mean()
        grad, *grads = torch.autograd.grad(loss, [z, *moving], allow_unused=True)
        monitor.record(grad, mask)
        delta: Tensor = climb.delta(climb.ascend(z.detach(), grad, mask))
        point = Point(port=there, batch=batch, delta=delta, monitor=monitor)
        clean = clean.detach()
        with weights.moved(moving, weights.sam_moves(grads, self.rho)):
            logits = point.logits()
            figures = point.figures(batch, clean, logits)
            loss = there.loss(logits, batch).mean()
            yield Term(loss=loss, name="adversarial", logits=logits, figures=figures)
