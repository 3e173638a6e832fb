"""Loading fine-tuned classifiers: whole ones, and adapters on top of their base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from textadv import adapters, models
from textadv.errors import UnsupportedModelError, shown

__all__ = ["load_trained"]


def load_trained(
    path_or_id: str | Path, *, revision: str | None = None, dtype: torch.dtype | str = "float32"
) -> tuple[Any, Any]:
    """Return a fine-tuned classifier and its tokenizer, from safetensors only.

    A directory with LoRA adapters gives their base with the updates added in.

    Raises:
        UnsupportedModelError: No safetensors weights, no such model, no trained head, or weights
            with NaN.
        ResourceError: If adapters are to be loaded and PEFT is missing.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    name = models.resolve_name(str(path_or_id))
    config = models.load_config(name, revision)
    base = adapters.adapter_base(Path(name), f"model {shown(name)}")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    source, other = name, dict(options)
    if base is not None:
        source, other = models.resolve_name(base), {"trust_remote_code": False}
        models.check_files(source, f"model {shown(name)}: its base")
        other["ignore_mismatched_sizes"] = True  # the head comes with the adapters
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **other,
        )
        if base is not None:
            model = adapters.attach(model, Path(name))
    except Exception as error:
        raise models.unreadable(name, error) from error
    if base is None and (missing := sorted(loading["missing_keys"])):
        raise UnsupportedModelError(
            f"model {shown(name)}",
            got=f"weights without {shown(missing[0])}",
            expected="a fine-tuned classifier, head included",
            fix="fine-tune it first: a random head has no accuracy to attack",
        )
    models.check_finite(model)
    return model, tokenizer
