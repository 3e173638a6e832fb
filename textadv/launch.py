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
from textadv.seeding import preserve_rng
from textadv.sharding import keep_skeleton, spread
from textadv.sites import probe_ids

__all__ = ["check_backend", "environment", "make_accelerator", "prepare", "resolve_precision"]

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
        LaunchError: If the launcher started several processes and they do not form one group.
        ConfigError: If a tracker is not installed, or the backend is one that cannot be trained
            and resumed on.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched == 1 and PartialState._shared_state:
        # Accelerate keeps one precision per process; a second run may want another.
        AcceleratorState._reset_state(reset_partial_state=True)
    # Without a GPU, processes of a launcher only meet when they are told where they run.
    on_cpus = launched > 1 and "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    try:
        accelerator = Accelerator(
            cpu=on_cpus,
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
            fix="accelerate launch --config_file recipes/accelerate/ddp.yaml (or cpu.yaml) "
            "--num_processes N -m textadv COMMAND ...",
        )
    # Whoever is ahead must not write what others have yet to look at, such as an empty directory.
    accelerator.wait_for_everyone()
    check_backend(accelerator)
    if accelerator.distributed_type.value == "DEEPSPEED":
        raise ConfigError(
            "launch",
            got="DeepSpeed, whose optimizer does not go into checkpoints that verify",
            expected="DDP or FSDP2",
            fix="use recipes/accelerate/fsdp2.yaml, or AdversarialTrainer with DeepSpeed",
        )
    return accelerator


def check_backend(accelerator: Any, *, handles_weights: bool = False) -> None:
    """Refuse what shards weights in a way that objectives cannot work with.

    Args:
        accelerator: An `accelerate.Accelerator`.
        handles_weights: Whether the objective reads or moves weights itself.

    Raises:
        ConfigError: FSDP version 1, DeepSpeed ZeRO-3, or an objective that handles weights under
            FSDP2 or DeepSpeed.
    """
    kind = accelerator.distributed_type.value
    if kind == "FSDP" and not accelerator.is_fsdp2:
        raise ConfigError(
            "accelerate: fsdp_version",
            got="1",
            expected="2: version 1 cannot run inner passes",
            fix="set fsdp_version: 2, as recipes/accelerate/fsdp2.yaml does",
        )
    if kind == "DEEPSPEED" and accelerator.state.deepspeed_plugin.zero_stage == 3:
        raise ConfigError(
            "accelerate: zero_stage",
            got="3",
            expected="1 or 2: under ZeRO-3 gradients of perturbations are silently wrong",
            fix="use recipes/accelerate/zero2.yaml, or fsdp2.yaml to shard weights too",
        )
    if kind in ("FSDP", "DEEPSPEED") and handles_weights:
        raise ConfigError(
            "objective",
            got=f"one that reads or moves weights itself, under {kind}",
            expected="whole weights on every process (awp, sam, r4f, smart with bregman)",
            fix="use recipes/accelerate/ddp.yaml",
        )


def prepare(accelerator: Any, model: Any, optimizer: Any) -> tuple[Any, Any]:
    """Return model and optimizer as `accelerator.prepare` does, with DDP set up for objectives.

    Buffers are not sent around in every forward: processes then need not run equally many, and
    inner passes need none. Parameters that no forward uses are looked for only if there are any.
    Under FSDP2 the state that an optimizer brings along is split as the weights are.
    """
    from accelerate import DistributedDataParallelKwargs, DistributedType

    kind = accelerator.distributed_type
    saved = None
    if kind == DistributedType.FSDP:
        keep_skeleton(model)
        saved = optimizer.state_dict()
    elif kind not in (DistributedType.DEEPSPEED, DistributedType.NO):
        unused = _has_unused(model)
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    if isinstance(prepared, torch.nn.parallel.DistributedDataParallel):
        prepared.forward_sync_buffers = False
    if saved is not None:
        optimizer.load_state_dict(spread(saved, optimizer))
    return prepared, optimizer


def _has_unused(model: Any) -> bool:
    """Run one text forward and back, and return whether a trainable parameter got no gradient."""
    ids = probe_ids(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with preserve_rng(ids.device), torch.enable_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        grads = torch.autograd.grad(logits.sum(), trainable, allow_unused=True)
    return any(grad is None for grad in grads)


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
