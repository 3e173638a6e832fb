"""First-order perturbations in a norm ball: FGSM, FGM and PGD."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import torch
from torch import Tensor

from textadv import norms
from textadv.errors import ConfigError
from textadv.norms import Init, Norm, Scope
from textadv.perturb.base import Perturbation

__all__ = ["FGM", "FGSM", "PGD"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGSM(Perturbation):
    """Take one step of size `epsilon` along the sign of the gradient.

    `delta = epsilon * sign(g)`: every entry of every perturbable embedding moves by `epsilon`.

    Args:
        epsilon: Radius in linf, in embedding units, >= 0.

    Cost: 1 inner pass; free when the objective trains on the clean text as well.
    Known failure: training on it alone can overfit to the single step (a PGD attack then succeeds
    where FGSM fails); watch accuracy under PGD.
    Source: Goodfellow et al., ICLR 2015, section 4, there on pixels.
    """

    epsilon: float = 0.01
    norm: ClassVar[Norm] = "linf"

    @property
    def num_steps(self) -> int:
        """One."""
        return 1

    @property
    def starts_at_zero(self) -> bool:
        """True: the start is zero."""
        return True

    def __post_init__(self) -> None:
        norms.check_geometry("linf", "sequence", self.epsilon)

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return zeros (B, L, D)."""
        return norms.random_point(embeds, mask, "zero", 0.0, "linf", "sequence", generator)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z` moved by `epsilon` in every perturbable entry, inside the ball."""
        step = self.epsilon * norms.direction(grad, mask, "linf", "sequence")
        return norms.project(z + step, mask, self.epsilon, "linf", "sequence")

    def scaled(self, factor: float) -> Self:
        """Return the same perturbation with `factor` times the radius."""
        return dataclasses.replace(self, epsilon=self.epsilon * factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGM(Perturbation):
    """Take one step of length `epsilon` along the gradient.

    `delta = epsilon * g / ||g||_2`, per text or per token.

    Args:
        epsilon: Radius in l2, in embedding units, >= 0. A word of MiniLM has norm about 1.1.
        scope: `"sequence"` shares the radius over the text; `"token"` gives every token its own.

    Cost: 1 inner pass; free when the objective trains on the clean text as well.
    Known failure: as FGSM, but milder.
    Source: Miyato et al., ICLR 2017, equations 6 and 7.
    Deviations: embeddings are not normalised to unit variance first, so radii are not comparable
    with the paper's; the widely copied port that writes to the embedding weights, and so couples
    all occurrences of a word in a batch, is not followed.
    """

    epsilon: float = 0.3
    scope: Scope = "sequence"
    norm: ClassVar[Norm] = "l2"

    @property
    def num_steps(self) -> int:
        """One."""
        return 1

    @property
    def starts_at_zero(self) -> bool:
        """True: the start is zero."""
        return True

    def __post_init__(self) -> None:
        norms.check_geometry("l2", self.scope, self.epsilon)

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return zeros (B, L, D)."""
        return norms.random_point(embeds, mask, "zero", 0.0, "l2", self.scope, generator)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z` moved by `epsilon` along the normalised gradient, inside the ball."""
        step = self.epsilon * norms.direction(grad, mask, "l2", self.scope)
        return norms.project(z + step, mask, self.epsilon, "l2", self.scope)

    def scaled(self, factor: float) -> Self:
        """Return the same perturbation with `factor` times the radius."""
        return dataclasses.replace(self, epsilon=self.epsilon * factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(Perturbation):
    """Climb in several steps, projecting back into the ball after each.

    `delta <- project(delta + step_size * direction(g))`, where the direction is the steepest one
    for the norm of the ball (see `textadv.norms.direction`).

    Args:
        norm: `"l2"`, `"linf"` or `"l1"`.
        scope: `"sequence"` or `"token"`: what the radius bounds.
        epsilon: Radius in embedding units, >= 0; None removes the ball (FreeLB++).
        step_size: Length of one step in the same norm. Default: 2.5 * epsilon / num_steps.
        num_steps: Gradient evaluations K >= 1.
        init: `"zero"`, or a random start: `"uniform"` or `"normal"`.
        init_scale: Size of the random start (FreeLB's sigma; see `textadv.norms.random_point`).
            Default: epsilon. The start is projected into the ball.

    Cost: K inner passes; K - 1 with `init="zero"` when the objective trains on the clean text too.
    Known failure: with few small steps it never reaches the ball; l1 moves one entry a step.
    Source: Madry et al., ICLR 2018, section 2.1; default step: section 5 (2.5 epsilon / K).
    """

    norm: Norm = "l2"
    scope: Scope = "sequence"
    epsilon: float | None = 0.3
    step_size: float | None = None
    num_steps: int = 3
    init: Init = "zero"
    init_scale: float | None = None

    def __post_init__(self) -> None:
        norms.check_geometry(self.norm, self.scope, self.epsilon)
        norms.check_init(self.init)
        if self.num_steps < 1:
            raise ConfigError("num_steps", got=str(self.num_steps), expected="an integer >= 1")
        for name in ("step_size", "init_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(name, got=str(value), expected="a number > 0")
        if self.epsilon is None and self.step_size is None:
            raise ConfigError("step_size", got="none", expected="a number when epsilon is none")
        if self.epsilon is None and self.init != "zero" and self.init_scale is None:
            raise ConfigError("init_scale", got="none", expected="a number when epsilon is none")

    @property
    def starts_at_zero(self) -> bool:
        """Whether the start is exactly zero."""
        return self.init == "zero"

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return zeros or a random point of the ball, (B, L, D)."""
        scale = self.init_scale if self.init_scale is not None else self.epsilon or 0.0
        z = norms.random_point(embeds, mask, self.init, scale, self.norm, self.scope, generator)
        return norms.project(z, mask, self.epsilon, self.norm, self.scope)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z` one steepest step further, projected."""
        step = self._step_size * norms.direction(grad, mask, self.norm, self.scope)
        return norms.project(z + step, mask, self.epsilon, self.norm, self.scope)

    def scaled(self, factor: float) -> Self:
        """Return the same climb in a ball of `factor` times the radius."""

        def times(value: float | None) -> float | None:
            return None if value is None else value * factor

        return dataclasses.replace(
            self,
            epsilon=times(self.epsilon),
            step_size=times(self.step_size),
            init_scale=times(self.init_scale),
        )

    @property
    def _step_size(self) -> float:
        if self.step_size is not None:
            return self.step_size
        return 2.5 * (self.epsilon or 0.0) / self.num_steps
