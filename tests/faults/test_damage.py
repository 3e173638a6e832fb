"""Damage to any file of a checkpoint is found, set aside, and repaired from the one before."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from pathlib import Path

import pytest

from tests.faults.child import make_trainer
from tests.faults.experiments import (
    DAMAGED,
    FILES,
    damages,
    finished_run,
    put,
    resumed_after,
    undetected,
)
from tests.faults.harness import contents, differences
from tests.test_trainer import StopAt
from textadv import checkpoint, cli
from textadv.errors import CheckpointError
from textadv.interrupts import Interrupted

NEWEST = "step-00000006"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = finished_run(tmp_path_factory.mktemp("damage") / "run")
    names = [path.name for path in checkpoint.folders(folder / "checkpoints")]
    assert names == ["step-00000004", NEWEST]
    return folder


def test_every_file_is_in_the_table(finished):
    found = {path.name for path in (finished / "checkpoints").glob("step-*/*")}
    assert sorted(found) == list(FILES)


@pytest.mark.parametrize("file", FILES)
def test_all_damage_is_found(finished, tmp_path, file):
    """Missing, empty, cut at ten places, one bit flipped at fifty."""
    assert undetected(finished, tmp_path / "checkpoints", file) == []


@pytest.mark.parametrize("file", FILES)
def test_damage_is_named(finished, tmp_path, file, caplog):
    parent = tmp_path / "checkpoints"
    shutil.copytree(finished / "checkpoints", parent)
    damaged = next(p for p in checkpoint.folders(parent) if (p / file).exists())
    for newer in checkpoint.folders(parent):
        if newer > damaged:
            shutil.rmtree(newer)
    put(damaged / file, damages((damaged / file).read_bytes())["cut 0"])
    with caplog.at_level(logging.WARNING), contextlib.suppress(CheckpointError):
        checkpoint.latest(parent)
    assert f"{damaged} is damaged ({file}" in caplog.text
    assert f"set aside as damaged-{damaged.name}" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "empty", "cut 0", "flipped 0"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_run_ends_as_if_it_had_not_been(finished, tmp_path, file, damage):
    target = finished / "checkpoints" / NEWEST / file
    if not target.exists():
        pytest.skip("the newest weights are the best: there is no such file")
    content = damages(target.read_bytes())[damage]
    assert resumed_after(finished, tmp_path / "run", file, content) == []
    assert (tmp_path / "run" / "checkpoints" / f"damaged-{NEWEST}").is_dir()


def test_the_test_above_can_fail(finished, tmp_path, monkeypatch):
    """Without the manifest check, a flipped bit goes into the result."""
    content = bytearray((finished / "checkpoints" / NEWEST / "model.safetensors").read_bytes())
    content[-2] ^= 1
    assert resumed_after(finished, tmp_path / "a", "model.safetensors", bytes(content)) == []
    monkeypatch.setattr(checkpoint, "_fault", lambda folder: None)
    assert resumed_after(finished, tmp_path / "b", "model.safetensors", bytes(content)) != []


def test_metrics_outside_a_checkpoint_are_restored_from_it(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "metrics.jsonl").write_bytes(b"\xff not a row")
    (folder / "checkpoints" / "best.safetensors").unlink()
    make_trainer(folder, "fat", **DAMAGED).fit(resume=True)
    assert differences(contents(finished), contents(folder)) == []


def test_another_machine_is_named_and_a_damaged_note_of_it_is_no_obstacle(
    finished, tmp_path, caplog
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    note = folder / "env.json"
    for content, said in (
        (note.read_text().replace('"threads": 1', '"threads": 7'), "threads 1 instead of 7"),
        ('{"threads"', "env.json"),
    ):
        caplog.clear()
        note.write_text(content)
        with caplog.at_level(logging.WARNING):
            make_trainer(folder, "fat", **DAMAGED).fit(resume=True)
        assert said in caplog.text


def test_no_checkpoint_left_is_exit_code_4_again_and_again(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for newest in checkpoint.folders(folder / "checkpoints"):
        (newest / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="2 checkpoints, all damaged") as caught:
            make_trainer(folder, "fat", **DAMAGED).fit(resume=True)
        assert caught.value.exit_code == 4


def test_resuming_nothing_is_exit_code_4(tmp_path, capsys):
    code = cli.main(["train", "sst2-fgm", "--resume", "--output-dir", str(tmp_path / "none")])
    assert (code, (tmp_path / "none").exists()) == (4, False)
    assert "leave --resume out" in capsys.readouterr().err


def test_what_a_killed_save_left_is_cleared_or_put_back(finished, tmp_path):
    parent = tmp_path / "checkpoints"
    shutil.copytree(finished / "checkpoints", parent)
    newest = parent / NEWEST
    shutil.copytree(newest, parent / ".step-00000008.tmp")
    (parent / ".step-00000002.gone").mkdir()
    newest.rename(parent / ".step-00000006.old")
    assert checkpoint.latest(parent) == newest
    assert not list(parent.glob(".step-*"))


def test_what_a_killed_writer_of_a_file_left_is_cleared_with_it(tmp_path):
    """Safetensors writes to a hidden file of another name beside the one asked for."""
    file = tmp_path / "best.safetensors"

    def killed(aside):
        aside.with_name(".tmpAb12cd").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.replace(file, killed)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".best.safetensors.tmp").mkdir()
    (tmp_path / ".best.safetensors.tmp" / ".tmpAb12cd").write_text("half")
    checkpoint.replace(file, lambda aside: aside.write_text("whole"))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "whole"


@pytest.mark.parametrize(("name", "failing"), [("rename", 1), ("rename", 2), ("replace", 1)])
def test_a_failed_change_of_names_leaves_what_was_there(tmp_path, monkeypatch, name, failing):
    """A directory needs room for a name too."""
    folder, file = tmp_path / "step-00000001", tmp_path / "note.txt"

    def put_both(text):
        checkpoint.save(folder, lambda staging: (staging / "a").write_text(text) and None)
        checkpoint.write_text(file, text)

    put_both("before")
    change, calls = getattr(Path, name), []

    def full(path, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return change(path, target)

    monkeypatch.setattr(Path, name, full)
    with pytest.raises(OSError, match="No space"):
        put_both("after")
    assert (folder / "a").read_text() == ("before" if name == "rename" else "after")
    assert file.read_text() == "before"
    assert checkpoint._fault(folder) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.txt", folder.name]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A missing flush survives a killed process, but not a power cut: watch the order instead."""
    events = []
    sync, rename = checkpoint._sync, type(tmp_path).rename

    def renamed(path, target):
        events.append(("rename", path.name, target.name))
        return rename(path, target)

    monkeypatch.setattr(checkpoint, "_sync", lambda p: (events.append(("sync", p.name)), sync(p)))
    monkeypatch.setattr(type(tmp_path), "rename", renamed)
    with pytest.raises(Interrupted):  # whatever stops it after the first save
        make_trainer(tmp_path / "run", "fat", callback=StopAt(3, Interrupted(15)), **DAMAGED).fit()
    at = events.index(("rename", ".step-00000002.tmp", "step-00000002"))
    files = {path.name for path in (tmp_path / "run/checkpoints/step-00000002").iterdir()}
    assert files <= {name for kind, name, *_ in events[:at] if kind == "sync"}
    assert events[at - 1] == ("sync", ".step-00000002.tmp")
    assert events[at + 1] == ("sync", "checkpoints")
