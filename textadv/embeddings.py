"""The one place where a Transformers model meets a perturbation of its input embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from textadv.errors import ConfigError, DataError, UnsupportedModelError
from textadv.losses import ProblemType, task_loss
from textadv.seeding import preserve_rng

__all__ = ["Batch", "EmbeddingPort", "Mode", "enable_gradient_checkpointing", "wrap"]

Batch = Mapping[str, Tensor]
Mode = Literal["train", "eval"]

# Entries of a batch that describe tokens to us and that no model takes.
OURS = ("special_tokens_mask", "perturb_mask")


class EmbeddingPort:
    """Perturb the input embeddings of a sequence classifier and leave nothing behind.

    The layer is found by a probing forward: it is the embedding layer that is really called with
    the token ids, which is not always `model.get_input_embeddings()`. The perturbation is added by
    a forward hook that exists only inside `perturbed`, so token ids still reach the model (position
    ids and last-token pooling need them), and checkpoints stay plain Transformers checkpoints.

    Args:
        model: A Transformers sequence classifier (not wrapped in DDP).
        tokenizer: Gives the special token ids when batches carry no `special_tokens_mask`.
        forward: What to call for passes that update weights: the prepared (DDP) model. Default
            `model`.
        site: Dotted name of the embedding layer, when the probe cannot find it.

    Attributes:
        site: Dotted name of the layer that is perturbed.
        dim: Width D of its output, which factorised models make smaller than `hidden_size`.

    Shape:
        `delta`: (B, L, D), float32, in the units of the layer's output (scaled embeddings, as in
        Gemma, are perturbed after scaling).

    Raises:
        UnsupportedModelError: If no layer is called with the token ids, or it fires other than
            once in a perturbed forward.

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
        self._special_ids = _special_ids(tokenizer)
        self._delta: Tensor | None = None
        self._fired: list[bool] = []
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self.site, self._sequence_first, self.dim = _probe(model, site)
        self._layer = model.get_submodule(self.site)

    def __call__(self, batch: Batch, delta: Tensor | None = None) -> Any:
        """Run the forward that updates weights; labels in the batch give a loss."""
        inputs = {name: value for name, value in batch.items() if name not in OURS}
        with self.perturbed(delta):
            return self.forward(**inputs)

    def logits(self, batch: Batch, delta: Tensor | None = None, *, inner: bool = False) -> Tensor:
        """Return logits (B, C) without computing the model's own loss.

        Args:
            batch: Tokenised texts.
            delta: Perturbation (B, L, D), or None.
            inner: Whether this is an attack pass, which runs on the bare model so that no process
                waits for another.
        """
        inputs = {k: v for k, v in batch.items() if k not in OURS and k != "labels"}
        with self.perturbed(delta):
            output = (self.model if inner else self.forward)(**inputs)
        return cast(Tensor, output.logits)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the task loss of every example, (B,)."""
        labels = _labels(batch)
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
        """Return the unperturbed input embeddings (B, L, D), detached."""
        with torch.no_grad():
            return cast(Tensor, self._layer(batch["input_ids"])).detach()

    def editable(self, batch: Batch) -> Tensor:
        """Return which tokens may be perturbed, bool (B, L): neither padding nor special tokens.

        A `perturb_mask` in the batch overrides everything but padding.

        Raises:
            DataError: If the batch has no `special_tokens_mask` and no tokenizer was given: ids
                alone do not tell a padding token from an end-of-text token.
        """
        ids = batch["input_ids"]
        real = batch.get("attention_mask", torch.ones_like(ids)).bool()
        if "perturb_mask" in batch:
            return real & batch["perturb_mask"].bool()
        if "special_tokens_mask" in batch:
            return real & ~batch["special_tokens_mask"].bool()
        if self._special_ids is None:
            raise DataError(
                "batch",
                got="no special_tokens_mask",
                expected="one beside input_ids",
                fix="tokenize with return_special_tokens_mask=True, or use wrap(model, tokenizer)",
            )
        return real & ~torch.isin(ids, self._special_ids.to(ids.device))

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
            self._delta, self._fired = delta, []
            try:
                yield
                fired = len(self._fired)
            finally:
                self._delta = None
        if fired != 1:
            raise UnsupportedModelError(
                f"{type(self.model).__name__}: embedding layer {self.site!r}",
                got=f"{fired} calls in one forward",
                expected="exactly 1",
                fix="name the layer that embeds the token ids: wrap(model, site='...')",
            )

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Keep the hook registered, so that a compiled model is not traced again for every pass."""
        if self._handle is not None:
            yield
            return
        self._handle = self._layer.register_forward_hook(self._add_delta)
        try:
            yield
        finally:
            self._handle.remove()
            self._handle = None

    @contextlib.contextmanager
    def attack_mode(self, mode: Mode = "eval") -> Iterator[Callable[[], None]]:
        """Prepare the model for passes that only need the gradient of `delta`.

        Parameters are frozen (no weight gradients, fewer saved activations), `mode` sets dropout,
        and the random state, the training flags and `requires_grad` return to what they were.

        Yields:
            A function that rewinds the random state to the entry of the context: called before each
            pass, every pass sees the same dropout masks.
        """
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        modules = [m for m in self.model.modules() if m.training] if mode == "eval" else []
        with preserve_rng(self.device) as rewind:
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

    @property
    def device(self) -> torch.device:
        """Device of the embedding layer."""
        return cast(torch.device, next(self._layer.parameters()).device)

    def _add_delta(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if self._delta is None:
            return None
        self._fired.append(True)
        delta = self._delta.transpose(0, 1) if self._sequence_first else self._delta
        if delta.shape != output.shape:
            raise ConfigError(
                f"delta at {self.site!r}",
                got=str(tuple(delta.shape)),
                expected=f"the shape of the embeddings {tuple(output.shape)}",
            )
        return output + delta.to(output.dtype)


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


def enable_gradient_checkpointing(model: Any) -> None:
    """Recompute activations in backward passes, in the form that allows gradients of `delta`."""
    # Transformers renamed the switch in 5.x and warns about the old name.
    switch = getattr(model, "activation_checkpointing_enable", None)
    switch = switch or model.gradient_checkpointing_enable
    switch({"use_reentrant": False})


def _labels(batch: Batch) -> Tensor:
    if "labels" not in batch:
        raise DataError("batch", got="no 'labels'", expected="gold labels to attack or train on")
    return batch["labels"]


def _special_ids(tokenizer: Any) -> Tensor | None:
    """Return the ids to leave alone; an unknown word is a word, so its id is not among them."""
    if tokenizer is None:
        return None
    return torch.tensor(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}))


