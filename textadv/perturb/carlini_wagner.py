"""Carlini and Wagner's attack: the smallest perturbation that changes the prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.errors import ConfigError
from textadv.losses import InnerLoss, check_inner_loss, margin
from textadv.monitors import Monitor
from textadv.perturb.base import Perturbation

__all__ = ["CarliniWagner"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarliniWagner(Perturbation):
    """Minimise `||delta||_2^2 + c * max(z_y - max_{k != y} z_k, -confidence)` for every text.

    A binary search finds the smallest useful c of each text, Adam the minimum for each c. A text
    that is wrong already gets a zero `delta`; one that is never flipped gets a `delta` outside
    `epsilon`, pulled back to it, so `epsilon` is the largest radius that is searched.

    Args:
        epsilon: Largest l2 norm (over the text) that is looked at, in embedding units.
        num_steps: Adam steps for each c, >= 1.
        search_steps: Values of c that are tried, >= 1.
        learning_rate: Of Adam, relative to the mean norm of the text's embeddings.
        initial_weight: First c.
        confidence: Margin (kappa) by which the wrong class must win, >= 0.

    Cost: num_steps * search_steps inner passes; it is for evaluation.
    Known failure: the norm it finds is an upper bound; too few steps overstate robustness.
    Source: Carlini & Wagner, S&P 2017, section 6 (l2). There is no pixel box, so there is no change
    of variables by tanh; steps are relative to the size of embeddings.
    """

    epsilon: float = 10.0
    num_steps: int = 50
    search_steps: int = 6
    learning_rate: float = 0.01
    initial_weight: float = 1.0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        norms.check_geometry("l2", "sequence", self.epsilon)
        for name in ("num_steps", "search_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(name, got=str(getattr(self, name)), expected="an integer >= 1")
        for name in ("learning_rate", "initial_weight"):
            if not getattr(self, name) > 0:
                raise ConfigError(name, got=str(getattr(self, name)), expected="a number > 0")
        if not self.confidence >= 0:
            raise ConfigError("confidence", got=str(self.confidence), expected="a number >= 0")

    @property
    def stepwise(self) -> bool:
        """False: the search is over weights as well."""
        return False

    @property
    def inner_loss(self) -> InnerLoss:
        """The margin."""
        return "margin"

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return zeros (B, L, D)."""
        return norms.random_point(embeds, mask, "zero", 0.0, "l2", "sequence", generator)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return `z` moved by `learning_rate` along the gradient's direction."""
        return z + self.learning_rate * norms.direction(grad, mask, "l2", "sequence")

    def scaled(self, factor: float) -> Self:
        """Return the same search up to `factor` times the radius."""
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
        """Return the smallest flipping perturbation of each text, inside the ball, (B, L, D)."""
        labels = batch["labels"]
        check_inner_loss("margin", port.problem_type(labels))
        mask, blank = port.editable(batch), port.blank(batch)
        token_norms = torch.where(mask, port.embed(batch).to(blank.dtype).norm(dim=-1), 0.0)
        # Each text climbs in units of its own embeddings: its neighbours change nothing.
        unit = (token_norms.sum(1) / mask.sum(1).clamp_min(1)).view(-1, 1, 1)
        best = torch.zeros_like(blank)
        best_size = torch.full_like(blank[:, 0, 0], torch.inf)
        low = torch.zeros_like(best_size)
        high = torch.full_like(best_size, torch.inf)
        weight = torch.full_like(best_size, self.initial_weight)
        last = best
        with port.attack_mode("eval") as rewind, port.cached_prefix(), torch.enable_grad():
            for _ in range(self.search_steps):
                scaled = torch.zeros_like(blank).requires_grad_()
                adam = torch.optim.Adam([scaled], lr=self.learning_rate)
                flipped = torch.zeros_like(best_size, dtype=torch.bool)
                for _ in range(self.num_steps):
                    rewind()
                    delta = unit * scaled
                    gap = margin(port.logits(batch, delta, inner=True), labels).to(delta.dtype)
                    size = delta.square().flatten(1).sum(1)
                    won = (gap > self.confidence) if self.confidence else gap > 0
                    flipped |= won
                    smaller = won & (size.detach().sqrt() < best_size)
                    best_size = torch.where(smaller, size.detach().sqrt(), best_size)
                    best = torch.where(smaller.view(-1, 1, 1), delta.detach(), best)
                    shortfall = (-gap).clamp_min(-self.confidence)
                    (grad,) = torch.autograd.grad((size + weight * shortfall).sum(), scaled)
                    if monitor is not None:
                        monitor.record(grad, mask)
                    scaled.grad = torch.where(
                        (mask & norms.usable(grad, mask, "sequence")[:, None]).unsqueeze(-1),
                        grad,
                        0.0,
                    )
                    adam.step()
                last = unit * scaled.detach()
                high = torch.where(flipped, torch.minimum(high, weight), high)
                low = torch.where(flipped, low, torch.maximum(low, weight))
                weight = torch.where(high.isfinite(), (low + high) / 2, weight * 10)
        found = torch.where(best_size.isfinite().view(-1, 1, 1), best, last)
        return norms.project(found, mask, self.epsilon, "l2", "sequence")
