"""Rounding that arithmetic noise cannot change: what is near an edge is found and computed again.

What a model says of one text depends a little on the batch around it, because sums are then taken
in another order. Rounded values are free of that unless they are near an edge between two steps.
There the text is put through the model alone, so that a rounded value is always that of the text
alone, and yet nearly all texts share batches.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["FLOAT32_NOISE", "near_edge", "rounded"]

FLOAT32_NOISE = 2.0**-17
"""Most that a float32 logit differs between batches, as a share of the largest logit or of 1.

Measured on a CPU, 400 texts in batches of 256, 1024 and 4096 tokens against each text alone: at
most 2.8e-6 for a fine-tuned six-layer encoder and 4.6e-6 for one of large random weights; this is
7.6e-6.
"""


def rounded(values: Tensor, grid: float) -> Tensor:
    """Return the values rounded to multiples of `grid`."""
    return (values / grid).round() * grid


def near_edge(values: Tensor, grid: float, noise: Tensor | float) -> Tensor:
    """Return which values could round otherwise if they moved by up to `noise`.

    Example:
        >>> import torch
        >>> near_edge(torch.tensor([0.0, 0.49, 0.51, 0.7]), 1.0, 0.02).tolist()
        [False, True, True, False]
    """
    return ((values - noise) / grid).round() != ((values + noise) / grid).round()
