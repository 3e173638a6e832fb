"""First-order perturbations in a norm ball: FGSM, FGSM from a random start, FGM and PGD."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError, unknown_name
from textadv.losses import InnerLoss, check_inner_loss
from textadv.norms import Init, Norm, Scope
from textadv.perturb.base import Perturbation, harm_of

__all__ = ["FGM", "FGSM", "FGSMRS", "PGD"]

Rule = Literal["steepest", "relative", "raw"]


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
class FGSMRS(FGSM):
    """Take one sign step of 1.25 `epsilon` from a random point of the box, and clip.

    `delta = clip(u + 1.25 * epsilon * sign(g(u)))` with `u` uniform in the box.

    Args:
        epsilon: Radius in linf, in embedding units, >= 0.

    Cost: 1 inner pass; the clean pass cannot be shared, because the start is not zero.
    Known failure: milder than `fgsm`, it still overfits to the single step at large radii.
    Source: Wong et al., ICLR 2020, algorithm 3; alpha = 1.25 epsilon from section 5, on pixels.
    """

    @property
    def starts_at_zero(self) -> bool:
        """False: the start is random."""
        return False

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return a uniform point of the box, (B, L, D)."""
        return norms.random_point(
            embeds, mask, "uniform", self.epsilon, "linf", "sequence", generator
        )

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z` moved by 1.25 `epsilon` in every entry, clipped to the box."""
        step = 1.25 * self.epsilon * norms.direction(grad, mask, "linf", "sequence")
        return norms.project(z + step, mask, self.epsilon, "linf", "sequence")


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
        rule: `"steepest"` follows the steepest direction of the norm; `"relative"` the gradient
            divided by its norm (FreeLB's and SMART's code in linf); `"raw"` the gradient itself.
        loss: What is maximised where the method does not say: `"task"`, `"margin"` or `"dlr"`.
        restarts: Independent climbs; the most harmful point of each text is kept (evaluation).

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
    rule: Rule = "steepest"
    loss: InnerLoss = "task"
    restarts: int = 1

    def __post_init__(self) -> None:
        norms.check_geometry(self.norm, self.scope, self.epsilon)
        norms.check_init(self.init)
        check_inner_loss(self.loss)
        if self.rule not in get_args(Rule):
            raise unknown_name("rule", self.rule, get_args(Rule))
        if self.restarts < 1 or (self.restarts > 1 and self.init == "zero"):
            raise ConfigError(
                "restarts",
                got=f"{self.restarts} with init: {self.init}",
                expected="1, or more with a random start",
                fix="set init: uniform",
            )
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
        if self.rule == "steepest":
            towards = norms.direction(grad, mask, self.norm, self.scope)
        elif self.rule == "relative":
            towards = norms.relative(grad, mask, self.norm, self.scope)
        else:
            usable = norms.usable(grad, mask, self.scope)
            usable = usable.view(*usable.shape, *(1,) * (grad.ndim - usable.ndim))
            towards = torch.where(usable, grad.to(z.dtype), 0.0)
        return norms.project(
            z + self._step_size * towards, mask, self.epsilon, self.norm, self.scope
        )

    @property
    def ignores_scale(self) -> bool:
        """Whether the step is normalised."""
        return self.rule != "raw"

    @property
    def inner_loss(self) -> InnerLoss:
        """`loss`."""
        return self.loss

    @property
    def stepwise(self) -> bool:
        """Whether there is one climb."""
        return self.restarts == 1

    def search(
        self,
        port: EmbeddingPort,
        batch: Batch,
        loss: Callable[[Tensor], Tensor] | None,
        generator: torch.Generator,
        *options: Any,
    ) -> Tensor:
        """Climb once, or `restarts` times, keeping the most harmful point of each text."""
        found = super().search(port, batch, loss, generator, *options)
        if self.restarts == 1:
            return found
        harm = harm_of(port, batch, loss)
        best = harm(found)
        for _ in range(self.restarts - 1):
            other = super().search(port, batch, loss, generator, *options)
            value = harm(other)
            worse = value > best
            found = torch.where(worse.view(-1, 1, 1), other, found)
            best = torch.where(worse, value, best)
        return found

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
