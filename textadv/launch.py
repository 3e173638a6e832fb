"""The Accelerator of a run, and the launch lines that silently start unrelated jobs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from textadv.errors import ConfigError, LaunchError

__all__ = ["environment", "make_accelerator", "resolve_precision"]

PACKAGES = ("textadv", "torch", "transformers", "datasets", "accelerate", "evaluate")


def resolve_precision(precision: str) -> str:
    """Return the mixed precision Accelerate is told: `no`, `bf16` or `fp16`.

    `auto` takes bf16 where the hardware has matrix units for it: CUDA devices that say so, and CPUs
    with AMX tiles.

    Raises:
        ConfigError: If fp16 is asked for without an accelerator.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "training.precision", got="fp16 on a CPU", expected="auto, fp32 or bf16", fix="use auto"
        )
    if precision != "auto":
        return {"fp32": "no"}.get(precision, precision)
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "no"


def make_accelerator(
    precision: str, trackers: Sequence[str] = (), project_dir: str | Path | None = None
) -> Any:
    """Return an Accelerator that really joins all processes of the launch.

    Raises:
        LaunchError: If the launcher started several processes and they do not form one group: on a
            CPU that happens when `ACCELERATE_USE_CPU` is not set.
        ConfigError: If a tracker is not installed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched == 1 and PartialState._shared_state:
        # Accelerate keeps one precision per process; a second run may want another.
        AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(
            mixed_precision=resolve_precision(precision),
            log_with=list(trackers) or None,
            project_dir=str(project_dir) if project_dir is not None else None,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(
            "training.trackers" if trackers else "training.precision",
            got=str(error).splitlines()[0],
            expected="trackers that Accelerate knows and that are installed",
        ) from error
    if accelerator.num_processes != launched:
        raise LaunchError(
            "launch",
            got=f"{launched} processes started, {accelerator.num_processes} in this one's group",
            expected="one group: these would be unrelated jobs writing to one directory",
            fix="on CPUs: ACCELERATE_USE_CPU=true torchrun --nproc-per-node N -m textadv train ...",
        )
    return accelerator


def environment(accelerator: Any = None) -> dict[str, Any]:
    """Return what decides the numbers of a run beside its recipe."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    cuda = torch.cuda.is_available()
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else platform.machine() + " CPU",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "auto_precision": {"no": "fp32"}.get(resolve_precision("auto"), resolve_precision("auto")),
    }
    if accelerator is not None:
        found["num_processes"] = accelerator.num_processes
        found["distributed_type"] = str(accelerator.distributed_type.value)
        found["mixed_precision"] = {"no": "fp32"}.get(
            accelerator.mixed_precision, accelerator.mixed_precision
        )
    return found
