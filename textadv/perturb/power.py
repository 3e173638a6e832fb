"""Virtual adversarial direction by power iteration."""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from textadv import norms
from textadv.errors import ConfigError
from textadv.norms import Scope
from textadv.perturb.base import Perturbation

__all__ = ["PowerIteration"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerIteration(Perturbation):
    """Probe the divergence near the text along a random direction, then go `epsilon` far.

    `d <- g(xi * d) / ||g||_2` from a random unit `d`, K times; `delta = epsilon * d`. The gradient
    of a divergence near 0 is its curvature times the probe, so this is power iteration for the
    direction in which predictions change fastest.

    Args:
        epsilon: Radius in l2, in embedding units, >= 0.
        scope: `"sequence"` or `"token"`.
        probe: Length xi of the probe: small against `epsilon`, large against rounding.
        num_steps: Power iterations K >= 1.

    Cost: K inner passes; the start is random, so no clean pass can be shared.
    Known failure: with a probe below what bfloat16 carries it returns noise.
    Source: Miyato et al., TPAMI 2018, algorithm 1; one iteration, section 3.4. The paper's probe of
    1e-6 is for float32 pixels; the default here is a hundredth of a word.
    """

    epsilon: float = 0.3
    scope: Scope = "sequence"
    probe: float = 0.01
    num_steps: int = 1

    def __post_init__(self) -> None:
        norms.check_geometry("l2", self.scope, self.epsilon)
        if self.num_steps < 1:
            raise ConfigError("num_steps", got=str(self.num_steps), expected="an integer >= 1")
        if not self.probe > 0:
            raise ConfigError("probe", got=str(self.probe), expected="a number > 0")

    @property
    def stepwise(self) -> bool:
        """False: the last step is of another length."""
        return False

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random direction of length `probe`, (B, L, D)."""
        noise = norms.random_point(embeds, mask, "normal", 1.0, "l2", self.scope, generator)
        return norms.with_norm(noise, mask, self.probe, "l2", self.scope)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return the gradient's direction, `probe` long; `z` where there is no gradient."""
        unit = norms.direction(grad, mask, "l2", self.scope)
        alive = norms.norm(unit, "l2", self.scope) > 0
        alive = alive.view(*alive.shape, *(1,) * (z.ndim - alive.ndim))
        return torch.where(alive, self.probe * unit, z)

    def finish(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return the direction at length `epsilon`."""
        return norms.with_norm(z, mask, self.epsilon, "l2", self.scope)

    def scaled(self, factor: float) -> Self:
        """Return the same perturbation with `factor` times the radius."""
        return dataclasses.replace(self, epsilon=self.epsilon * factor)
