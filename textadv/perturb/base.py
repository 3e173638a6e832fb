"""What a perturbation is, and the one ascent loop that all of them share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort, Mode

__all__ = ["Perturbation", "maximize"]


class Perturbation(abc.ABC):
    """A set of perturbations and the way to climb in it: pure tensor geometry.

    The state `z` is what the gradient is taken of. For norm balls it is `delta` itself; other sets
    may keep something else (mixing weights, say) and turn it into `delta` (B, L, D). After every
    call `z` lies inside the set, is 0 where `mask` is False, and row i depends on row i alone.

    """

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """Gradient evaluations of the inner loop (K)."""

    @property
    def starts_at_zero(self) -> bool:
        """Whether the first `delta` is exactly 0: then a clean pass can be the first inner pass."""
        return False

    @abc.abstractmethod
    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return the first state for embeddings (B, L, D) and a mask (B, L)."""

    @abc.abstractmethod
    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return the state one step further along the gradient (of any positive scale)."""

    @abc.abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the same perturbation with radius, steps and start scaled by `factor`."""

    def delta(self, z: Tensor) -> Tensor:
        """Return the perturbation (B, L, D) of a state."""
        return z

    def __call__(
        self,
        port: EmbeddingPort,
        batch: Batch,
        *,
        loss: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
        mode: Mode = "eval",
        z: Tensor | None = None,
        num_steps: int | None = None,
    ) -> Tensor:
        """Return the perturbation of a batch that (approximately) maximises the loss.

        The model is left exactly as found: gradients, flags, hooks and random state.

        Args:
            port: The wrapped model.
            batch: Tokenised texts, with labels unless `loss` is given.
            loss: Maps logits (B, C) to losses (B,). Default: the task loss of the batch's labels.
            generator: Random stream of the start, on the model's device. Default: seed 0.
            mode: `"eval"` attacks without dropout; `"train"` attacks with it, with the same masks
                in every step.
            z: State to continue from, instead of `start`.
            num_steps: Steps to take, instead of all.

        Returns:
            `delta` (B, L, D), detached, 0 on padding and special tokens.

        Example:
            >>> import textadv
            >>> from textadv.testing import tiny_batch, tiny_model
            >>> port = textadv.wrap(tiny_model("bert"))
            >>> delta = textadv.PGD(norm="l2", epsilon=0.3)(port, tiny_batch(port.model))
            >>> delta.flatten(1).norm(dim=1).max().item() <= 0.3 * (1 + 1e-6)
            True
        """
        loss = loss if loss is not None else lambda logits: port.loss(logits, batch)
        generator = generator if generator is not None else torch.Generator(port.device)
        with port.attack_mode(mode) as rewind, torch.enable_grad():

            def inner_loss(delta: Tensor) -> Tensor:
                rewind()
                return loss(port.logits(batch, delta, inner=True))

            embeds, mask = port.embed(batch), port.editable(batch)
            return maximize(
                self, inner_loss, embeds, mask, generator, z=z, num_steps=num_steps
            ).detach()


def maximize(
    perturbation: Perturbation,
    loss: Callable[[Tensor], Tensor],
    embeds: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    *,
    z: Tensor | None = None,
    num_steps: int | None = None,
) -> Tensor:
    """Climb: take the gradient of the summed loss with respect to the state alone, step, repeat.

    The loss is summed and never averaged, so that an example's gradient does not depend on the
    batch around it, and `torch.autograd.grad` touches no parameter's `.grad`.

    Args:
        perturbation: The set and its step.
        loss: Maps `delta` (B, L, D) to losses (B,).
        embeds: Input embeddings (B, L, D).
        mask: Positions that may be perturbed, bool (B, L).
        generator: Random stream of the start.
        z: State to continue from.
        num_steps: Steps to take, instead of `perturbation.num_steps`.

    Returns:
        `delta` (B, L, D).
    """
    z = perturbation.start(embeds, mask, generator) if z is None else z
    for _ in range(perturbation.num_steps if num_steps is None else num_steps):
        z = z.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(perturbation.delta(z)).sum(), z)
        z = perturbation.ascend(z.detach(), grad, mask)
    return perturbation.delta(z)
