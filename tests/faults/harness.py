"""Start children from a warm fork server, break them, and tell whether anything was lost."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults import child

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 60.0


class Children:
    """Run functions of `tests.faults.child` in processes of their own, with `folder` to write in.

    The fork server imports Torch and Transformers once: a child then starts in a few hundredths of
    a second, and ends with the exit code, or minus the signal, that a command would have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.faults.warm"])
        self.number = 0

    def start(self, target: Callable[[dict[str, Any]], None], **job: Any) -> Child:
        """Start a child without waiting for it."""
        self.number += 1
        stem = self.folder / f"child-{self.number}"
        job = {"log": f"{stem}.log", "counted": f"{stem}.json", **job}
        with _settings():
            process = self.context.Process(target=target, args=(job,))
            process.start()
        return Child(process=process, log=Path(job["log"]), counted=Path(job["counted"]))

    def run(self, target: Callable[[dict[str, Any]], None], **job: Any) -> Child:
        """Run a child to its end."""
        started = self.start(target, **job)
        started.wait()
        return started

    def warm(self) -> None:
        """Have the fork server import what it forks."""
        self.run(child.warm)


@dataclasses.dataclass
class Child:
    """A child process, and where it writes."""

    process: Any
    log: Path
    counted: Path

    def wait(self) -> int:
        """Return the exit code; minus the signal that killed it."""
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"a child hung: {self.said()[-2000:]}")
        return int(self.process.exitcode)

    @property
    def code(self) -> int:
        """The exit code."""
        return self.wait()

    def kill(self, after: float) -> int:
        """Kill it, as a lost machine would, `after` seconds."""
        self.process.join(after)
        self.process.kill()
        return self.wait()

    def said(self) -> str:
        """Return what it printed and logged."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Give a temporary directory, in memory where there is one: a kill does not know the disk."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="faults-", dir=place) as name:
        yield Path(name)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Let the fork server find the tests, and start nothing in it that does not survive a fork."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {
        "PYTHONPATH": path,
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with unittest.mock.patch.dict(os.environ, settings):
        yield


def contents(folder: Path) -> dict[str, str]:
    """Return what a finished run must share, bit for bit, with an uninterrupted one, by name."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found = {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (*newest.glob("*.safetensors"), folder / "model" / "model.safetensors")
    }
    found["optimizer.json"] = (newest / "optimizer.json").read_text(encoding="utf-8")
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    del state["state"]["seconds"]
    found["state.json"] = json.dumps(state, sort_keys=True)
    for file in (folder / "metrics.jsonl", newest / "metrics.jsonl"):
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        found[f"{file.parent.name}/metrics"] = json.dumps(timeless)
    # Directories are named after the run or the step; only the latter must agree.
    return {name.replace(f"{folder.name}/", ""): value for name, value in found.items()}


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return the names of what is not the same."""
    return [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a run that was killed once and resumed.

    Args:
        killed: Whether the kill came before the end.
        in_save: Whether it came while a checkpoint was being written.
        faults: Everything that was lost or differs; empty for a run that survived.
    """

    killed: bool
    in_save: bool
    faults: tuple[str, ...]


def killed_and_resumed(
    children: Children,
    folder: Path,
    expected: dict[str, str],
    stop: Callable[[Child], int],
    *,
    mutant: str | None = None,
    fault: dict[str, Any] | None = None,
    **job: Any,
) -> Verdict:
    """Run until `stop` has ended the child, run again to the end, and compare with `expected`."""
    first = children.start(child.train, folder=str(folder), mutant=mutant, fault=fault, **job)
    killed = stop(first) == -signal.SIGKILL
    in_save = any((folder / "checkpoints").glob(".step-*"))
    saved = max(notes(folder, "saved"), default=0)
    second = children.run(child.train, folder=str(folder), mutant=mutant, **job)
    faults = []
    if second.code != 0:
        faults.append(f"the resumed run exits {second.code}: {second.said()[-300:]}")
    else:
        began = notes(folder, "began")[-1]
        if killed and began < saved:
            faults.append(f"goes on at step {began}, though step {saved} had been saved")
        faults += [f"another {name}" for name in differences(expected, contents(folder))]
    damaged = [path.name for path in folder.rglob("damaged-*")]
    if damaged:
        faults.append(f"a finished checkpoint is damaged: {', '.join(damaged)}")
    leftovers = [path.name for path in folder.rglob(".*")]
    if not faults and leftovers:
        faults.append(f"left behind: {', '.join(leftovers)}")
    shutil.rmtree(folder)
    return Verdict(killed, in_save, tuple(faults))


def notes(folder: Path, event: str) -> list[int]:
    """Return the steps at which something happened in the runs of a directory."""
    diary = folder.with_name(f"{folder.name}.diary")
    lines = diary.read_text(encoding="utf-8").splitlines() if diary.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(event)]


def reference(
    children: Children, method: str, mutant: str | None = None, **job: Any
) -> tuple[dict[str, str], float]:
    """Return what an uninterrupted run leaves, and the seconds it takes."""
    folder = children.folder / f"whole-{method}-{mutant}-{children.number}"
    started = time.monotonic()
    whole = children.run(child.train, folder=str(folder), method=method, mutant=mutant, **job)
    seconds = time.monotonic() - started
    if whole.code != 0:
        raise RuntimeError(f"an uninterrupted run exits {whole.code}: {whole.said()[-1000:]}")
    found = contents(folder)
    shutil.rmtree(folder)
    return found, seconds
