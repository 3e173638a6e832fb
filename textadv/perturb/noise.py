"""Controls: random perturbations of the same norm, which no gradient has seen."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import torch
from torch import Tensor

from textadv import norms
from textadv.norms import Init, Norm, Scope
from textadv.perturb.base import Perturbation

__all__ = ["GaussianNoise", "UniformNoise"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Perturbation):
    """Draw a random direction and give it exactly the norm `epsilon`."""

    norm: Norm = "l2"
    scope: Scope = "sequence"
    epsilon: float = 0.3
    exact: bool = True
    kind: ClassVar[Init]

    @property
    def num_steps(self) -> int:
        """None: no gradient is taken."""
        return 0

    def __post_init__(self) -> None:
        norms.check_geometry(self.norm, self.scope, self.epsilon)

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise (B, L, D) of norm `epsilon` in every group."""
        scale = 1.0 if self.exact else self.epsilon
        noise = norms.random_point(embeds, mask, self.kind, scale, self.norm, self.scope, generator)
        if not self.exact:
            return noise
        return norms.with_norm(noise, mask, self.epsilon, self.norm, self.scope)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z`: noise does not climb."""
        return z

    def scaled(self, factor: float) -> Self:
        """Return noise of `factor` times the norm."""
        return dataclasses.replace(self, epsilon=self.epsilon * factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformNoise(Noise):
    """Add uniform noise of norm `epsilon`: the control for every adversarial perturbation.

    Args:
        norm: `"l2"`, `"linf"` or `"l1"`.
        scope: `"sequence"` or `"token"`.
        epsilon: Norm of the noise, in embedding units, >= 0.
        exact: Rescale every draw to that norm; otherwise entries are drawn with a scale that gives
            it on average (`textadv.norms.random_point`), as R3F and NEFTune do.

    Cost: no inner pass.
    Known failure: it is no attack; a clean MiniLM keeps its accuracy under
    noise of four times the radius at which PGD leaves nothing.
    """

    kind: ClassVar[Init] = "uniform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """Add Gaussian noise of norm `epsilon`, which in l2 prefers no direction.

    Args:
        norm: `"l2"`, `"linf"` or `"l1"`.
        scope: `"sequence"` or `"token"`.
        epsilon: Norm of the noise, in embedding units, >= 0.
        exact: Rescale every draw to that norm; otherwise entries are drawn with a scale that gives
            it on average (`textadv.norms.random_point`), as R3F and NEFTune do.

    Cost: no inner pass.
    Known failure: it is no attack.
    """

    kind: ClassVar[Init] = "normal"
