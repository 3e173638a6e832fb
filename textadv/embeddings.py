"""The one place where a Transformers model meets a perturbation of its input embeddings."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from textadv import modes, reuse, tokens
from textadv.errors import ConfigError, DataError, UnsupportedModelError
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
        captured: What the encoder put out last, while something watches it.
        seen: What was at the site in the last pass that added a `delta`, (B, L, D).

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
        self.seen: Tensor | None = None
        self.noted = False
        self.captured: dict[str, Tensor] = {}
        self._special_ids = tokens.special_ids(tokenizer)
        self._delta: Tensor | None = None
        self._calls, self._added = 0, 0
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._place = find_site(model, site)
        self.site, self.dim = self._place.name, self._place.dim
        self._layer = model.get_submodule(self.site)
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
            port._layer = self.model.get_submodule(port.site)
            port._handle, port.seen, port.noted = None, None, False
            port.on_words = False
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
        with self.perturbed(delta):
            output = (self.model if inner else self.forward)(**self.inputs(batch))
        return cast(Tensor, output.logits)

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
                found = cast(Tensor, self._layer(ids)).detach()
            return found.transpose(0, 1) if place.sequence_first else found
        with self.attack_mode("eval"), torch.no_grad():
            found = reuse.read_input(self._layer, place, lambda: self.logits(batch, inner=True))
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

    @contextlib.contextmanager
    def perturbed(self, delta: Tensor | None) -> Iterator[None]:
        """Add `delta` to the embeddings of the one forward that runs inside.

        Raises:
            RuntimeError: If it is entered twice.
            UnsupportedModelError: If the layer did not fire exactly once.
        """
        if self._delta is not None:
            raise RuntimeError("EmbeddingPort.perturbed is already active: it does not nest")
        if delta is None:
            yield
            return
        with self.attached():
            self._delta, self._calls, self._added = delta, 0, 0
            try:
                yield
            finally:
                self._delta = None
        if self._added != 1:
            raise UnsupportedModelError(
                f"{type(self.model).__name__}: embedding layer {self.site!r}",
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
            self._layer.register_forward_hook(self._add_to_output)
            if self._place.argument is None
            else self._layer.register_forward_pre_hook(self._add_to_input, with_kwargs=True)
        )
        try:
            yield
        finally:
            self._handle.remove()
            self._handle = None

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
        """Run what is before the site once for all forwards inside, which must be of one batch."""
        return reuse.cached_prefix(self.model, self._place)

    def shared_embedding_gradient(self) -> contextlib.AbstractContextManager[None]:
        """Write the gradient of the embedding table once for all backwards inside.

        One process only: DDP waits for the table's gradient in each backward. Compiled models are
        left alone: a hook would have them traced again.
        """
        if reuse.compiled(self.model):
            return contextlib.nullcontext()
        return reuse.shared_output_gradient(self.model.get_submodule(self._word_site))

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return cast(torch.device, next(self.model.parameters()).device)

    def _add_to_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return None if self._delta is None else self._add(output)

    def _add_to_input(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self._delta is None:
            return None
        number, self._calls = self._calls, self._calls + 1
        if number != self._place.call:
            return None
        return self._place.replace(args, kwargs, self._add(self._place.read(args, kwargs)))

    def _add(self, hidden: Tensor) -> Tensor:
        self._added += 1
        delta = cast(Tensor, self._delta)
        delta = delta.transpose(0, 1) if self._place.sequence_first else delta
        if delta.shape != hidden.shape:
            raise ConfigError(
                f"delta at {self.site!r}",
                got=str(tuple(delta.shape)),
                expected=f"the shape of the embeddings {tuple(hidden.shape)}",
            )
        seen = hidden.detach()
        self.seen = seen.transpose(0, 1) if self._place.sequence_first else seen
        delta = delta.to(hidden.dtype)
        if self._place.normalized:
            delta = delta * hidden.std(-1, keepdim=True, unbiased=False)
        return hidden + delta


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
