"""LoRA adapters through PEFT: small trained matrices beside weights that stay as they are."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from textadv.errors import ConfigError, ResourceError, UnsupportedModelError, shown

__all__ = [
    "LoRAConfig",
    "adapter_base",
    "add_adapters",
    "attach",
    "bare",
    "base_options",
    "merged",
    "save_adapters",
    "trained_weights",
    "unmerged",
]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Train low-rank updates and the head; every other weight stays as it is.

    Args:
        rank: Rank r of the updates, >= 1.
        alpha: Updates are scaled by `alpha / rank`, > 0.
        dropout: Dropout on the updates' inputs, from 0 to below 1.
        targets: Names of the linear layers that get one, or `all-linear`; PEFT's choice for the
            architecture when not given.
        base: How the frozen weights are kept: `float32`; `bfloat16`, which needs bf16 precision; or
            `8bit` and `4bit` (NF4), which need bitsandbytes and a device it supports.
        merge: Write the model with the updates added in, as a plain checkpoint; otherwise the
            adapter alone, which is loaded on top of its base. Quantised bases are never merged.

    Source: Hu et al., ICLR 2022; 4bit: Dettmers et al., NeurIPS 2023.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    targets: list[str] | None = None
    base: Literal["float32", "bfloat16", "8bit", "4bit"] = "float32"
    merge: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError("rank", got=str(self.rank), expected="a whole number >= 1")
        if not self.alpha > 0:
            raise ConfigError("alpha", got=str(self.alpha), expected="a number > 0")
        if not 0 <= self.dropout < 1:
            got = str(self.dropout)
            raise ConfigError("dropout", got=got, expected="a number from 0 to below 1")
        if self.merge and self.base in ("8bit", "4bit"):
            raise ConfigError(
                "merge",
                got=f"true with base: {self.base}",
                expected="false: updates added to rounded weights would be rounded away",
                fix="set merge: false",
            )


def base_options(config: LoRAConfig | None, where: str = "model.lora") -> dict[str, Any]:
    """Return what `from_pretrained` is told about the frozen weights.

    Raises:
        ResourceError: If PEFT, or bitsandbytes for 8 and 4 bits, is missing or does not support
            this machine.
    """
    if config is None:
        return {"dtype": torch.float32}
    _require("peft", f"{where}: adapters", "peft")
    if config.base in ("float32", "bfloat16"):
        return {"dtype": getattr(torch, config.base)}
    from transformers import BitsAndBytesConfig

    _require("bitsandbytes", f"{where}.base: {config.base}", "bitsandbytes")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    import bitsandbytes

    supported = getattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    if device not in supported:
        raise ResourceError(
            f"{where}.base: {config.base}",
            got=f"bitsandbytes {bitsandbytes.__version__}, which does not run on {device}",
            expected="one of " + ", ".join(sorted(supported)),
            fix="set base: bfloat16, or float32",
        )
    how = (
        BitsAndBytesConfig(load_in_8bit=True)
        if config.base == "8bit"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        )
    )
    return {"dtype": torch.float32, "quantization_config": how, "device_map": {"": device}}


def add_adapters(model: Any, config: LoRAConfig, name: str, where: str = "model.lora") -> Any:
    """Return the model with adapters to train, its head trained whole, the rest frozen.

    What is trained is float32.

    Args:
        model: A Transformers sequence classifier.
        config: The `model.lora` block.
        name: How the base is named in recipes, so that the adapter finds it again.
        where: The block's place, for errors.

    Raises:
        ConfigError: If no layer has one of the names in `targets`.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if config.targets == ["all-linear"]:
        targets: Any = "all-linear"
    else:
        targets = config.targets
    settings = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        wrapped: Any = get_peft_model(model, settings)
    except ValueError as error:
        linear = {
            n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)
        }
        raise ConfigError(
            f"{where}.targets",
            got=shown(str(error).splitlines()[0]),
            expected="all-linear, or some of " + ", ".join(sorted(linear)),
        ) from error
    wrapped.peft_config["default"].base_model_name_or_path = name
    for parameter in wrapped.parameters():
        if parameter.requires_grad:  # PEFT leaves the head in the type of the base
            parameter.data = parameter.data.float()
    return wrapped


def bare(model: Any) -> Any:
    """Return the Transformers model itself, with or without adapters inside."""
    return model.get_base_model() if _adapted(model) else model


def trained_weights(model: Any) -> dict[str, Tensor] | None:
    """Return what of a model with adapters changes in training; None for other models."""
    if not _adapted(model):
        return None
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_adapters(model: Any, folder: Path) -> None:
    """Write adapters and head in PEFT's format, and the config that says what the outputs are."""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in
    config = copy.deepcopy(bare(model).config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # they are loaded onto the base as it is stored
    config.save_pretrained(folder)


def merged(model: Any) -> Any:
    """Return a plain float32 model with the updates added in; other models as they are."""
    if not _adapted(model):
        return model
    if _quantised(model):
        raise UnsupportedModelError("model", got="a quantised base", expected="float weights")
    return model.float().merge_and_unload()


def unmerged(model: Any) -> Any:
    """Return a model with adapters in float32, as it is when loaded; others as they are."""
    return model.float() if _adapted(model) and not _quantised(model) else model


def adapter_base(folder: Path, where: str = "model") -> str | None:
    """Return the name of the base that adapters in `folder` belong to; None if there are none.

    Raises:
        UnsupportedModelError: Another kind of adapter, or no safetensors beside it.
    """
    if not (folder / CONFIG).is_file():
        return None
    _require("peft", f"{where}: adapters", "peft")
    return str(_settings(folder, where)["base_model_name_or_path"])


def attach(base: Any, folder: Path) -> Any:
    """Return the plain model that adapters in `folder` make of their base."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()


def _settings(folder: Path, where: str) -> dict[str, Any]:
    """Return a checked `adapter_config.json`."""
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, base = settings["peft_type"], settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedModelError(
            f"{where} {shown(str(folder / CONFIG))}",
            got=type(error).__name__,
            expected="the settings of a LoRA adapter, as PEFT writes them",
        ) from error
    saved = settings.get("modules_to_save") or []
    if kind != "LORA" or settings.get("auto_mapping") or not isinstance(base, str) or not saved:
        raise UnsupportedModelError(
            f"{where} {shown(str(folder))}",
            got=shown(f"a {kind} adapter of {base}"),
            expected="a LoRA adapter that carries its head and names its base",
        )
    if not (folder / WEIGHTS).is_file():
        raise UnsupportedModelError(
            f"{where} {shown(str(folder))}", got="no weights", expected=WEIGHTS
        )
    return dict(settings)


def _adapted(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _quantised(model: Any) -> bool:
    return getattr(bare(model), "hf_quantizer", None) is not None


def _require(module: str, where: str, extra: str) -> None:
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise ResourceError(
            where, got=f"no package {module}", expected="it installed", fix=f"pip install {extra}"
        )
