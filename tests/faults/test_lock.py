"""One process at a time writes a run directory; a lock dies with its owner."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.faults import child
from textadv import runlock
from textadv.errors import BusyError, OutputExistsError
from textadv.runlock import LOCK, run_lock


@pytest.fixture
def owner(children, tmp_path):
    """A child that owns `run`; killed in the end."""
    (tmp_path / "run").mkdir()
    one = children.start(child.hold, folder=str(tmp_path / "run"))
    for _ in range(1000):
        if one.counted.exists():
            break
        time.sleep(0.01)
    yield one
    one.kill(0)


def test_a_second_process_is_refused_at_once_with_exit_code_7(children, owner, tmp_path):
    child.make_recipe(tmp_path)
    attack = ["attack", "base", "--data", "test.jsonl", "--attack", "deepwordbug"]
    evaluate = ["evaluate", "base", "--data", "test.jsonl", "--quick"]
    log = tmp_path / "said.log"
    for argv in (["train", "recipe.yaml", "--resume"], ["train", "recipe.yaml"], attack, evaluate):
        began = time.monotonic()
        one = children.run(
            child.command, argv=[*argv, "--output-dir", "run"], cwd=str(tmp_path), log=str(log),
            folder=str(tmp_path / "run"),
        )  # fmt: skip
        assert one.code == 7, log.read_text()
        assert time.monotonic() - began < 3
    said = log.read_text()
    assert said.count(f"process {owner.process.pid} on ") == 4
    assert [p.name for p in (tmp_path / "run").iterdir()] == [LOCK]


def test_the_lock_of_a_killed_process_is_taken_over(owner, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(BusyError), run_lock(folder):
        pass
    owner.kill(0)
    assert (folder / LOCK).exists()
    with run_lock(folder):
        assert f"process {os.getpid()} " in (folder / LOCK).read_text()
    assert list(folder.iterdir()) == []


def test_what_was_made_and_stayed_empty_is_removed(tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    with run_lock(deep), run_lock(deep):
        assert (deep / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with run_lock(deep):
        (deep / "kept").touch()
    assert [p.name for p in deep.iterdir()] == ["kept"]


def test_only_the_first_process_of_a_launch_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with run_lock(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(OutputExistsError, match="a file"), run_lock(tmp_path / "run"):
        pass


def test_a_lock_file_removed_by_its_last_owner_is_made_again(tmp_path, monkeypatch):
    """The owner goes between our opening of the file and our locking it."""
    flock, calls = runlock._flock, []

    def slow(descriptor: int, folder: Path) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (folder / LOCK).unlink()
        flock(descriptor, folder)

    monkeypatch.setattr(runlock, "_flock", slow)
    with run_lock(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert len(calls) == 2


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with run_lock(tmp_path / "run"):
        assert "not locked against other processes" in caplog.text
