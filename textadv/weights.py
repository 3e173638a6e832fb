"""Move a model's weights for one loss, and put back exactly the bits that were there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from textadv.norms import TINY

__all__ = ["awp_moves", "moved", "sam_moves", "trainable"]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextlib.contextmanager
def moved(parameters: Sequence[nn.Parameter], moves: Sequence[Tensor | None]) -> Iterator[None]:
    """Add `moves` to the weights inside, and copy the originals back after.

    Adding and then subtracting would not give back the same bits. None leaves a weight alone.
    """
    pairs = [(p, m) for p, m in zip(parameters, moves, strict=True) if m is not None]
    kept = [parameter.detach().clone() for parameter, _ in pairs]
    try:
        with torch.no_grad():
            for parameter, move in pairs:
                parameter.add_(move)
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), original in zip(pairs, kept, strict=True):
                parameter.copy_(original)


def awp_moves(
    parameters: Sequence[nn.Parameter], grads: Sequence[Tensor | None], gamma: float
) -> list[Tensor | None]:
    """Return steps along the gradients whose norm is `gamma` times that of each weight matrix.

    Vectors (biases, norms) and matrices without a usable gradient stay where they are.

    Source: Wu et al., AWP, NeurIPS 2020, equation 8.
    """
    return [
        None
        if grad is None or parameter.ndim < 2
        else grad * _ratio(gamma * parameter.detach().norm(), grad.norm())
        for parameter, grad in zip(parameters, grads, strict=True)
    ]


def sam_moves(grads: Sequence[Tensor | None], rho: float) -> list[Tensor | None]:
    """Return one step along the whole gradient, of l2 norm `rho` over all weights together.

    Source: Foret et al., SAM, ICLR 2021, equation 2.
    """
    present = [grad for grad in grads if grad is not None]
    sizes = [torch.linalg.vector_norm(grad, dtype=torch.float64) for grad in present]
    total = torch.stack(sizes).norm()
    factor = _ratio(rho, total)
    return [None if grad is None else grad * factor.to(grad.dtype) for grad in grads]


def _ratio(size: Tensor | float, norm: Tensor) -> Tensor:
    """Return `size / norm`, 0 where the norm is zero or not finite."""
    alive = torch.isfinite(norm) & (norm >= TINY)
    return torch.where(alive, size / norm.clamp_min(TINY), 0.0)
