"""Momentum iterative method."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from textadv import norms
from textadv.errors import ConfigError
from textadv.perturb.gradient import PGD

__all__ = ["MIM"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MIM(PGD):
    """Climb along an average of all gradients so far, which carries over bumps of the loss.

    `v <- decay * v + g / ||g||_1`, then a PGD step along `v`.

    Args:
        norm: `"l2"`, `"linf"` or `"l1"`.
        scope: `"sequence"` or `"token"`.
        epsilon: Radius in embedding units, >= 0.
        step_size: Length of one step. Default: epsilon / num_steps, the paper's.
        num_steps: Gradient evaluations K >= 1.
        init: Start, as in `pgd`.
        init_scale: Size of the start, as in `pgd`.
        rule: As in `pgd`, applied to the average.
        loss: As in `pgd`.
        restarts: 1: restarts are for `pgd` and `apgd`.
        decay: Weight of the past, mu >= 0; 0 is PGD.

    Cost: K inner passes; it is meant for evaluation.
    Known failure: on smooth losses it is no stronger than `pgd` with the same steps.
    Source: Dong et al., CVPR 2018, algorithm 1 (mu = 1, step epsilon / K).
    """

    num_steps: int = 10
    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decay >= 0:
            raise ConfigError("decay", got=str(self.decay), expected="a number >= 0")
        if self.restarts != 1:
            raise ConfigError("restarts", got=str(self.restarts), expected="1", fix="use apgd")

    @property
    def starts_at_zero(self) -> bool:
        """False: the state also holds the average."""
        return False

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return the start beside an average of zero, (B, L, 2D)."""
        delta = super().start(embeds, mask, generator)
        return torch.cat([delta, torch.zeros_like(delta)], -1)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return the state after one step along the new average."""
        delta, average = z.chunk(2, -1)
        grad = grad.chunk(2, -1)[0]
        average = self.decay * average + norms.relative(grad, mask, "l1", self.scope)
        return torch.cat([super().ascend(delta, average, mask), average], -1)

    def delta(self, z: Tensor) -> Tensor:
        """Return the first half of the state."""
        return z[..., : z.shape[-1] // 2]

    @property
    def _step_size(self) -> float:
        if self.step_size is not None:
            return self.step_size
        return (self.epsilon or 0.0) / self.num_steps
