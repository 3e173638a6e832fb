"""The convex hull of a word and its synonyms, as a set of perturbations."""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from textadv import norms
from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.perturb.base import Perturbation
from textadv.perturb.candidates import NONE, candidates_of

__all__ = ["SynonymHull"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynonymHull(Perturbation):
    """Replace every word by a mixture of itself and its synonyms, and climb in the mixture.

    `delta_ij = sum_s softmax(w_ij)_s E(s) - E(x_ij)`, with Adam on `w`. The ascent also maximises
    `-sparsity` times the mean entropy of the mixtures, so that they come close to real words.

    Args:
        table: File of a candidate table (`textadv.perturb.candidates`). Default: the batch's own
            `candidates` (B, L, S).
        num_steps: Adam steps T >= 1.
        step_size: Adam's learning rate on `w`.
        init_scale: `w` starts uniform in (-init_scale, init_scale).
        sparsity: Weight of the entropy, alpha >= 0.

    Cost: T inner passes, and the look-up of B * L * S embeddings.
    Known failure: words that the tokenizer splits have no candidates and stay as they are.
    Source: Dong et al., ASCC, ICLR 2021, equations 5 to 8; alpha 10, T 5, Adam at 10 as in the
    TextDefender code.
    """

    table: str | None = None
    num_steps: int = 5
    step_size: float = 10.0
    init_scale: float = 1.0
    sparsity: float = 10.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError("num_steps", got=str(self.num_steps), expected="an integer >= 1")
        for name in ("step_size", "init_scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(name, got=str(getattr(self, name)), expected="a number > 0")
        if not self.sparsity >= 0:
            raise ConfigError("sparsity", got=str(self.sparsity), expected="a number >= 0")

    @property
    def stepwise(self) -> bool:
        """False: the hull is known only for a batch."""
        return False

    def bind(self, port: EmbeddingPort, batch: Batch, *, trainable: bool = False) -> BoundHull:
        """Return the hull of one batch's words.

        Args:
            port: The wrapped model, perturbed at its word embeddings.
            batch: Tokenised texts.
            trainable: Whether the embeddings of the candidates get gradients: in the pass that
                updates the weights.
        """
        if not port.on_words:
            raise ConfigError("synonym-hull", got=f"site {port.site!r}", expected="the words")
        choices = candidates_of(batch, self.table)
        flat = choices.clamp_min(0).flatten(1)
        with torch.set_grad_enabled(trainable):
            vectors = port.words(flat).view(*choices.shape, -1)
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return BoundHull(**fields, vectors=vectors, allowed=choices != NONE)

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Raise: the hull is known only for a batch (`bind`)."""
        raise RuntimeError("SynonymHull.start: bind it to a batch first")

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Raise: the hull is known only for a batch (`bind`)."""
        raise RuntimeError("SynonymHull.ascend: bind it to a batch first")

    def scaled(self, factor: float) -> Self:
        """Return the same hull: it has no radius to scale."""
        return self


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BoundHull(SynonymHull):
    """A `SynonymHull` with the embeddings of a batch's candidates.

    The state is (B, L, 4, S): weights, Adam's two averages, and its step count.

    Args:
        vectors: Embeddings of the candidates, (B, L, S, D); candidate 0 is the word itself.
        allowed: Which candidates exist, bool (B, L, S).
    """

    vectors: Tensor
    allowed: Tensor

    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return random weights, (B, L, 4, S)."""
        state = norms.random_point(
            embeds.new_zeros((*mask.shape, 4 * self.vectors.shape[2])),
            mask,
            "uniform",
            self.init_scale,
            "linf",
            "sequence",
            generator,
        ).view(*mask.shape, 4, -1)
        state[:, :, 1:] = 0
        return state

    def delta(self, z: Tensor) -> Tensor:
        """Return the mixture minus the word, (B, L, D); exactly 0 for words without synonyms."""
        vectors = self.vectors.to(z.dtype)
        mixed = (self._shares(z).unsqueeze(-1) * vectors).sum(2)
        movable = self.allowed.sum(-1, keepdim=True) > 1
        moved = (z[:, :, 0] != 0).any(-1, keepdim=True)
        return torch.where(movable & moved, mixed - vectors[:, :, 0], 0.0)

    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return the state after one Adam step on loss minus weighted entropy."""
        weights, first, second, count = z.unbind(2)
        grad = grad[:, :, 0]
        shares = self._shares(z)
        logs = torch.where(shares > 0, shares.clamp_min(1e-30).log(), 0.0)
        entropy = -(shares * logs).sum(-1, keepdim=True)
        words = (mask & (self.allowed.sum(-1) > 1)).sum(1).clamp_min(1).view(-1, 1, 1)
        # d/dw of the entropy of softmax(w) is -p * (log p + H).
        grad = grad + self.sparsity / words * shares * (logs + entropy)
        grad = torch.where(mask.unsqueeze(-1) & grad.isfinite(), grad, 0.0)
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad.square()
        count = count + 1
        mean, spread = first / (1 - 0.9**count), second / (1 - 0.999**count)
        weights = weights + self.step_size * mean / (spread.sqrt() + 1e-8)
        weights = torch.where(mask.unsqueeze(-1), weights, 0.0)
        return torch.stack([weights, first, second, count], 2)

    def _shares(self, z: Tensor) -> Tensor:
        return z[:, :, 0].masked_fill(~self.allowed, -torch.inf).softmax(-1)
