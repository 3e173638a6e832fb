"""Put a model into the state of an attack, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from textadv.errors import UnsupportedModelError
from textadv.seeding import preserve_rng

__all__ = ["Mode", "attack_mode", "enable_gradient_checkpointing", "keep_differentiable"]

Mode = Literal["train", "eval"]


@contextlib.contextmanager
def attack_mode(model: nn.Module, device: torch.device, mode: Mode) -> Iterator[Callable[[], None]]:
    """Freeze the parameters, set dropout, and restore both and the random state at the end.

    Yields:
        A function that rewinds the random state to the entry of the context.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    modules = [m for m in model.modules() if m.training] if mode == "eval" else []
    with preserve_rng(device) as rewind:
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            for module in modules:
                module.training = False
            yield rewind
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module in modules:
                module.training = True


def enable_gradient_checkpointing(model: Any) -> None:
    """Recompute activations in backward passes, in the form that allows gradients of `delta`."""
    # Transformers renamed the switch in 5.x and warns about the old name.
    switch = getattr(model, "activation_checkpointing_enable", None)
    switch = switch or model.gradient_checkpointing_enable
    switch({"use_reentrant": False})


def keep_differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for a CPU, which cuts gradients silently.

    It packs them in the first pass without gradients, where the CPU multiplies in bfloat16.

    Raises:
        UnsupportedModelError: If they are packed already; what they were is lost.
    """
    for name, module in model.named_modules():
        if not getattr(module, "support_avx512bf16_for_cpu", False):
            continue
        state = getattr(module.weight, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise UnsupportedModelError(
                f"{type(model).__name__}: {name}",
                got="4-bit weights that a pass without gradients has packed for the CPU",
                expected="weights that gradients can pass",
                fix="load the model again, and wrap it before its first pass",
            )
        module.support_avx512bf16_for_cpu = False
