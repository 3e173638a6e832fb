"""Launches: configurations that Accelerate reads as meant, and what is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

import textadv
from tests.batches import full_batch
from textadv.errors import ConfigError
from textadv.launch import check_backend, prepare
from textadv.objectives import OBJECTIVES, SMART, Flooding
from textadv.testing import tiny_model

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "recipes" / "accelerate"
KINDS = {
    "cpu": DistributedType.MULTI_GPU,
    "single_gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero1": DistributedType.DEEPSPEED,
    "zero2": DistributedType.DEEPSPEED,
}


def test_there_is_a_configuration_for_every_kind_of_launch():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == KINDS.keys()
    guide = (CONFIGS / "README.md").read_text()
    assert all(f"{name}.yaml" in guide for name in KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_the_configuration(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name]
    assert config.use_cpu == (name == "cpu")
    assert config.mixed_precision == "no"
    assert config.num_processes == (1 if name == "single_gpu" else 2)
    if name.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])
        assert config.deepspeed_config["gradient_accumulation_steps"] == 1


def test_the_sharding_configuration_means_what_it_says(monkeypatch):
    """What `accelerate launch` hands to its processes makes the plugin that objectives need."""
    arguments = launch_command_parser().parse_args(
        ["--config_file", str(CONFIGS / "fsdp2.yaml"), "script.py"]
    )
    arguments, _, _ = _validate_launch_command(arguments)
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith(("FSDP", "ACCELERATE")):
            monkeypatch.setenv(name, value)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is False
    assert not plugin.activation_checkpointing
    assert not plugin.cpu_ram_efficient_loading


def accelerator_of(kind, **state):
    return SimpleNamespace(
        distributed_type=kind,
        is_fsdp2=state.get("fsdp_version") == 2,
        num_processes=2,
        process_index=0,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(**state)),
    )


@pytest.mark.parametrize(
    ("accelerator", "message"),
    [
        (accelerator_of(DistributedType.FSDP, fsdp_version=1), "fsdp_version: got 1, expected 2"),
        (accelerator_of(DistributedType.DEEPSPEED, zero_stage=3), "zero_stage: got 3, expected 1"),
    ],
)
def test_what_objectives_cannot_work_with_is_refused(accelerator, message):
    with pytest.raises(ConfigError, match=message):
        check_backend(accelerator)
    model = tiny_model("bert")
    with pytest.raises(ConfigError, match=message):
        textadv.backward(textadv.Clean(), textadv.wrap(model), full_batch(model), accelerator)


@pytest.mark.parametrize(
    "accelerator",
    [
        accelerator_of(DistributedType.FSDP, fsdp_version=2),
        accelerator_of(DistributedType.DEEPSPEED, zero_stage=2),
    ],
    ids=["fsdp2", "zero2"],
)
def test_methods_that_handle_weights_need_whole_ones(accelerator):
    check_backend(accelerator)
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), full_batch(model)
    for objective in (
        *(OBJECTIVES[name]() for name in ("awp", "sam", "sam-fgm", "r4f")),
        SMART(bregman=1.0),
        Flooding(objective=OBJECTIVES["sam"]()),
    ):
        with pytest.raises(ConfigError, match=r"reads or moves weights itself.*ddp\.yaml"):
            textadv.backward(objective, port, batch, accelerator)


def test_only_models_with_unused_parameters_are_searched_for_them():
    class Recorder(SimpleNamespace):
        distributed_type = DistributedType.MULTI_CPU

        def prepare(self, *things):
            return things

    for architecture, unused in (("bert", False), ("xlnet", True), ("llama", False)):
        recorder, model = Recorder(), tiny_model(architecture).train()
        state = torch.get_rng_state()
        prepare(recorder, model, None)
        assert torch.equal(torch.get_rng_state(), state)
        assert recorder.ddp_handler.find_unused_parameters == unused
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_unrelated_jobs_stop_with_the_line_that_works(tmp_path):
    """Two jobs that were told of each other and never meet."""
    code = "from textadv.launch import make_accelerator; make_accelerator('fp32')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "2 processes started, 1 in this one's group" in done.stderr
    assert "accelerate launch --config_file" in done.stderr
