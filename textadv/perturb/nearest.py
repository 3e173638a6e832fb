"""Snap perturbed embeddings to real tokens: how far embedding robustness is from text."""

from __future__ import annotations

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort

__all__ = ["nearest_tokens"]


def nearest_tokens(
    port: EmbeddingPort, batch: Batch, delta: Tensor, *, chunk: int = 4096
) -> Tensor:
    """Return the ids (B, L) whose embeddings are nearest, in l2, to the perturbed ones.

    Positions that may not be perturbed keep their id; a perturbation shorter than half the distance
    to the nearest other word gives back the text itself.

    Args:
        port: The wrapped model, at its word embeddings.
        batch: Tokenised texts.
        delta: Perturbation (B, L, D).
        chunk: Vocabulary entries compared at once.
    """
    ids, mask = batch["input_ids"], port.editable(batch)
    points = (port.embed(batch).float() + delta.float())[mask]
    size = int(port.model.config.get_text_config().vocab_size)
    best = torch.full_like(points[:, 0], torch.inf)
    nearest = torch.zeros_like(ids[mask])
    for start in range(0, size, chunk):
        row = torch.arange(start, min(start + chunk, size), device=ids.device).unsqueeze(0)
        with torch.no_grad():
            words = port.words(row)[0].float()
        distance, position = torch.cdist(points, words).min(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        nearest = torch.where(closer, position + start, nearest)
    found = ids.clone()
    found[mask] = nearest
    return found
