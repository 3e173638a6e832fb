"""One process at a time writes a run directory."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from textadv.errors import BusyError, shown
from textadv.files import check_writable

__all__ = ["LOCK", "run_lock"]

logger = logging.getLogger(__name__)

LOCK = ".lock"

_held: set[Path] = set()


@contextlib.contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Own a directory inside the block; made when missing, and removed after if still empty.

    The lock is an flock on `.lock`: it ends with its process however that ends, so a file left by
    a killed one is no obstacle. A process may take the same lock again inside. Of the processes of
    one launch the first takes it. Where the system or file system has no flock, nothing is locked.

    Raises:
        BusyError: Another process owns the directory.
        OutputExistsError: It is a file, or cannot be written.
    """
    folder = Path(folder)
    key = folder.resolve()
    if key in _held or int(os.environ.get("RANK", "0")) != 0:
        yield
        return
    made = _make(folder)
    try:
        descriptor = _acquire(folder)
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            with contextlib.suppress(FileNotFoundError):
                (folder / LOCK).unlink()
            os.close(descriptor)
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a directory and return what was made, deepest first."""
    check_writable(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(folder: Path) -> int:
    """Return a descriptor that holds the lock."""
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _flock(descriptor, folder)
            # Its last owner may have removed the file between our opening and our locking it.
            current = path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
        except BaseException:
            os.close(descriptor)
            raise
        if current:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)


def _flock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = shown(os.read(descriptor, 200).decode("utf-8", "replace")) or "another process"
        raise BusyError(
            str(folder),
            got=f"a directory that {owner} is writing",
            expected="one run in a directory",
            fix="wait for it to end, or choose another --output-dir",
        ) from None
    except OSError as error:
        logger.warning("%s: not locked against other processes (%s)", folder, error.strerror)
