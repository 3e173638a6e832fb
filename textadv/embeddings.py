"""The one place where a Transformers model meets a perturbation of its input embeddings."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from textadv import modes, parts, reuse, tokens
from textadv.errors import DataError
from textadv.hook import Hook
from textadv.losses import ProblemType, task_loss
from textadv.modes import Mode, enable_gradient_checkpointing
from textadv.sites import find_site
from textadv.tokens import OURS, Batch

__all__ = ["Batch", "EmbeddingPort", "Mode", "enable_gradient_checkpointing", "wrap"]


class EmbeddingPort:
    """Perturb the input embeddings of a sequence classifier and leave nothing behind.

    The layer is found by a probing forward: the one that is really called with the token ids, which
    is not always `model.get_input_embeddings()`. The perturbation is added by a hook that exists
    only inside `perturbed`: token ids still reach the model, and its checkpoints stay plain ones.

    Args:
        model: A Transformers sequence classifier (not wrapped in DDP).
        tokenizer: Gives the special token ids when batches carry no `special_tokens_mask`.
        forward: What to call for passes that update weights: the prepared (DDP) model.
        site: Where to perturb (see `textadv.sites.find_site`): the word embeddings by default, or
            a dotted name when the probe cannot find them.

    Attributes:
        site: Dotted name of the layer that is perturbed.
        on_words: Whether that is the word embeddings.
        dim: Width D of the site, which factorised models make smaller than `hidden_size`.
        memory: Tensors that some methods keep from step to step, by name. Save them with the
            weights to resume exactly.
        notes: What those methods will add at the end of the step, one note for each micro-batch.
        slot: Number of the running micro-batch among those of the step, on all processes.
        captured: What the encoder put out last, while something watches it.
        parts: How many texts pass through the model at once.

    Shape:
        `delta`: (B, L, D), float32, in the units of what is at the site.

    Example:
        >>> from textadv.testing import tiny_batch, tiny_model
        >>> port = EmbeddingPort(tiny_model("bert"))
        >>> batch = tiny_batch(port.model)
        >>> delta = torch.zeros_like(port.embed(batch))
        >>> torch.equal(port(batch, delta).logits, port(batch).logits)
        True
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        forward: Callable[..., Any] | None = None,
        site: str | None = None,
    ) -> None:
        self.model = model
        self.forward = forward if forward is not None else model
        self.memory: dict[str, Tensor] = {}
        self.notes: list[Mapping[str, Tensor]] = []
        self.slot = 0
        self.noted = False
        self.captured: dict[str, Tensor] = {}
        self._special_ids = tokens.special_ids(tokenizer)
        self.parts = parts.Parts(model)
        modes.keep_differentiable(model)
        self._place = find_site(model, site)
        self.site, self.dim = self._place.name, self._place.dim
        self._hook = Hook(model, self._place)
        self._siblings: dict[str, EmbeddingPort] = {"word": self}
        self.on_words = self._place.argument is None
        words = self._place if self.on_words else find_site(model)
        self._word_site, self._words_first = words.name, words.sequence_first

    def at(self, site: str) -> EmbeddingPort:
        """Return the port on the same model at another site; both share `memory`.

        `"word"` is the site that `wrap` was given: the word embeddings, unless it was told others.
        """
        if site not in self._siblings:
            port = copy.copy(self)
            port._place = find_site(self.model, site)
            port.site, port.dim = port._place.name, port._place.dim
            port._hook = Hook(self.model, port._place)
            port.noted, port.on_words = False, False
            self._siblings[site] = port
        self._siblings[site].forward = self.forward
        return self._siblings[site]

    def __call__(self, batch: Batch, delta: Tensor | None = None) -> Any:
        """Run the forward that updates weights; labels in the batch give a loss."""
        with self.perturbed(delta):
            return self.forward(**{k: v for k, v in batch.items() if k not in OURS})

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the entries of a batch that the model takes, without the labels."""
        return {k: v for k, v in batch.items() if k not in OURS and k != "labels"}

    def logits(self, batch: Batch, delta: Tensor | None = None, *, inner: bool = False) -> Tensor:
        """Return logits (B, C) without computing the model's own loss.

        Args:
            batch: Tokenised texts.
            delta: Perturbation (B, L, D), or None.
            inner: Whether this is an attack pass, which runs on the bare model so that no process
                waits for another.
        """
        call, inputs = self.model if inner else self.forward, self.inputs(batch)

        def run() -> Tensor:
            rows = self.parts.rows(len(batch["input_ids"]))
            if len(rows) > 1:
                return self._logits_in_parts(call, inputs, delta, rows)
            with self.perturbed(delta):
                return cast(Tensor, call(**inputs).logits)

        return run() if torch.is_grad_enabled() else self.parts.fitting(run)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the task loss of every example, (B,)."""
        if "labels" not in batch:
            expected = "gold labels to attack or train on"
            raise DataError("batch", got="no 'labels'", expected=expected)
        labels = batch["labels"]
        return task_loss(logits, labels, self.problem_type(labels))

    def problem_type(self, labels: Tensor | None = None) -> ProblemType:
        """Return what the head predicts: the config's word, else what the labels look like."""
        config = self.model.config
        if config.problem_type is not None:
            return cast(ProblemType, config.problem_type)
        if config.num_labels == 1:
            return "regression"
        if labels is not None and labels.is_floating_point():
            return "multi_label_classification"
        return "single_label_classification"

    def embed(self, batch: Batch) -> Tensor:
        """Return what is at the site without a perturbation, (B, L, D), detached."""
        place = self._place
        if place.argument is None:
            ids = batch["input_ids"].T if place.sequence_first else batch["input_ids"]
            with torch.no_grad():
                found = cast(Tensor, self._hook.layer(ids)).detach()
            return found.transpose(0, 1) if place.sequence_first else found
        with self.attack_mode("eval"), torch.no_grad():
            found = reuse.read_input(
                self._hook.layer, place, lambda: self.logits(batch, inner=True)
            )
        return found.transpose(0, 1) if place.sequence_first else found

    def words(self, ids: Tensor) -> Tensor:
        """Return the word embeddings of any ids (B, N), as (B, N, D)."""
        layer = self.model.get_submodule(self._word_site)
        if self._words_first:
            return cast(Tensor, layer(ids.T)).transpose(0, 1)
        return cast(Tensor, layer(ids))

    def blank(self, batch: Batch) -> Tensor:
        """Return zeros in the shape of `delta`, (B, L, D), in float32 or wider."""
        wide = next(self.model.parameters()).dtype == torch.float64
        dtype = torch.float64 if wide else torch.float32
        ids = batch["input_ids"]
        return torch.zeros((*ids.shape, self.dim), dtype=dtype, device=ids.device)

    def editable(self, batch: Batch) -> Tensor:
        """Return which tokens may be perturbed, bool (B, L): neither padding nor special tokens.

        A `perturb_mask` in the batch overrides everything but padding.

        Raises:
            DataError: If the batch has no `special_tokens_mask` and no tokenizer was given: ids
                alone do not tell a padding token from an end-of-text token.
        """
        return tokens.editable(batch, self._special_ids)

    def perturbed(self, delta: Tensor | None) -> contextlib.AbstractContextManager[None]:
        """Add `delta` to the embeddings of the one forward that runs inside.

        Raises:
            RuntimeError: If it is entered twice.
            UnsupportedModelError: If the layer did not fire exactly once.
        """
        return self._hook.adding(delta)

    def attached(self) -> contextlib.AbstractContextManager[None]:
        """Keep the hook registered, so that a compiled model is not traced again for every pass."""
        return self._hook.attached()

    def attack_mode(
        self, mode: Mode = "eval"
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Prepare the model for passes that only need the gradient of `delta`.

        Parameters are frozen, `mode` sets dropout, and everything returns to what it was.

        Yields:
            A function that rewinds the random state to the entry of the context: called before each
            pass, every pass sees the same dropout masks.
        """
        return modes.attack_mode(self.model, self.device, mode)

    def cached_prefix(self) -> contextlib.AbstractContextManager[None]:
        """Run what is before the site once for all forwards inside, which must be of one batch.

        Nothing is kept of batches that pass in parts.
        """
        if self.parts.limit is not None:
            return contextlib.nullcontext()
        return reuse.cached_prefix(self.model, self._place)

    def shared_embedding_gradient(self) -> contextlib.AbstractContextManager[None]:
        """Write the gradient of the embedding table once for all backwards inside.

        One process only: DDP waits for the table's gradient in each backward. Compiled models are
        left alone, since a hook would have them traced again, and so are batches in parts, since
        the layer's inputs would be computed again.
        """
        if reuse.compiled(self.model) or self.parts.limit is not None:
            return contextlib.nullcontext()
        return reuse.shared_output_gradient(self.model.get_submodule(self._word_site))

    def _logits_in_parts(
        self,
        call: Callable[..., Any],
        inputs: dict[str, Tensor],
        delta: Tensor | None,
        rows: list[slice],
    ) -> Tensor:
        """Return the logits, and leave `seen` and `captured` as one forward would."""
        seen: list[Tensor] = []
        captured: dict[str, list[Tensor]] = {}

        @contextlib.contextmanager
        def around(delta: Tensor | None, again: bool) -> Iterator[None]:
            before = self.seen, dict(self.captured)
            try:
                with self.perturbed(delta):
                    yield
                if not again and delta is not None:
                    seen.append(cast(Tensor, self.seen))
                for name, value in ({} if again else self.captured).items():
                    captured.setdefault(name, []).append(value)
            finally:
                self.seen = before[0]
                self.captured.clear()
                self.captured.update(before[1])

        logits = parts.run_in_parts(self.model, call, inputs, delta, rows, around)
        self.seen = torch.cat(seen) if seen else self.seen
        self.captured.update({name: torch.cat(values) for name, values in captured.items()})
        return logits

    @property
    def seen(self) -> Tensor | None:
        """What was at the site in the last pass that added a `delta`, (B, L, D)."""
        return self._hook.seen

    @seen.setter
    def seen(self, value: Tensor | None) -> None:
        self._hook.seen = value

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return cast(torch.device, next(self.model.parameters()).device)


def wrap(
    model: Any,
    tokenizer: Any = None,
    *,
    forward: Callable[..., Any] | None = None,
    site: str | None = None,
) -> EmbeddingPort:
    """Return an `EmbeddingPort` on `model`, which may be wrapped in DDP.

    Example:
        >>> from textadv.testing import tiny_model
        >>> wrap(tiny_model("bart")).site
        'model.encoder.embed_tokens'
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return EmbeddingPort(model.module, tokenizer, forward=forward or model, site=site)
    return EmbeddingPort(model, tokenizer, forward=forward, site=site)
