"""R4F: R3F with a head whose layers cannot stretch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from textadv.adapters import bare
from textadv.embeddings import Batch, EmbeddingPort
from textadv.objectives.base import Term
from textadv.objectives.consistency import R3F

__all__ = ["R4F", "spectral_norm"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class R4F(R3F):
    """R3F, with every linear layer of the head rescaled to spectral norm 1 before each batch.

    Cost: 2.0 clean steps, and a few products with the head's matrices.
    Known failure: as `r3f`; a head of norm 1 learns slowly at small learning rates.
    Source: Aghajanyan et al., ICLR 2021, section 3.1.
    Deviations: the weights themselves are rescaled, so that the checkpoint stays a plain one; the
    last update may leave them slightly off 1.
    """

    @property
    def separable(self) -> bool:
        """No: the head is rescaled first."""
        return False

    @property
    def handles_weights(self) -> bool:
        """Yes: those of the head."""
        return True

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Rescale the head, then yield R3F's loss."""
        with torch.no_grad():
            for layer in head_layers(port.model):
                layer.weight.div_(spectral_norm(layer.weight).clamp_min(1e-12))
        yield from super().terms(port, batch, generator)


def head_layers(model: Any) -> list[nn.Linear]:
    """Return the linear layers outside the pretrained encoder."""
    model = bare(model)
    inside = set(model.base_model.modules())
    # Beside adapters, a head has an untrained original.
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module not in inside and module.weight.requires_grad
    ]


def spectral_norm(weight: Tensor, iterations: int = 20) -> Tensor:
    """Return the largest singular value, by iterating on a subspace of 16 dimensions."""
    matrix = weight.detach()
    matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    width = matrix.shape[1]
    space = torch.eye(width, min(width, 16), device=matrix.device, dtype=matrix.dtype) + 1 / width
    for _ in range(iterations if width > 16 else 0):
        space = torch.linalg.qr(matrix.T @ (matrix @ space)).Q
    return torch.linalg.svdvals(matrix @ space if width > 16 else matrix)[0]
