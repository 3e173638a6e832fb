"""The files of a run that a card is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textadv.errors import ConfigError, DataError, shown
from textadv.files import parse_json, path_problem, read_json, read_plain
from textadv.settings import parse_yaml

__all__ = ["FINISHED", "read_mapping", "training_length"]

FINISHED = "the directory of a finished run"
MAX_ROW_BYTES = 1_000_000


def read_mapping(path: Path, required: bool = True) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file; an optional file that does not exist is empty."""
    if not required and not path.is_symlink() and not path.exists():
        return {}
    if path.suffix == ".json":
        return read_json(path, FINISHED)
    text = read_plain(path, FINISHED).decode("utf-8", "replace")
    try:
        value = parse_yaml(text, str(path))
    except ConfigError as error:
        raise DataError(error.where, got=error.got, expected=error.expected) from None
    if not isinstance(value, dict):
        raise DataError(str(path), got=type(value).__name__, expected="a mapping")
    return value


def training_length(path: Path) -> str:
    """Say how long training took, from the last row of `metrics.jsonl`."""
    if not path.exists():
        return ""
    if problem := path_problem(path):
        raise DataError(str(path), got=problem, expected=FINISHED)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_ROW_BYTES))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        row = parse_json(last or "{}")
        steps = f"{int(row['step']):,} optimizer steps" if "step" in row else ""
        minutes = f" in {float(row['seconds']) / 60:.1f} minutes" if "seconds" in row else ""
    except (ValueError, TypeError, OverflowError):
        raise DataError(
            f"{path}, last line",
            got=shown(last.decode("utf-8", "replace")),
            expected="a JSON object with a step",
        ) from None
    return f"{steps}{minutes}." if steps else ""
