"""Any number of processes takes the same steps as one, with one exchange of gradients each."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.processes import work
from textadv.launch import make_accelerator
from textadv.processes import exchange

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "recipes" / "accelerate"

# In float64 the sums of a step differ in their last bits only; memories are kept in float32.
TOLERANCE, KEPT = 1e-11, 1e-5


ERRORS = {
    "too short": "got no memory in the pass that exchanges gradients",
    "sharded": "got one that reads or moves weights itself, under FSDP",
}


def launch(count, folder, kinds):
    """Run the worker on `count` processes, started as the CPU configuration says."""
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(CONFIGS / "cpu.yaml"), "--num_processes", str(count)),
        *("--main_process_port", "0"),
        *("-m", "tests.processes.worker", str(folder), ",".join(kinds)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def alone(kind, name, folder):
    """Return what one process finds; nothing is sharded there."""
    if kind in ("plain", "sharded"):
        return whole(name)
    return work.run_job(kind, name, make_accelerator("fp32"), folder)


@functools.cache
def whole(name):
    return work.run_job("plain", name, make_accelerator("fp32"), None)


def assert_equal(expected, found):
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if name.startswith("exchanges"):
            continue
        tolerance = TOLERANCE if value.dtype == torch.float64 else KEPT
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def check(folder, kind, name, expected):
    found = load_file(folder / f"{kind}: {name}.safetensors")
    if "error" in found:
        message = bytes(found["error"].tolist()).decode()
        assert ERRORS[kind] in message, message
        assert kind != "sharded" or name in work.WHOLE
        return
    assert_equal(expected, found)
    if "sharded" in kind or "trainer" in kind:
        return
    # Single terms and all micro-batches but the last add up without an exchange.
    assert [int(found[f"exchanges of step {step}"]) for step in range(work.STEPS)] == [1] * 3


def test_two_processes_equal_one(tmp_path):
    launch(2, tmp_path, ["quick"])
    for kind, name in work.jobs(["quick"]):
        check(tmp_path, kind, name, alone(kind, name, tmp_path))


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """One launch of two processes and one of four, each through all cases."""
    kinds = [kind for kind in work.KINDS if kind != "adapters" or find_spec("peft")]
    folders = {}
    for count in (2, 4):
        folders[count] = tmp_path_factory.mktemp(f"processes-{count}")
        launch(count, folders[count], kinds)
    return folders


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "name"), work.jobs(work.KINDS))
def test_two_and_four_processes_equal_one(kind, name, groups, tmp_path):
    if kind == "adapters":
        pytest.importorskip("peft")
    expected = alone(kind, name, tmp_path)
    for folder in groups.values():
        check(folder, kind, name, expected)


def test_the_comparison_can_fail(monkeypatch):
    """Without the weights that make up for short micro-batches, the gradient is another."""
    expected = whole("clean")
    dealt = work.MicroBatches.__getitem__
    monkeypatch.setattr(
        work.MicroBatches,
        "__getitem__",
        lambda self, step: [(n, i, 1 / len(dealt(self, step))) for n, i, _ in dealt(self, step)],
    )
    with pytest.raises(AssertionError, match="step 1, gradient of"):
        assert_equal(expected, whole.__wrapped__("clean"))


def test_notes_of_one_process_are_its_own():
    notes = [{"norm": torch.ones(2)}, {}]
    assert exchange(notes, make_accelerator("fp32")) == notes
