"""Auto-PGD: a step size that adapts to each text, for evaluation without tuning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.errors import ConfigError
from textadv.losses import InnerLoss, check_inner_loss
from textadv.monitors import Monitor
from textadv.norms import Norm, Scope
from textadv.perturb.base import Perturbation, harm_of

__all__ = ["APGD"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD(Perturbation):
    """Climb with a step that starts at twice the radius and halves when progress stalls.

    Each text keeps its own step and its best point. At checkpoints that grow closer together, a
    text whose loss rose in fewer than 75 % of the steps, or whose step and best loss both stood
    still since the last checkpoint, halves its step and goes back to its best point.

    Args:
        norm: `"l2"` or `"linf"`.
        scope: `"sequence"` or `"token"`.
        epsilon: Radius in embedding units, >= 0.
        num_steps: Gradient evaluations K >= 1.
        loss: `"task"`, `"margin"`, or with three or more classes `"dlr"`.
        restarts: Independent climbs from random points; the most harmful point is kept.

    Cost: restarts * (K + 1) inner passes; it is for evaluation.
    Known failure: `"task"` finds no gradient where probabilities saturate; compare with `"margin"`.
    Source: Croce & Hein, ICML 2020, algorithm 1.
    Deviations: there is no pixel box to clip to; a text that goes back to its best point starts
    there without momentum; the last gradient is used for one more step.
    """

    norm: Norm = "l2"
    scope: Scope = "sequence"
    epsilon: float = 0.3
    num_steps: int = 20
    loss: InnerLoss = "task"
    restarts: int = 1

    def __post_init__(self) -> None:
        norms.check_geometry(self.norm, self.scope, self.epsilon)
        check_inner_loss(self.loss)
        if self.norm == "l1":
            raise ConfigError("norm", got="'l1'", expected="l2 or linf", fix="use pgd for l1")
        for name in ("num_steps", "restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(name, got=str(getattr(self, name)), expected="an integer >= 1")

    @property
    def stepwise(self) -> bool:
        """False: steps depend on the losses so far."""
        return False

    @property
    def inner_loss(self) -> InnerLoss:
        """`loss`."""
        return self.loss

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random point on the ball's surface, (B, L, D)."""
        noise = norms.random_point(embeds, mask, "normal", 1.0, self.norm, self.scope, generator)
        return norms.with_norm(noise, mask, self.epsilon, self.norm, self.scope)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z` after a first step, of twice the radius."""
        return self._step(z, z, grad, mask, torch.full_like(z[:, :1, :1], 2 * self.epsilon), 1.0)

    def scaled(self, factor: float) -> Self:
        """Return the same climb in a ball of `factor` times the radius."""
        return dataclasses.replace(self, epsilon=self.epsilon * factor)

    def search(
        self,
        port: EmbeddingPort,
        batch: Batch,
        loss: Callable[[Tensor], Tensor] | None,
        generator: torch.Generator,
        mode: Mode = "eval",
        z: Tensor | None = None,
        num_steps: int | None = None,
        monitor: Monitor | None = None,
    ) -> Tensor:
        """Return the most harmful point over all restarts, (B, L, D)."""
        steps = self.num_steps if num_steps is None else num_steps
        climb = loss if loss is not None else self.default_loss(port, batch)
        harm = harm_of(port, batch, loss)
        blank, mask = port.blank(batch), port.editable(batch)
        best: Tensor | None = None
        worst: Tensor | None = None
        for restart in range(self.restarts):
            begin = z if z is not None and restart == 0 else self.start(blank, mask, generator)
            with port.attack_mode(mode) as rewind, port.cached_prefix(), torch.enable_grad():

                def gradient(delta: Tensor) -> tuple[Tensor, Tensor]:
                    rewind()
                    leaf = delta.detach().requires_grad_()
                    losses = climb(port.logits(batch, leaf, inner=True))
                    (grad,) = torch.autograd.grad(losses.sum(), leaf)
                    if monitor is not None:
                        monitor.record(grad, mask)
                    return losses.detach(), grad

                found = self._climb(gradient, begin, mask, steps)
            value = harm(found)
            if best is None or worst is None:
                best, worst = found, value
            else:
                better = value > worst
                best = torch.where(better.view(-1, 1, 1), found, best)
                worst = torch.where(better, value, worst)
        assert best is not None
        return best

    def _climb(
        self,
        gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
        z: Tensor,
        mask: Tensor,
        steps: int,
    ) -> Tensor:
        """Return the point of highest loss on one climb, for every text."""
        size = torch.full_like(z[:, :1, :1], 2 * self.epsilon)
        losses, grad = gradient(z)
        best, best_loss, best_grad = z, losses, grad
        before, last_losses = z, losses
        rises = torch.zeros_like(losses)
        size_then, best_then = size, best_loss
        marks, since = _checkpoints(steps), 0
        for step in range(1, steps):
            mix = 1.0 if step == 1 else 0.75
            z, before = self._step(z, before, grad, mask, size, mix), z
            losses, grad = gradient(z)
            rises = rises + (losses > last_losses)
            last_losses = losses
            better = losses > best_loss
            rows = better.view(-1, 1, 1)
            best, best_grad = torch.where(rows, z, best), torch.where(rows, grad, best_grad)
            best_loss = torch.where(better, losses, best_loss)
            since += 1
            if step not in marks:
                continue
            stalled = (rises < 0.75 * since) | (
                (size_then == size).flatten() & (best_then == best_loss)
            )
            rows = stalled.view(-1, 1, 1)
            size_then, best_then = size, best_loss
            size = torch.where(rows, size / 2, size)
            z, grad = torch.where(rows, best, z), torch.where(rows, best_grad, grad)
            before = torch.where(rows, best, before)
            last_losses = torch.where(stalled, best_loss, last_losses)
            rises, since = torch.zeros_like(rises), 0
        # The last gradient is used as well: the point it leads to counts if it is better.
        z = self._step(z, before, grad, mask, size, 0.75 if steps > 1 else 1.0)
        losses, _ = gradient(z)
        return torch.where((losses > best_loss).view(-1, 1, 1), z, best)

    def _step(
        self, z: Tensor, before: Tensor, grad: Tensor, mask: Tensor, size: Tensor, mix: float
    ) -> Tensor:
        """Return the next point: a step, averaged with the last displacement."""

        def into(point: Tensor) -> Tensor:
            return norms.project(point, mask, self.epsilon, self.norm, self.scope)

        ahead = into(z + size * norms.direction(grad, mask, self.norm, self.scope))
        return into(z + mix * (ahead - z) + (1 - mix) * (z - before))


def _checkpoints(steps: int) -> set[int]:
    """Return the steps at which the step size is reconsidered."""
    before, now = 0.0, 0.22
    marks = set()
    while now <= 1:
        marks.add(math.ceil(round(now * steps, 6)))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return marks
