"""What the published SMART code computes, kept for comparison."""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from textadv import norms
from textadv.errors import ConfigError
from textadv.perturb.base import Perturbation

__all__ = ["MTDNN"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MTDNN(Perturbation):
    """Add a tiny gradient step to noise and blow the sum up to unit size: nearly random noise.

    `delta = v / (max|v| + epsilon)` for every token, with `v = noise + step_size * g`. Noise and
    step are of the same tiny order, so the result is the direction of the noise, one unit long in
    its largest entry.

    Args:
        sigma: Standard deviation of the noise.
        step_size: Factor of the raw gradient.
        epsilon: Keeps the division finite; it is not a radius.

    Cost: 1 inner pass.
    Known failure: the cosine between the first and the final noise is above 0.99; it is kept to
    reproduce published runs, not to be used.
    Source: the mt-dnn code of Jiang et al., ACL 2020 (its linf branch).
    """

    sigma: float = 1e-5
    step_size: float = 1e-5
    epsilon: float = 1e-6

    scope = "token"

    def __post_init__(self) -> None:
        for name in ("sigma", "step_size", "epsilon"):
            if not getattr(self, name) > 0:
                raise ConfigError(name, got=str(getattr(self, name)), expected="a number > 0")

    @property
    def num_steps(self) -> int:
        """One."""
        return 1

    @property
    def ignores_scale(self) -> bool:
        """False: the raw gradient is added."""
        return False

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return N(0, sigma^2) noise (B, L, D)."""
        return norms.random_point(embeds, mask, "normal", self.sigma, "linf", "token", generator)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return noise plus step, divided by its largest entry in every token."""
        grad = torch.where((mask & norms.usable(grad, mask, "token")).unsqueeze(-1), grad, 0.0)
        moved = z + self.step_size * grad.to(z.dtype)
        return moved / (norms.norm(moved, "linf", "token").unsqueeze(-1) + self.epsilon)

    def scaled(self, factor: float) -> Self:
        """Return the same perturbation: it has no radius to scale."""
        return self
