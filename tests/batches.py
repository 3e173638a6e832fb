"""Batches with everything that some method asks for."""

from __future__ import annotations

import torch

from textadv.testing import tiny_batch


def full_batch(model, lengths=(9, 4, 6), *, num_candidates=3, seed=0, **options):
    """Return a ragged batch with example ids and, for every second word, candidates."""
    batch = tiny_batch(model, lengths, seed=seed, **options)
    ids = batch["input_ids"]
    generator = torch.Generator().manual_seed(seed + 1)
    candidates = torch.randint(4, 96, (*ids.shape, num_candidates), generator=generator)
    candidates[..., 0] = ids
    candidates[:, ::2, 1:] = -1
    candidates[:, 1::4, 2] = -1
    batch["candidates"] = candidates
    batch["example_id"] = torch.tensor([4, 0, 2])[: len(lengths)]
    return batch