def _probe_ids(model: Any) -> Tensor:
    """Return one row of distinct ordinary ids that ends as BART and T5 classifiers demand."""
    config = model.config.get_text_config()
    special = {config.pad_token_id, config.eos_token_id, config.bos_token_id}
    ordinary = [i for i in range(min(config.vocab_size, 64)) if i not in special]
    ids = [*ordinary[-5:][::-1], ordinary[0]]
    if config.eos_token_id is not None:
        eos = config.eos_token_id
        ids.append(eos[0] if isinstance(eos, list) else eos)
    return torch.tensor([ids], device=next(model.parameters()).device)


def _probe(model: Any, site: str | None) -> tuple[str, bool, int]:
    """Run one forward and return the name, layout and width of the layer that got the token ids."""
    ids = _probe_ids(model)
    found: list[tuple[str, bool, int]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = args[0] if args else kwargs.get("input")
            if not isinstance(given, Tensor) or not isinstance(output, Tensor):
                return
            if given.shape == ids.shape and torch.equal(given, ids):
                found.append((name, False, output.shape[-1]))
            elif given.shape == ids.T.shape and torch.equal(given, ids.T):
                found.append((name, True, output.shape[-1]))

        return hook

    watched = [
        (name, module)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Embedding) if site is None else name == site)
    ]
    handles = [m.register_forward_hook(watch(n), with_kwargs=True) for n, m in watched]
    modules = [m for m in model.modules() if m.training]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad(), preserve_rng(ids.device):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
        for module in modules:
            module.training = True
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__}: {'embedding layer' if site is None else f'site {site!r}'}",
            got="no layer that is called with the token ids",
            expected="an nn.Embedding whose input is input_ids",
            fix="name the layer with wrap(model, site='...'), or load the model with "
            "attn_implementation='sdpa' if it packs its inputs",
        )
    return found[0]
