"""A full disk: exit 6, the figures in the message, the last checkpoint good, and nothing else."""

from __future__ import annotations

import errno
from collections import namedtuple

import pytest
from safetensors import SafetensorError

from tests.faults import child
from tests.faults.disks import ROOM_LEFT, file_limits, full_at_points, small_disks
from tests.faults.experiments import SHORT
from textadv import diskspace
from textadv.diskspace import full_disk_named
from textadv.errors import DiskFullError


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_a_disk_full_at_every_fault_point(children, part):
    """Emulated: every later write fails with ENOSPC; deleting works, as it does on a full disk."""
    verdicts = [*full_at_points(children, every=2, offset=part)]
    assert len(verdicts) > 70
    assert [verdict.faults for verdict in verdicts] == [()] * len(verdicts)


@pytest.mark.slow
def test_a_limit_on_file_sizes(children):
    verdicts = [*file_limits(children)]
    assert len(verdicts) > 6
    for verdict in verdicts:
        assert verdict.faults == ()


@pytest.mark.slow
def test_a_small_disk(children):
    verdicts = [*small_disks(children)]
    if not verdicts:
        pytest.skip("mounting a tmpfs is not allowed here")
    assert [verdict.faults for verdict in verdicts] == [()] * len(ROOM_LEFT)


def test_a_run_that_cannot_fit_is_refused_before_it_begins(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    trainer = child.make_trainer(tmp_path / "run", "fgm", **SHORT)
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    # Three checkpoints of weights, best weights and two moments, and the model.
    needed = 3 * 4 * weights + weights
    monkeypatch.setattr(diskspace.shutil, "disk_usage", lambda folder: usage(needed - 1))
    with pytest.raises(DiskFullError, match=rf"expected {needed / 1e6:,.1f} MB") as caught:
        trainer.fit()
    assert caught.value.exit_code == 6
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(diskspace.shutil, "disk_usage", lambda folder: usage(needed))
    child.make_trainer(tmp_path / "run", "fgm", **SHORT).fit()
    trained = sum(f.stat().st_size for f in (tmp_path / "run").rglob("*") if f.is_file())
    assert 0.6 * needed < trained < 1.1 * needed


def test_what_a_checkpoint_needs_is_what_it_takes(tmp_path):
    """The estimate of the check above, against a checkpoint that was written."""
    trainer = child.make_trainer(tmp_path / "run", "fgm", max_steps=2)
    trainer.fit()
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    folder = tmp_path / "run" / "checkpoints" / "step-00000002"
    taken = sum(file.stat().st_size for file in folder.iterdir())
    assert taken == pytest.approx(3 * weights, rel=0.2)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (SafetensorError("Error while serializing: I/O error: No space (os error 28)"), True),
        (SafetensorError("Error while serializing: I/O error: (os error 2)"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("28"), False),
    ],
)
def test_which_errors_mean_a_full_disk(tmp_path, error, full):
    expected = DiskFullError if full else type(error)
    with pytest.raises(expected) as caught, full_disk_named(tmp_path):
        raise error
    assert isinstance(caught.value, DiskFullError) == full
    if full:
        assert str(tmp_path) in str(caught.value)


def test_records_on_a_full_disk_are_exit_code_6(children, tmp_path):
    """The records that fitted are used when the same command goes on."""
    child.make_recipe(tmp_path)
    argv = ["attack", "base", "--data", "test.jsonl", "--attack", "deepwordbug"]
    argv += ["--num-examples", "12", "--query-budget", "60", "--output-dir"]
    log = tmp_path / "said.log"
    job = {"cwd": str(tmp_path), "log": str(log), "folder": str(tmp_path)}
    assert children.run(child.command, argv=[*argv, "a"], limit=1500, **job).code == 6
    assert "nothing that was saved before is lost" in log.read_text()
    kept = (tmp_path / "a" / "records.jsonl").read_bytes().split(b"\n")[:-1]
    assert 0 < len(kept) < 12
    for folder in ("a", "b"):
        assert children.run(child.command, argv=[*argv, folder], **job).code == 0, log.read_text()
    left, right = ((tmp_path / one / "records.jsonl").read_bytes().split(b"\n") for one in "ab")
    assert {*kept} <= {*left}
    assert left == right
