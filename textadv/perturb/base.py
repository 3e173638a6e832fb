"""What a perturbation is, and the one ascent loop that all of them share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.losses import InnerLoss, attack_loss, check_inner_loss
from textadv.monitors import Monitor
from textadv.norms import Scope

__all__ = ["Perturbation", "harm_of", "maximize"]


class Perturbation(abc.ABC):
    """A set of perturbations and the way to climb in it: pure tensor geometry.

    The state `z` is what the gradient is taken of. For norm balls it is `delta` itself; other sets
    may keep something else (mixing weights, a momentum) and turn it into `delta` (B, L, D). After
    every call `delta` lies inside the set, is 0 where `mask` is False, and row i depends on row i
    alone.
    """

    scope: Scope = "sequence"

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """Gradient evaluations of the inner loop (K)."""

    @property
    def starts_at_zero(self) -> bool:
        """Whether the first `delta` is exactly 0: then a clean pass can be the first inner pass."""
        return False

    @property
    def ignores_scale(self) -> bool:
        """Whether a step depends on the direction of the gradient alone, not on its length."""
        return True

    @property
    def stepwise(self) -> bool:
        """Whether `start` and `ascend` are all of the climb, so that others may take the steps."""
        return True

    @property
    def inner_loss(self) -> InnerLoss:
        """What is maximised when the caller does not say: the task loss."""
        return "task"

    @abc.abstractmethod
    def start(self, embeds: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return the first state for a tensor shaped like `delta` (B, L, D) and a mask (B, L)."""

    @abc.abstractmethod
    def ascend(self, z: Tensor, grad: Tensor, mask: Tensor) -> Tensor:
        """Return the state one step further along the gradient (of any positive scale)."""

    @abc.abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the same perturbation with radius, steps and start scaled by `factor`."""

    def delta(self, z: Tensor) -> Tensor:
        """Return the perturbation (B, L, D) of a state."""
        return z

    def finish(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return the state to use when the climb is over."""
        return z

    def bind(self, port: EmbeddingPort, batch: Batch) -> Perturbation:
        """Return the perturbation for one batch: sets that depend on its tokens look them up."""
        return self

    def check(self, problem_type: str, num_labels: int) -> None:
        """Raise `ConfigError` if a head of this kind cannot be attacked like this."""
        check_inner_loss(self.inner_loss, problem_type, num_labels)

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
        monitor: Monitor | None = None,
    ) -> Tensor:
        """Return the perturbation of a batch that (approximately) maximises the loss.

        The model is left exactly as found: gradients, flags, hooks and random state.

        Args:
            port: The wrapped model.
            batch: Tokenised texts, with labels unless `loss` is given.
            loss: Maps logits (B, C) to losses (B,). Default: `inner_loss` on the batch's labels.
            generator: Random stream of the start, on the model's device. Default: seed 0.
            mode: `"eval"` attacks without dropout; `"train"` attacks with it, with the same masks
                in every step.
            z: State to continue from, instead of `start`.
            num_steps: Steps to take, instead of all.
            monitor: Told the gradient of every step.

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
        bound = self.bind(port, batch)
        generator = generator if generator is not None else torch.Generator(port.device)
        before = generator.get_state()
        state = port.parts.fitting(
            lambda: bound.search(port, batch, loss, generator, mode, z, num_steps, monitor),
            undo=lambda: generator.set_state(before),
        )
        with torch.no_grad():
            return bound.delta(state).detach()

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
        """Return the state that `__call__` turns into `delta`; the arguments are the same."""
        loss = loss if loss is not None else self.default_loss(port, batch)
        with port.attack_mode(mode) as rewind, port.cached_prefix(), torch.enable_grad():

            def inner_loss(delta: Tensor) -> Tensor:
                rewind()
                return loss(port.logits(batch, delta, inner=True))

            blank, mask = port.blank(batch), port.editable(batch)
            return maximize(
                self,
                inner_loss,
                blank,
                mask,
                generator,
                z=z,
                num_steps=num_steps,
                monitor=monitor,
            )

    def default_loss(self, port: EmbeddingPort, batch: Batch) -> Callable[[Tensor], Tensor]:
        """Return `inner_loss` on the labels of a batch."""
        if self.inner_loss == "task":
            return lambda logits: port.loss(logits, batch)
        labels = batch["labels"]
        problem = port.problem_type(labels)
        return lambda logits: attack_loss(logits, labels, problem, self.inner_loss)


def maximize(
    perturbation: Perturbation,
    loss: Callable[[Tensor], Tensor],
    embeds: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    *,
    z: Tensor | None = None,
    num_steps: int | None = None,
    monitor: Monitor | None = None,
) -> Tensor:
    """Climb: take the gradient of the summed loss with respect to the state alone, step, repeat.

    The loss is summed and never averaged, so that an example's gradient does not depend on the
    batch around it, and `torch.autograd.grad` touches no parameter's `.grad`.

    Args:
        perturbation: The set and its step.
        loss: Maps `delta` (B, L, D) to losses (B,).
        embeds: A tensor in the shape of `delta`, (B, L, D).
        mask: Positions that may be perturbed, bool (B, L).
        generator: Random stream of the start.
        z: State to continue from.
        num_steps: Steps to take, instead of `perturbation.num_steps`.
        monitor: Told the gradient of every step.

    Returns:
        The final state; `perturbation.delta` of it is (B, L, D).
    """
    z = perturbation.start(embeds, mask, generator) if z is None else z
    for _ in range(perturbation.num_steps if num_steps is None else num_steps):
        z = z.detach().requires_grad_()
        delta = perturbation.delta(z)
        (grad,) = torch.autograd.grad(loss(delta).sum(), z)
        if monitor is not None:
            monitor.record(grad, mask)
        z = perturbation.ascend(z.detach(), grad, mask)
    return perturbation.finish(z.detach(), mask)


def harm_of(
    port: EmbeddingPort, batch: Batch, loss: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor]:
    """Return what ranks perturbations of a text without dropout: `loss`, or else the margin.

    The margin is positive exactly where the prediction is wrong; heads without one class a text
    are ranked by their task loss.
    """
    labels = batch.get("labels")

    def harm(delta: Tensor) -> Tensor:
        with port.attack_mode("eval"), torch.no_grad():
            logits = port.logits(batch, delta, inner=True)
        if loss is not None or labels is None:
            return (loss or (lambda z: port.loss(z, batch)))(logits)
        problem = port.problem_type(labels)
        kind: InnerLoss = "margin" if problem == "single_label_classification" else "task"
        return attack_loss(logits, labels, problem, kind)

    return harm
