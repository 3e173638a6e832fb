"""Where in a model a perturbation is added: found by watching one forward, not by architecture."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from textadv.errors import ConfigError, UnsupportedModelError, unknown_name
from textadv.seeding import preserve_rng

__all__ = ["SITES", "Site", "check_site", "find_site", "probe_ids"]

# What `site` may be, beside the dotted name of a layer that is called with the token ids.
SITES = ("word", "embeddings_sum", "embeddings_normalized", "embeddings_out", "layer:k")
_LAYER = re.compile(r"layer:(-?\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """A tensor (B, L, D) inside the forward, to which `delta` is added.

    Args:
        name: Dotted name of the module.
        dim: Width D.
        sequence_first: Whether the model keeps the tensor as (L, B, D).
        argument: Place of the tensor among the module's inputs (position or name); None for the
            module's output.
        call: Which of the module's calls in one forward; shared layers have several.
        normalized: Whether `delta` counts in standard deviations of each token's vector.
        prefix: Names of the blocks that run before, one per call, then the block itself.
    """

    name: str
    dim: int
    sequence_first: bool = False
    argument: int | str | None = None
    call: int | None = None
    normalized: bool = False
    prefix: tuple[str, ...] = ()

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Return the tensor among a module's inputs."""
        place = self.argument
        return cast(Tensor, args[place] if isinstance(place, int) else kwargs[str(place)])

    def replace(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a module's inputs with the tensor replaced."""
        if isinstance(self.argument, int):
            return (*args[: self.argument], value, *args[self.argument + 1 :]), kwargs
        return args, {**kwargs, str(self.argument): value}


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of a module on hidden states, in the order of a forward."""

    name: str
    module: nn.Module
    argument: int | str
    sequence_first: bool
    dim: int


def check_site(site: str) -> None:
    """Raise `ConfigError` for a site that no model can have."""
    if site in SITES[:-1] or _LAYER.fullmatch(site) or "." in site:
        return
    raise unknown_name("site", site, SITES)


def find_site(model: Any, site: str | None = None) -> Site:
    """Run one forward without gradients and return the site of that name.

    Args:
        model: A Transformers sequence classifier.
        site: None or `"word"`: output of the layer that embeds the token ids.
            `"embeddings_sum"`: word, position and type embeddings added up, before the embedding
            LayerNorm; where there is none, what the first block reads. `"embeddings_normalized"`:
            the same, with `delta` in standard deviations of each token, which is where SiFT adds
            it. `"embeddings_out"` and `"layer:0"`: what the first block reads; `"layer:k"` what
            block k reads, negative k from the end. Anything else: the dotted name of a layer that
            is called with the token ids.

    Raises:
        UnsupportedModelError: If the model has no such place.
    """
    site = "word" if site is None else site
    if site != "word" and (site in SITES or _LAYER.fullmatch(site)):
        return _hidden_site(model, site)
    ids = probe_ids(model)
    found: list[Site] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = args[0] if args else kwargs.get("input")
            if not isinstance(given, Tensor) or not isinstance(output, Tensor):
                return
            if given.shape == ids.shape and torch.equal(given, ids):
                found.append(Site(name=name, dim=output.shape[-1]))
            elif given.shape == ids.T.shape and torch.equal(given, ids.T):
                found.append(Site(name=name, dim=output.shape[-1], sequence_first=True))

        return hook

    handles = [
        module.register_forward_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Embedding) if site == "word" else name == site)
    ]
    _probing_forward(model, ids, handles)
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__}: {'embedding layer' if site == 'word' else f'site {site!r}'}",
            got="no layer that is called with the token ids",
            expected="an nn.Embedding whose input is input_ids",
            fix="name the layer with wrap(model, site='...'), or load the model with "
            "attn_implementation='sdpa' if it packs its inputs",
        )
    return found[0]


def _hidden_site(model: Any, site: str) -> Site:
    calls = _hidden_calls(model)
    blocks = _blocks(calls)
    if not blocks:
        raise UnsupportedModelError(
            f"{type(model).__name__}: site {site!r}",
            got="no list of blocks that read hidden states",
            expected="a transformer whose blocks are in an nn.ModuleList",
            fix="use site: word",
        )
    chosen, number, match = blocks[0], 0, _LAYER.fullmatch(site)
    if match:
        number = int(match[1])
        if not -len(blocks) <= number < len(blocks):
            raise ConfigError(
                f"site {site!r}",
                got=f"a model of {len(blocks)} blocks",
                expected=f"layer:{-len(blocks)} to layer:{len(blocks) - 1}",
            )
        number %= len(blocks)
        chosen = blocks[number]
    elif site != "embeddings_out":
        before = calls[: calls.index(blocks[0])]
        norms = [c for c in before if "norm" in type(c.module).__name__.lower()]
        chosen = norms[0] if norms else chosen
    same = [call for call in calls if call.name == chosen.name]
    return Site(
        name=chosen.name,
        dim=chosen.dim,
        sequence_first=chosen.sequence_first,
        argument=chosen.argument,
        call=next(i for i, call in enumerate(same) if call is chosen),
        normalized=site == "embeddings_normalized",
        prefix=tuple(block.name for block in blocks[: number + 1]) if number else (),
    )


def _hidden_calls(model: Any) -> list[_Call]:
    """Return every call of a module on a tensor (1, L, D) or (L, 1, D) in a probing forward."""
    ids = probe_ids(model)
    layouts = {(1, ids.shape[1]): False, (ids.shape[1], 1): True}
    calls: list[_Call] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs = [*enumerate(args), *kwargs.items()]
            for argument, value in inputs:
                hidden = isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()
                if hidden and tuple(value.shape[:2]) in layouts:
                    first = layouts[tuple(value.shape[:2])]
                    calls.append(_Call(name, module, argument, first, value.shape[-1]))
                    return

        return hook

    handles = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    _probing_forward(model, ids, handles)
    return calls


def _blocks(calls: list[_Call]) -> list[_Call]:
    """Return the calls of the first list of numbered modules: the blocks, in order."""

    def parent(call: _Call) -> str | None:
        head, _, last = call.name.rpartition(".")
        return head if last.isdigit() else None

    first = next((parent(call) for call in calls if parent(call) is not None), None)
    return [call for call in calls if first is not None and parent(call) == first]


def probe_ids(model: Any) -> Tensor:
    """Return one row of distinct ordinary ids that ends as BART and T5 classifiers demand."""
    config = model.config.get_text_config()
    special = {config.pad_token_id, config.eos_token_id, config.bos_token_id}
    ordinary = [i for i in range(min(config.vocab_size, 64)) if i not in special]
    ids = [*ordinary[-5:][::-1], ordinary[0]]
    if config.eos_token_id is not None:
        eos = config.eos_token_id
        ids.append(eos[0] if isinstance(eos, list) else eos)
    return torch.tensor([ids], device=next(model.parameters()).device)


def _probing_forward(model: Any, ids: Tensor, handles: list[Any]) -> None:
    """Run one forward in eval mode without gradients, then remove the hooks."""
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
