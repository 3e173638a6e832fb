"""Labels as they are found in a source, before they are mapped."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from textadv.errors import DataError, shown

__all__ = ["RawLabels", "is_integer", "is_vector", "negative_label", "plain"]

_INT = re.compile(r"[+-]?(0|[1-9][0-9]{0,15})")
_FLOAT = re.compile(r"[+-]?[0-9]+\.[0-9]+")
_MOST = 2**63


@dataclass
class RawLabels:
    """Labels as they were found: every different value once, and one code per row.

    Args:
        where: Source and column, for errors.
        kinds: Per value: `int`, `float`, `bool`, `name` or `list`.
        values: The different values; a list is a tuple of (kind, value).
        rows: First row of each value, from 1.
        codes: Index into `values` per kept row.
    """

    where: str
    kinds: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    codes: array[int] = field(default_factory=lambda: array("q"))
    _index: dict[tuple[str, Any], int] = field(default_factory=dict)

    def append(self, value: object, row: int) -> None:
        """Add the label of `row`.

        Raises:
            DataError: The label is missing, NaN or infinite, or no kind of label.
        """
        found = _canonical(value)
        if found is None:
            raise DataError(
                f"{self.where} row {row}",
                got="no label" if value in (None, "") else f"label {shown(value)}",
                expected="a name, an integer, a finite number, or a list of names or 0/1",
            )
        code = self._index.setdefault(found, len(self.values))
        if code == len(self.values):
            self.kinds.append(found[0])
            self.values.append(found[1])
            self.rows.append(row)
        self.codes.append(code)

    def counts(self) -> Counter[int]:
        """Return how many rows hold each value, by its position in `values`."""
        return Counter(self.codes)

    def error(self, position: int, got: str, expected: str, fix: str = "") -> DataError:
        """Build the error for one value, naming its first row."""
        return DataError(
            f"{self.where} row {self.rows[position]}", got=got, expected=expected, fix=fix
        )


def _canonical(value: Any) -> tuple[str, Any] | None:
    """Return (kind, value) so that equal labels are equal however they were written.

    Names are put in Unicode normal form C.
    """
    if isinstance(value, str):
        return _parsed(value.strip())
    if isinstance(value, bool | np.bool_):
        return "bool", bool(value)
    if isinstance(value, int | np.integer):
        return ("int", int(value)) if abs(int(value)) < _MOST else None
    if isinstance(value, float | np.floating):
        return ("float", float(value)) if math.isfinite(value) else None
    if isinstance(value, list | tuple | np.ndarray):
        if any(isinstance(part, list | tuple | np.ndarray) for part in value):
            return None
        parts = [_canonical(part) for part in value]
        scalar = all(part is not None and part[0] != "list" for part in parts)
        return ("list", tuple(parts)) if scalar else None
    return None


def _parsed(text: str) -> tuple[str, Any] | None:
    if _INT.fullmatch(text):
        return "int", int(text)
    if _FLOAT.fullmatch(text):
        return _canonical(float(text))
    if text.startswith("[") and text.endswith("]"):
        try:
            return _canonical(json.loads(text))
        except (ValueError, RecursionError):
            return "name", text
    return ("name", unicodedata.normalize("NFC", text)) if text and _whole(text) else None


def _whole(text: str) -> bool:
    """Return whether text has no lone surrogate, and so can be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Any) -> Any:
    """Return a label as its owner wrote it, for messages."""
    return [part for _, part in value] if isinstance(value, tuple) else value


def is_integer(text: str) -> bool:
    """Return whether a string is an integer in plain notation."""
    return _INT.fullmatch(text) is not None


def is_vector(parts: Any, length: int) -> bool:
    """Return whether a list label is a vector of `length` zeros and ones."""
    if not isinstance(parts, tuple) or len(parts) != length or length < 2:
        return False
    return all(kind in ("int", "float", "bool") and value in (0, 1) for kind, value in parts)


def negative_label(raw: RawLabels, position: int, value: int) -> DataError:
    """Build the error for a negative label, with what it usually means."""
    reasons = {
        -100: " (which the loss would ignore)",
        -1: " (-1 often means unlabelled)",
    }
    return raw.error(
        position,
        f"label {value}{reasons.get(value, '')}",
        "labels >= 0",
        "remove these rows or use a labelled split; if it is a class, list it in data.labels",
    )
