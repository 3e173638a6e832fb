"""CreAT: perturbations that also move what the encoder puts out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.objectives.adversarial import Adversarial
from textadv.objectives.base import Term
from textadv.perturb import PGD, Perturbation
from textadv.reuse import captured_output

__all__ = ["CreAT"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CreAT(Adversarial):
    """Climb on the task loss plus the distance of the encoder's output from the clean one.

    Inner loss: `l(x + delta) + tau * (1 - cos(h(x + delta), h(x)))`, with h the encoder's output
    averaged over real tokens; outer loss as in `adversarial`.

    Args:
        tau: Weight of the distance, >= 0.

    Cost: (2K + 6) / 3 clean steps; the clean output h(x) comes from the clean pass. Adversarial
    only, or with `inner_mode: eval`, it takes a forward of its own.
    Known failure: tau is not from the authors' code, which was not available: compare 0.1 and 1.
    Source: Wu et al., ICLR 2023, equation 6.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(norm="l2", epsilon=0.3, num_steps=2, init="uniform")
    )
    tau: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tau >= 0:
            raise ConfigError("tau", got=str(self.tau), expected="a number >= 0")

    @property
    def shares_clean_pass(self) -> bool:
        """No: the clean pass has another loss than the climb."""
        return False

    @property
    def cost(self) -> float:
        """A forward more where the clean pass cannot give the encoder's output."""
        return super().cost + (1 / 3 if self._own_anchor else 0)

    @property
    def _own_anchor(self) -> bool:
        return bool(self.perturbation.num_steps) and (
            self.adversarial_only or self.inner_mode == "eval" or self.center is not None
        )

    def inner_loss(
        self, port: EmbeddingPort, batch: Batch, clean: Tensor | None
    ) -> Callable[[Tensor], Tensor] | None:
        """Return the task loss plus the weighted distance from the clean encoder output."""
        if self._own_anchor:
            with port.attack_mode(self.inner_mode), torch.no_grad():
                port.logits(batch, inner=True)
        anchor = representation(port, batch).detach()

        def loss(logits: Tensor) -> Tensor:
            there = representation(port, batch)
            moved = 1 - functional.cosine_similarity(there, anchor, dim=-1)
            return port.loss(logits, batch) + self.tau * moved

        return loss

    @property
    def separable(self) -> bool:
        """No: the encoder is watched all along."""
        return False

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield what `adversarial` yields, with the encoder's output in view."""
        with captured_output(port.model, port.captured):
            yield from super().terms(port, batch, generator)


def representation(port: EmbeddingPort, batch: Batch) -> Tensor:
    """Return the last captured encoder output, averaged over real tokens, (B, H)."""
    hidden = port.captured["encoder"]
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    weights = (mask / mask.sum(1, keepdim=True)).to(hidden.dtype)
    return (hidden * weights.unsqueeze(-1)).sum(1)
