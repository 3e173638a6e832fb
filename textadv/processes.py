"""What processes of one run tell each other, beside gradients: tensors, and nothing pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

__all__ = ["exchange"]


def exchange(
    notes: Sequence[Mapping[str, Tensor]], accelerator: Any = None
) -> list[dict[str, Tensor]]:
    """Return the notes of all processes, in the order in which micro-batches are numbered.

    Micro-batch `i` of process `r` is number `i * num_processes + r`, as `MicroBatches` deals them,
    so the result is the same on every process and for any split of a step.

    Args:
        notes: Named tensors of each micro-batch of this process; every process has as many.
        accelerator: An `accelerate.Accelerator`, or None for one process.

    Example:
        >>> exchange([{"norm": torch.ones(1)}])
        [{'norm': tensor([1.])}]
    """
    if accelerator is None or accelerator.num_processes == 1:
        return [dict(note) for note in notes]
    named = {
        f"{place}.{name}": tensor.detach().cpu().contiguous()
        for place, note in enumerate(notes)
        for name, tensor in note.items()
    }
    device = accelerator.device
    sent = torch.frombuffer(bytearray(save(named)), dtype=torch.uint8).to(device)
    sizes = accelerator.gather(torch.tensor([len(sent)], device=device)).tolist()
    padded = torch.nn.functional.pad(sent, (0, max(sizes) - len(sent)))
    received = accelerator.gather(padded.unsqueeze(0)).cpu()
    merged: list[dict[str, Tensor]] = [{} for _ in range(len(notes) * len(sizes))]
    for rank, (row, size) in enumerate(zip(received, sizes, strict=True)):
        for key, tensor in load(row[:size].numpy().tobytes()).items():
            place, _, name = key.partition(".")
            merged[int(place) * len(sizes) + rank][name] = tensor
    return merged
