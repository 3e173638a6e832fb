"""TA-VAT's set: one perturbation for the text plus one for every token, in a common ball."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from textadv import norms
from textadv.errors import ConfigError
from textadv.perturb.gradient import PGD

__all__ = ["TokenAware"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenAware(PGD):
    """Climb with two parts: `delta` steps by the text's gradient, `eta` by each token's own.

    `eta_j` is rescaled by its share of the largest token's norm after every step, and both parts
    together are pulled back into the ball.

    Args:
        norm: `"l2"`.
        scope: `"sequence"`: the ball of the sum.
        epsilon: Radius in embedding units, >= 0; None for no ball.
        step_size: Length of a step of both parts.
        num_steps: Gradient evaluations K >= 1.
        init: Start of `delta`; `eta` starts at 0 unless the objective keeps a vocabulary table.
        init_scale: Size of the start, as in `pgd`.
        rule: `"steepest"`.
        loss: As in `pgd`.
        restarts: 1.

    Cost: K inner passes.
    Known failure: the token part needs the objective's table to be more than a second step.
    Source: Li & Qiu, AAAI 2021, algorithm 1.
    """

    epsilon: float | None = 0.5
    step_size: float | None = 0.05
    num_steps: int = 2
    init: norms.Init = "uniform"
    init_scale: float | None = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed = {"norm": "l2", "scope": "sequence", "rule": "steepest", "restarts": 1}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ConfigError(name, got=str(getattr(self, name)), expected=str(value))

    @property
    def starts_at_zero(self) -> bool:
        """False: the state has two parts."""
        return False

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return `delta` beside an `eta` of zero, (B, L, 2D)."""
        delta = super().start(embeds, mask, generator)
        return torch.cat([delta, torch.zeros_like(delta)], -1)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return both parts one step further, inside the ball together."""
        delta, eta = z.chunk(2, -1)
        grad = grad.chunk(2, -1)[0]
        delta = delta + self._step_size * norms.direction(grad, mask, "l2", "sequence")
        eta = eta + self._step_size * norms.direction(grad, mask, "l2", "token")
        sizes = norms.norm(eta, "l2", "token")
        share = sizes / sizes.amax(1, keepdim=True).clamp_min(norms.TINY)
        return self.inside(delta, eta * share.unsqueeze(-1), mask)

    def inside(self, delta: Tensor, eta: Tensor, mask: Tensor) -> Tensor:
        """Return both parts scaled so that their sum is in the ball, (B, L, 2D)."""
        both = torch.where(mask.unsqueeze(-1), torch.cat([delta, eta], -1), 0.0)
        if self.epsilon is None:
            return both
        size = norms.norm(self.delta(both), "l2", "sequence")
        factor = torch.where(size > self.epsilon, self.epsilon / size.clamp_min(norms.TINY), 1.0)
        return both * factor.view(-1, 1, 1)

    def delta(self, z: Tensor) -> Tensor:
        """Return the sum of both parts, (B, L, D)."""
        delta, eta = z.chunk(2, -1)
        return delta + eta
