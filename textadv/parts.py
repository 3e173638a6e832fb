"""Pass a batch through the model in parts when memory is short, without changing what it means."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from textadv.errors import MemoryLimitError
from textadv.sharding import sharded

__all__ = ["Parts", "out_of_memory", "run_in_parts"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# What allocators say that raise a plain RuntimeError.
COMPLAINTS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")

FIX = (
    "lower data.max_length, set training.gradient_checkpointing: true, train adapters with "
    "model.lora, or take a device with more memory"
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return not isinstance(error, MemoryLimitError)
    return isinstance(error, RuntimeError) and any(text in str(error) for text in COMPLAINTS)


class Parts:
    """How many texts pass through a model at once: a whole batch, until memory runs out.

    The parts of a batch are run one after the other and their logits put together again; where
    gradients are wanted, each part is run once more in the backward pass, so that the activations
    of one part are alive at a time. What is computed from the logits sees whole batches: losses,
    random starts, memories and weight perturbations are those of the whole batch, and so is the
    gradient. Only dropout draws other masks, from the same seed.

    Args:
        model: The model; one that is sharded is not split, because all processes must take part in
            each of its forwards.
        limit: The most texts at once; None for no limit.
    """

    def __init__(self, model: nn.Module, limit: int | None = None) -> None:
        self.model, self.limit = model, limit
        self._largest, self._running = 0, False

    def rows(self, size: int) -> list[slice]:
        """Return the rows of each part of a pass over `size` texts: as few parts as fit, and even.

        Example:
            >>> Parts(nn.Identity(), limit=3).rows(5)
            [slice(0, 3, None), slice(3, 5, None)]
        """
        count = 1 if self.limit is None else -(-size // self.limit)
        wide, more = divmod(size, count)
        ends = [wide * i + min(i, more) for i in range(count + 1)]
        self._largest = max(self._largest, wide + (more > 0))
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    def limits(self, accelerator: Any) -> list[int]:
        """Return the limit of every process, 0 for none, to be stored with a checkpoint."""
        own = torch.tensor([self.limit or 0], device=accelerator.device)
        found: list[int] = accelerator.gather(own).tolist()
        return found

    def resume(self, limits: Sequence[int], accelerator: Any) -> None:
        """Begin with stored limits; with the lowest if processes are more or fewer now."""
        if len(limits) == accelerator.num_processes:
            self.limit = limits[accelerator.process_index] or None
        else:
            self.limit = min(filter(None, limits), default=None)

    def fitting(
        self,
        run: Callable[[], Result],
        *,
        undo: Callable[[], object] = lambda: None,
        where: str = "batch",
    ) -> Result:
        """Return what `run` returns, with parts of half the size whenever memory runs out.

        Inside another call, `run` is simply run: the outermost one starts again.

        Args:
            run: Run again from the beginning after a failure.
            undo: Called before that, to remove what the failed try left.
            where: What is being run, for the log and the error.

        Raises:
            MemoryLimitError: If one text at a time does not fit either.
        """
        if self._running:
            return run()
        while True:
            self._largest, self._running = 0, True
            try:
                return run()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._check(where, error)
            finally:
                self._running = False
            # Out of the except clause, where the error's frames no longer hold tensors.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            tried, self.limit = self._largest, (self._largest + 1) // 2
            logger.warning(
                "%s: out of memory with %d texts: at most %d pass through the model at once now; "
                "batch, loss and gradient stay those of the whole",
                where,
                tried,
                self.limit,
            )
            undo()

    def _check(self, where: str, error: BaseException) -> None:
        """Raise unless smaller parts may help."""
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if sharded(self.model):
            raise MemoryLimitError(
                where,
                got=f"no memory for {self._largest} texts on a sharded model ({said})",
                expected="a batch that fits on every process, which must all split alike",
                fix="lower training.batch_size and raise gradient_accumulation_steps as much",
            ) from None
        if self._largest <= 1:
            raise MemoryLimitError(
                where,
                got=f"no memory for {'one text' if self._largest else 'a batch'} ({said})",
                expected="room for the weights, their gradients and one text",
                fix=FIX,
            ) from None


def run_in_parts(
    model: Any,
    call: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    delta: Tensor | None,
    rows: Sequence[slice],
    around: Callable[[Tensor | None, bool], contextlib.AbstractContextManager[None]],
) -> Tensor:
    """Return the logits (B, C) of a forward whose rows pass one part after the other.

    Args:
        model: The bare model.
        call: What to call: the model, or one that wraps it and calls it once.
        inputs: The model's inputs, (B, L) each.
        delta: Perturbation (B, L, D), or None.
        rows: The rows of each part.
        around: Entered for each part with its `delta`, and with whether it is run again for the
            backward pass.
    """
    own = {name: model.__dict__.get(name) for name in ("forward", "_compiled_call_impl")}
    original = own["_compiled_call_impl"] or model.forward

    again = False

    def part(delta: Tensor | None, *values: Tensor) -> Tensor:
        with around(delta, again), _entries(model, own):
            logits: Tensor = original(**dict(zip(inputs, values, strict=True))).logits
        return logits

    def whole(**given: Tensor) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutput

        found = []
        for place in rows:
            values = [given[name][place] for name in inputs]
            here = None if delta is None else delta[place]
            if torch.is_grad_enabled():
                found.append(checkpoint(part, here, *values, use_reentrant=False))
            else:
                found.append(part(here, *values))
        return SequenceClassifierOutput(logits=torch.cat(found))

    with _entries(model, {"forward": whole, "_compiled_call_impl": None}):
        logits: Tensor = call(**inputs).logits
    again = True
    return logits


@contextlib.contextmanager
def _entries(model: nn.Module, entries: Mapping[str, Any]) -> Iterator[None]:
    """Replace attributes of this very module; None stands for those of its class."""
    before = {name: model.__dict__.get(name) for name in entries}

    def write(values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            model.__dict__.pop(name, None)
            if value is not None:
                model.__dict__[name] = value

    write(entries)
    try:
        yield
    finally:
        write(before)
