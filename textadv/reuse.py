"""What passes over one batch can share: a prefix, a gradient, an activation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from textadv.adapters import bare
from textadv.errors import UnsupportedModelError
from textadv.sites import Site

__all__ = [
    "cached_prefix",
    "captured_output",
    "compiled",
    "read_input",
    "shared_output_gradient",
]


class _Reached(Exception):
    """Ends a forward that is only run up to a module."""


def compiled(model: nn.Module) -> bool:
    """Return whether `torch.compile` has taken over the forward."""
    return getattr(model, "_compiled_call_impl", None) is not None


def read_input(layer: nn.Module, site: Site, forward: Callable[[], Any]) -> Tensor:
    """Return what a site reads in a forward, which ends there."""
    seen: list[Tensor] = []

    def look(module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append(site.read(args, kwargs))
        if len(seen) == (site.call or 0) + 1:
            raise _Reached

    handle = layer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with contextlib.suppress(_Reached):
            forward()
    finally:
        handle.remove()
    return seen[-1].detach()


@contextlib.contextmanager
def cached_prefix(model: Any, site: Site) -> Iterator[None]:
    """Run the blocks before `site` in the first forward inside, and replay them in later ones.

    All forwards inside must be of the same batch and need no gradient of what is before the site.
    The random state at the site is replayed as well, so dropout above it is the same in each.
    """
    if not site.prefix or compiled(model):
        yield
        return
    depth = len(site.prefix) - 1
    state: dict[str, Any] = {"calls": 0, "pending": None, "kept": None, "rng": None}

    def reset(module: nn.Module, args: Any) -> None:
        state["calls"] = 0

    def replay(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            number = state["calls"]
            state["calls"] += 1
            if number < depth:
                if state["kept"] is not None:
                    return state["kept"]
                state["pending"] = original(*args, **kwargs)
                return state["pending"]
            if number == depth:
                if state["kept"] is None:
                    state["kept"], state["rng"] = state["pending"], _rng_state()
                else:
                    _set_rng_state(state["rng"])
            return original(*args, **kwargs)

        return forward

    modules = [model.get_submodule(name) for name in dict.fromkeys(site.prefix)]
    own = [module.__dict__.get("forward") for module in modules]
    handle = model.register_forward_pre_hook(reset)
    try:
        for module in modules:
            module.forward = replay(module.forward)
        yield
    finally:
        handle.remove()
        for module, forward in zip(modules, own, strict=True):
            del module.__dict__["forward"]
            if forward is not None:
                module.forward = forward


def _rng_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), (
        torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    )


def _set_rng_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


@contextlib.contextmanager
def shared_output_gradient(layer: nn.Module) -> Iterator[None]:
    """Send one gradient back through `layer` for all backwards inside that gave it equal inputs.

    Every backward through an embedding otherwise fills a dense (vocabulary, D) tensor. The passes
    of a batch read the same ids, so the gradients of their embeddings (B, L, D) are summed first.
    """
    passes: list[tuple[Tensor, Tensor, Tensor]] = []

    def cut(module: nn.Module, args: Any, output: Any) -> Any:
        if not (isinstance(output, Tensor) and output.requires_grad and args):
            return None
        leaf = output.detach().requires_grad_()
        passes.append((args[0], output, leaf))
        return leaf

    handle = layer.register_forward_hook(cut, prepend=True)
    try:
        yield
    finally:
        handle.remove()
    summed: list[tuple[Tensor, Tensor, Tensor]] = []
    for given, output, leaf in passes:
        if leaf.grad is None:
            continue
        same = [entry for entry in summed if entry[0] is given or torch.equal(entry[0], given)]
        if same:
            same[0][2].add_(leaf.grad)
        else:
            summed.append((given, output, leaf.grad))
    if summed:
        torch.autograd.backward([entry[1] for entry in summed], [entry[2] for entry in summed])


@contextlib.contextmanager
def captured_output(model: Any, into: dict[str, Tensor]) -> Iterator[None]:
    """Keep the output (B, L, H) of the encoder below the head of every forward inside.

    Raises:
        UnsupportedModelError: If the model does not say which part is the encoder.
    """
    model = bare(model)
    encoder = model.base_model
    if encoder is model:
        raise UnsupportedModelError(
            type(model).__name__, got="no base_model", expected="an encoder below the head"
        )

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        encoded = getattr(output, "encoder_last_hidden_state", None)
        into["encoder"] = output[0] if encoded is None else encoded

    handle = encoder.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        into.clear()
