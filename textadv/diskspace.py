"""A full disk: noticed before a run where it can be, named when it happens."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from textadv.errors import DiskFullError, TextAdvError

__all__ = ["check_room", "full_disk_named"]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def full_disk_named(folder: Path, needed: int | None = None) -> Iterator[None]:
    """Turn whatever a full disk, a used-up quota or a file size limit raises into one error.

    Args:
        folder: Where the block writes.
        needed: How many bytes it writes, for the message.

    Raises:
        DiskFullError: With the bytes that are free.
    """
    try:
        yield
    except TextAdvError:
        raise
    except Exception as error:
        if _code(error) not in FULL:
            raise
        raise _error(folder, needed, "nothing that was saved before is lost; ") from error


def check_room(folder: Path, needed: int) -> None:
    """Raise `DiskFullError` if fewer than `needed` bytes are free where `folder` is."""
    if shutil.disk_usage(folder).free < needed:
        raise _error(folder, needed)


def _code(error: Exception) -> int | None:
    """Return the number of a system error; safetensors gives it in its text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _error(folder: Path, needed: int | None, note: str = "") -> DiskFullError:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    return DiskFullError(
        str(folder),
        got=f"{_megabytes(free)} free on the disk, or a quota or file size limit reached",
        expected=f"{_megabytes(needed)} for checkpoints and model" if needed else "room to write",
        fix=f"{note}free some space, then run the same command with --resume",
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
