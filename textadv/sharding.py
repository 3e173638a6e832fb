"""Models whose weights FSDP2 has split over the processes: how they are saved, and made whole."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from textadv.adapters import trained_weights

__all__ = ["keep_skeleton", "sharded", "spread", "unsharded", "whole"]

SKELETON = "_textadv_skeleton"


class _Whole:
    """Stands for a model or optimizer where only its state is asked for."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        return self._state


def sharded(model: nn.Module) -> bool:
    """Return whether FSDP2 has split the weights over the processes."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole(owner: Any, model: Any) -> Any:
    """Return `owner`, or something with its state put together; all processes must call this.

    Args:
        owner: The model or its optimizer.
        model: The model.
    """
    if not sharded(model):
        return owner
    state = _gathered(owner.state_dict())
    if owner is model and (trained := trained_weights(model)) is not None:
        state = {name: tensor for name, tensor in state.items() if name in trained}
    return _Whole(state)


def keep_skeleton(model: Any) -> None:
    """Remember what the model is without its weights, before it is sharded."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    model.__dict__[SKELETON] = copy.deepcopy(model, memo)


def unsharded(model: Any) -> Any:
    """Return an ordinary model with the weights put together; all processes must call this."""
    if not sharded(model):
        return model
    state = _gathered(model.state_dict())
    plain = model.__dict__.pop(SKELETON)
    plain.load_state_dict(state, assign=True)
    if hasattr(plain, "tie_weights"):
        plain.tie_weights()
    return plain.to(next(iter(state.values())).device)


def spread(saved: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's whole state split as its parameters now are."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for index, entries in saved["state"].items():
        parameter = parameters[index]
        state[index] = {
            name: distribute_tensor(value, parameter.device_mesh, parameter.placements)
            if isinstance(parameter, DTensor)
            and isinstance(value, Tensor)
            and value.shape == parameter.shape
            else value
            for name, value in entries.items()
        }
    return {"state": state, "param_groups": saved["param_groups"]}


def _gathered(value: Any) -> Any:
    """Put together every split tensor in nested dictionaries."""
    if isinstance(value, dict):
        return {key: _gathered(entry) for key, entry in value.items()}
    if hasattr(value, "full_tensor"):
        found = cast(Tensor, value.full_tensor())
        # Rows that do not go into the number of processes come as a view of padded ones, which
        # safetensors does not write.
        return found.clone() if found.untyped_storage().nbytes() > found.nbytes else found
    return value
