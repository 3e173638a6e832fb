"""Steps that must not reach the weights, because something in them is NaN or infinite."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from textadv.batching import Encoded
from textadv.embeddings import EmbeddingPort
from textadv.errors import NonFiniteError, shown
from textadv.store import State

__all__ = ["Guard", "fault_of", "warn_of_skips"]

logger = logging.getLogger(__name__)

MAX_IN_A_ROW = 3
# A loss scaler halves its scale on every overflow while it looks for one that fits.
MAX_IN_A_ROW_SCALED = 20
NAMES_SHOWN = 8


def fault_of(figures: Mapping[str, float]) -> str | None:
    """Say what is not finite in a step, or None.

    Args:
        figures: `loss`, `grad_norm` and, of objectives with an inner ascent,
            `non_finite_fraction`: the share of its gradients that were not finite.

    Example:
        >>> fault_of({"loss": 0.3, "grad_norm": float("inf")})
        'a gradient norm of inf'
    """
    if not math.isfinite(figures["loss"]):
        return f"a loss of {figures['loss']}"
    if not math.isfinite(figures["grad_norm"]):
        return f"a gradient norm of {figures['grad_norm']}"
    inner = figures.get("non_finite_fraction", 0.0)
    if inner != 0:
        return f"{inner:.1%} of the gradients of the inner ascent not finite"
    return None


def warn_of_skips(state: State) -> None:
    """Log how many steps were skipped, where they were more than one in a hundred."""
    if state.skipped > state.step / 100:
        logger.warning(
            "%d of %d steps were skipped: something in them was not finite",
            state.skipped,
            state.step,
        )


class Guard:
    """Let finite steps reach the weights; count, log and after a few in a row refuse the others.

    Args:
        port: The model.
        examples: The training data.
        accelerator: Knows the loss scaler and the number of processes.
    """

    def __init__(self, port: EmbeddingPort, examples: Encoded, accelerator: Any) -> None:
        self.port, self.examples, self.accelerator = port, examples, accelerator

    def update(
        self, optimizer: Any, state: State, figures: Mapping[str, float], indices: Sequence[int]
    ) -> bool:
        """Step the optimizer unless something is not finite, and return whether it did.

        With fp16 the loss scaler decides: it expects overflows while it looks for its scale.

        Args:
            optimizer: Holds the gradients of the step; they are set to zero.
            state: Its `step` is still the one before; `skipped` and `non_finite` are counted.
            figures: Those of the step, the same on all processes.
            indices: The examples of the step, on this process.

        Raises:
            NonFiniteError: The third such step in a row; with a loss scaler, the twentieth.
        """
        scaled = self.accelerator.scaler is not None
        fault = fault_of(figures)
        if scaled or fault is None:
            optimizer.step()
        if scaled:
            overflow = fault or "a gradient beyond fp16"
            fault = overflow if optimizer.step_was_skipped else None
        state.non_finite = 0 if fault is None else state.non_finite + 1
        if fault is not None:
            state.skipped += 1
            logger.warning("step %d skipped: %s", state.step + 1, fault)
            if state.non_finite >= (MAX_IN_A_ROW_SCALED if scaled else MAX_IN_A_ROW):
                raise self._error(fault, state, indices)
        optimizer.zero_grad()
        return fault is None

    def _error(self, fault: str, state: State, indices: Sequence[int]) -> NonFiniteError:
        """Name the step, its examples, and where to look."""
        detail = ""
        if culprits := self._culprits(indices):
            detail = f"; without perturbation, the loss is not finite on {_listed(culprits)}"
        named = [shown(self.examples.ids[index]) for index in indices]
        return NonFiniteError(
            f"step {state.step + 1}, examples {_listed(named)}",
            got=f"{fault}, the last of {state.non_finite} such steps in a row{detail}",
            expected="finite values; the weights are those from before",
            fix="lower training.learning_rate or the radius, or use training.precision: fp32",
        )

    def _culprits(self, indices: Sequence[int]) -> list[str]:
        """Return the examples whose plain loss, without dropout, is not finite."""
        if self.accelerator.num_processes > 1:
            return []  # sharded models can only run in step with the other processes
        found = []
        for index in indices:
            batch = self.examples.batch([index], self.port.device)
            with self.port.attack_mode("eval"), torch.no_grad():
                loss = self.port.loss(self.port.logits(batch, inner=True), batch)
            if not bool(torch.isfinite(loss).all()):
                found.append(shown(self.examples.ids[index]))
        return found


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
