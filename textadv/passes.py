"""Count forwards and backwards, so that claims about cost can be tested."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort

__all__ = ["Passes", "count_passes"]


@dataclasses.dataclass(kw_only=True)
class Passes:
    """Passes over one batch; half a batch counts one half.

    Args:
        forwards: Forward passes.
        full_backwards: Backward passes that reach the weights.
        input_backwards: Backward passes that only reach `delta`, because weights are frozen.
    """

    forwards: float = 0.0
    full_backwards: float = 0.0
    input_backwards: float = 0.0

    @property
    def clean_steps(self) -> float:
        """Return the cost in clean training steps: a forward is 1/3, a full backward 2/3."""
        return (self.forwards + 2 * self.full_backwards + self.input_backwards) / 3


@contextlib.contextmanager
def count_passes(port: EmbeddingPort, batch: Batch) -> Iterator[Passes]:
    """Count the passes of `port.model` inside.

    Example:
        >>> import textadv
        >>> from textadv.testing import tiny_batch, tiny_model
        >>> port = textadv.wrap(tiny_model("bert"))
        >>> batch = tiny_batch(port.model)
        >>> with count_passes(port, batch) as passes:
        ...     log = textadv.backward(textadv.Clean(), port, batch)
        >>> passes.forwards, passes.full_backwards, passes.clean_steps
        (1.0, 1.0, 1.0)
    """
    passes = Passes()
    size = len(batch["input_ids"])

    def seen(module: Any, args: Any, output: Any) -> None:
        logits: Tensor = output.logits
        share = len(logits) / size
        passes.forwards += share
        if not logits.requires_grad:
            return
        full = any(parameter.requires_grad for parameter in module.parameters())

        def went_back(grad: Tensor) -> None:
            if full:
                passes.full_backwards += share
            else:
                passes.input_backwards += share

        logits.register_hook(went_back)

    handle = port.model.register_forward_hook(seen)
    try:
        yield passes
    finally:
        handle.remove()
