"""The hook that adds a perturbation at a site, in the one forward that runs inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from textadv.errors import ConfigError, UnsupportedModelError
from textadv.sites import Site

__all__ = ["Hook"]

# What each hook adds. Were it kept in the hook, which a model holds, a compiled model would take
# its shape for fixed and be traced again for every length.
_deltas: dict[int, Tensor] = {}


class Hook:
    """Add `delta` to what is at a site.

    Args:
        model: The model.
        site: Where in it.

    Attributes:
        seen: What was at the site in the last pass that added a `delta`, (B, L, D).
    """

    def __init__(self, model: nn.Module, site: Site) -> None:
        self.model, self.site = model, site
        self.layer = model.get_submodule(site.name)
        self.seen: Tensor | None = None
        self._key = id(self)
        self._calls, self._added = 0, 0
        self._handle: torch.utils.hooks.RemovableHandle | None = None

    @contextlib.contextmanager
    def adding(self, delta: Tensor | None) -> Iterator[None]:
        """Add `delta` (B, L, D) in the one forward that runs inside; None adds nothing.

        Raises:
            RuntimeError: If it is entered twice.
            UnsupportedModelError: If the layer did not fire exactly once.
        """
        if self._key in _deltas:
            raise RuntimeError("EmbeddingPort.perturbed is already active: it does not nest")
        if delta is None:
            yield
            return
        with self.attached():
            _deltas[self._key] = delta
            self._calls, self._added = 0, 0
            try:
                yield
            finally:
                del _deltas[self._key]
        if self._added != 1:
            raise UnsupportedModelError(
                f"{type(self.model).__name__}: embedding layer {self.site.name!r}",
                got=f"{self._added} calls in one forward",
                expected="exactly 1",
                fix="name the layer that embeds the token ids: wrap(model, site='...')",
            )

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Keep the hook registered, so that a compiled model is not traced again for every pass."""
        if self._handle is not None:
            yield
            return
        self._handle = (
            self.layer.register_forward_hook(self._add_to_output)
            if self.site.argument is None
            else self.layer.register_forward_pre_hook(self._add_to_input, with_kwargs=True)
        )
        try:
            yield
        finally:
            self._handle.remove()
            self._handle = None

    def _add_to_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return self._add(output) if self._key in _deltas else None

    def _add_to_input(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self._key not in _deltas:
            return None
        number, self._calls = self._calls, self._calls + 1
        if number != self.site.call:
            return None
        return self.site.replace(args, kwargs, self._add(self.site.read(args, kwargs)))

    def _add(self, hidden: Tensor) -> Tensor:
        self._added += 1
        delta = _deltas[self._key]
        delta = delta.transpose(0, 1) if self.site.sequence_first else delta
        if delta.shape != hidden.shape:
            raise ConfigError(
                f"delta at {self.site.name!r}",
                got=str(tuple(delta.shape)),
                expected=f"the shape of the embeddings {tuple(hidden.shape)}",
            )
        seen = hidden.detach()
        self.seen = seen.transpose(0, 1) if self.site.sequence_first else seen
        delta = delta.to(hidden.dtype)
        if self.site.normalized:
            delta = delta * hidden.std(-1, keepdim=True, unbiased=False)
        return hidden + delta
