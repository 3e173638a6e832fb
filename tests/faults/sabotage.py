"""Sabotage: deaths, full disks, signals and broken promises, put in from outside.

Nothing here is a hook in the package: audit events are heard, and functions replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

import textadv.trainer
from textadv import checkpoint


class Points:
    """Count the places at which something reaches the disk, and act at one of them."""

    def __init__(self, folder: Path, at: int, act: Callable[[], None]) -> None:
        self.folder, self.at, self.act = str(folder), at, act
        self.count = 0
        self.active = True

    def __call__(self, path: Any) -> None:
        try:
            inside = str(os.fspath(path)).startswith(self.folder)
        except TypeError:
            inside = False
        if inside and self.active:
            self.count += 1
            if self.count >= self.at:
                self.act()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count what Python itself reports: files opened for writing, renamed, removed, made."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and flags & (os.O_WRONLY | os.O_RDWR):
                self(path)
        elif event in ("os.rename", "os.mkdir"):
            self(arguments[0])
        elif event in ("os.remove", "os.rmdir") and self.act is not full:
            # Deleting works on a full disk.
            self(arguments[0])


@contextlib.contextmanager
def faults(job: dict[str, Any]) -> Iterator[None]:
    """Die or find the disk full at the N-th fault point; without a number, count them.

    `job["fault"]` is `{"kind": "die" | "full", "at": N}`. Beside what audit events tell,
    a point lies before, in the middle of and after each tensor file, text and copy, and before each
    flush to the disk.
    """
    fault = job.get("fault")
    if fault is None:
        yield
        return
    act = {"die": die, "full": full}[fault["kind"]]
    points = Points(Path(job["folder"]), fault.get("at", sys.maxsize), act)
    sys.addaudithook(points.audit)
    tear(points, checkpoint, "save_file", 1)
    tear(points, checkpoint, "save_model", 1)
    tear(points, shutil, "copyfile", 1)
    for name in ("write_text", "write_bytes"):
        tear(points, Path, name, 0)
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        points(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    os.fsync = fsync
    try:
        yield
    finally:
        points.active = False
        if "at" not in fault:
            Path(job["counted"]).write_text(str(points.count), encoding="utf-8")


def tear(points: Points, place: Any, name: str, argument: int) -> None:
    """Put points before and after a function that writes a file, and one with half of it there."""
    whole = getattr(place, name)

    def torn(*arguments: Any, **options: Any) -> Any:
        target = Path(arguments[argument])
        before = points.count
        try:
            points(target)
            if points.count != before and points.count + 1 == points.at:
                points.active = False
                whole(*arguments, **options)
                os.truncate(target, target.stat().st_size // 2)
                points.active = True
            points(target)
        except OSError as error:
            if name in ("save_file", "save_model") and error.errno == errno.ENOSPC:
                raise SafetensorError("Error while serializing: No space (os error 28)") from None
            raise
        done = whole(*arguments, **options)
        points(target)
        return done

    setattr(place, name, torn)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def limit_file_sizes(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def mount_small_disk(room: Path, size: int) -> None:
    """Mount a tmpfs that this process and its children see; OSError where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, recursive_private = 0x00020000, 0x44000
    room.mkdir(parents=True, exist_ok=True)
    for failed in (
        libc.unshare(new_mounts),
        libc.mount(b"none", b"/", None, recursive_private, None),
        libc.mount(b"tmpfs", str(room).encode(), b"tmpfs", 0, f"size={size}".encode()),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), "mount")


def signal_at(phase: str, signum: int, log: Path) -> None:
    """Send this process a signal when it is first in the named phase of a command."""
    import textadv.run
    import textadv.validation
    from textadv.attacks.scorer import Scorer
    from textadv.perturb import FGM as climb

    place, name = {
        "data": (textadv.run, "load_data"),
        "model": (textadv.run, "load_for_training"),
        "step": (textadv.trainer, "backward"),
        "inner step": (climb, "ascend"),
        "save": (checkpoint, "save_optimizer"),
        "validation": (textadv.validation, "measure"),
        "attack": (Scorer, "score"),
    }[phase]
    whole = getattr(place, name)
    calls = 0

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        # The second time, so that something has been done before; loading happens once.
        if calls == (1 if phase in ("data", "model") else 2):
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"signal at {time.monotonic()}\n")
            signal.raise_signal(signum)
        return whole(*arguments, **options)

    setattr(place, name, interrupting)


# Ways to break what makes a run safe: each must turn a test red.


def _save_in_place() -> None:
    def save(folder: Path, write: Callable[[Path], None], *, manifest: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        if manifest:
            checkpoint._write_manifest(folder)

    checkpoint.save = save  # type: ignore[assignment]


def _prune_first() -> None:
    save = checkpoint.save

    def late(folder: Path, write: Callable[[Path], None], *, manifest: bool = True) -> None:
        for old in checkpoint.folders(folder.parent):
            shutil.rmtree(old)
        save(folder, write, manifest=manifest)

    checkpoint.save = late  # type: ignore[assignment]


def _no_keyed_randomness() -> None:
    textadv.trainer.seed_everything = lambda *keys: None  # type: ignore[assignment]


def _metrics_not_restored() -> None:
    replace = checkpoint.replace

    def other_files(file: Path, write: Callable[[Path], object]) -> None:
        if file.name != "metrics.jsonl":
            replace(file, write)

    checkpoint.replace = other_files  # type: ignore[assignment]


MUTANTS: dict[str, Callable[[], None]] = {
    "save-in-place": _save_in_place,
    "prune-first": _prune_first,
    "no-keyed-randomness": _no_keyed_randomness,
    "metrics-not-restored": _metrics_not_restored,
}
