"""Group sequences of different lengths into padded batches of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["default_batch_tokens", "length_batches", "padded_batch"]


def default_batch_tokens(device: torch.device) -> int:
    """Return how many tokens, padding included, one forward pass should have.

    On CPUs small batches stay in the cache and are padded less; more than this is slower.
    """
    return 16384 if device.type == "cuda" else 1024


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield groups of row numbers, longest first, whose padded size fits `batch_tokens`.

    A row longer than that stands alone.

    Example:
        >>> list(length_batches([2, 9, 3, 1], 6))
        [[1], [2, 0], [3]]
    """
    batch: list[int] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield batch
            batch = []
        width = width if batch else max(lengths[index], 1)
        batch.append(index)
    if batch:
        yield batch


def padded_batch(
    rows: Sequence[Mapping[str, Sequence[int]]],
    fills: Mapping[str, int],
    *,
    right: bool = True,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Pad tokenised rows to the longest of them and add the attention mask.

    Args:
        rows: `input_ids` and whatever else is in every row, such as `token_type_ids`.
        fills: What each of these is padded with.
        right: Whether the padding comes behind.
        device: Where the tensors are made.
    """
    width = max(len(row["input_ids"]) for row in rows)

    def padded(values: Sequence[int], fill: int) -> list[int]:
        missing = [fill] * (width - len(values))
        return [*values, *missing] if right else [*missing, *values]

    batch = {name: [padded(row[name], fills[name]) for row in rows] for name in rows[0]}
    batch["attention_mask"] = [padded([1] * len(row["input_ids"]), 0) for row in rows]
    return {name: torch.tensor(value, device=device) for name, value in batch.items()}
