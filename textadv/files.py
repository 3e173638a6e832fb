"""Small files that others wrote: read whole, within a limit, or refused in one line."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from textadv.errors import DataError, OutputExistsError, TextAdvError, shown

__all__ = [
    "check_writable",
    "exists",
    "formula_safe",
    "parse_json",
    "path_problem",
    "read_json",
    "read_plain",
]

MAX_BYTES = 64 * 2**20
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*([eE][+-]?[0-9]+)?")


def exists(path: Path) -> bool:
    """Return whether something is at `path`; a name too long for any file is nowhere."""
    try:
        return path.exists()
    except OSError:
        return False


def path_problem(path: Path) -> str:
    """Say why `path` cannot be opened as a file, without opening it: a FIFO would block."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a broken link" if path.is_symlink() else "no such file"
    except (OSError, ValueError) as error:
        return f"unreadable ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(mode):
        return "a directory"
    if not stat.S_ISREG(mode):
        return "a FIFO" if stat.S_ISFIFO(mode) else "a device or socket"
    return ""


def read_plain(
    path: Path,
    expected: str,
    *,
    where: str = "",
    fix: str = "",
    limit: int = MAX_BYTES,
    error: type[TextAdvError] = DataError,
) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Args:
        path: The file.
        expected: What should be there, for errors.
        where: What errors call the file; its path by default.
        fix: What to do when it is not there.
        limit: Most bytes.
        error: The class of error to raise.

    Raises:
        TextAdvError: Not a regular file, unreadable, or too large.
    """
    where = where or str(path)
    problem = path_problem(path)
    if problem:
        raise error(where, got=problem, expected=expected, fix=fix)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise error(where, got=shown(reason), expected=expected, fix=fix) from None
    if len(content) > limit:
        raise error(where, got=f"more than {limit:,} bytes", expected=expected)
    return content


def parse_json(content: bytes | str) -> Any:
    """Return the value of a JSON text without NaN and infinity.

    Raises:
        ValueError: Not UTF-8, not JSON, nested too deep, or numbers too long or not finite.
    """
    try:
        return json.loads(content, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_json(path: Path, expected: str, *, fix: str = "") -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        DataError: Not a regular file, or not a JSON object.
    """
    content = read_plain(path, expected, fix=fix)
    try:
        value = parse_json(content)
    except ValueError as error:
        got = shown(str(error))
        raise DataError(str(path), got=got, expected=f"JSON: {expected}", fix=fix) from None
    if not isinstance(value, dict):
        raise DataError(str(path), got=f"a JSON {type(value).__name__}", expected=expected, fix=fix)
    return value


def check_writable(folder: Path) -> None:
    """Refuse an output directory that cannot be made or written, before any work is done.

    Raises:
        OutputExistsError: A file is in its place or above it, or its owner lets nobody write there.
    """
    place = folder
    try:
        while not place.exists() and not place.is_symlink() and place != place.parent:
            place = place.parent
        problem = "" if place.is_dir() else path_problem(place) or "a file"
    except (OSError, ValueError) as error:
        problem = f"unreadable ({getattr(error, 'strerror', None) or error})"
    if not problem and not os.access(place, os.W_OK | os.X_OK):
        problem = "a directory that cannot be written"
    if problem:
        raise OutputExistsError(
            str(place),
            got=problem,
            expected="a directory to write to",
            fix="choose another --output-dir",
        )


def formula_safe(cell: str) -> str:
    """Return a table cell that a spreadsheet takes for text, or for a number, and never runs.

    Source: OWASP, CSV injection: a quote before `=`, `+`, `-`, `@`, tab and carriage return.

    Example:
        >>> formula_safe("=1+1"), formula_safe("-1.5"), formula_safe("a = b")
        ("'=1+1", '-1.5', 'a = b')
    """
    starts = cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if starts and not _NUMBER.fullmatch(cell) else cell


def _no_constant(name: str) -> float:
    raise ValueError(f"the number {name}")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"a number too large: {text[:40]}")
    return number
