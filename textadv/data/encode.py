"""The mapping of raw labels onto the ids of a fixed label space."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textadv.data.labels import LabelSpace
from textadv.data.raw import RawLabels, is_integer, is_vector, negative_label, plain
from textadv.errors import DataError, shown

__all__ = ["encode_labels"]


def encode_labels(
    raw: RawLabels, space: LabelSpace, *, hint: str = "", label_map: Mapping[str, str] | None = None
) -> np.ndarray:
    """Map raw labels onto a fixed label space.

    Names match exactly, else by case alone. Integers match names that are integers, else ids.

    Args:
        raw: The labels.
        space: Where they go.
        hint: Fix that an unknown label's error names.
        label_map: The name or id in `space` of each label as it is in the data; then nothing else
            is matched.

    Returns:
        One row per example: int64 `(N,)` ids, float64 `(N,)` scores, or float64 `(N, C)` zeros and
        ones.

    Raises:
        DataError: A label is unknown, out of range or of the wrong kind; its first row is named.
    """
    mapper = _Mapper(raw, space, hint, label_map)
    mapped = [mapper.value(position) for position in range(len(raw.values))]
    dtype = np.int64 if space.task == "single_label" else np.float64
    return np.asarray(mapped, dtype=dtype)[np.frombuffer(raw.codes, dtype=np.int64)]


class _Mapper:
    def __init__(
        self, raw: RawLabels, space: LabelSpace, hint: str, label_map: Mapping[str, str] | None
    ) -> None:
        self.raw, self.space, self.hint = raw, space, hint
        self.exact = {_normal(name): index for name, index in space.label2id.items()}
        folded = Counter(name.casefold() for name in self.exact)
        self.folded = {
            name.casefold(): index
            for name, index in self.exact.items()
            if folded[name.casefold()] == 1
        }
        # With names such as "1".."5" an integer must never be taken for an id.
        self.ints_are_names = any(is_integer(name) for name in space.names)
        self.given = None if label_map is None else self.targets(label_map)

    def targets(self, label_map: Mapping[str, str]) -> dict[str, int]:
        found = {}
        for theirs, ours in label_map.items():
            index = self.exact.get(_normal(ours))
            if index is None and is_integer(ours) and not self.ints_are_names:
                index = int(ours)
            if index is None or not 0 <= index < self.space.num_labels:
                raise DataError(
                    f"--label-map {shown(theirs)}",
                    got=shown(ours),
                    expected=f"a name or id of {shown(self.space.id2label, 200)}",
                )
            found[_normal(theirs)] = index
        return found

    def value(self, position: int) -> int | float | list[float]:
        kind, value = self.raw.kinds[position], self.raw.values[position]
        if self.space.task == "regression":
            if kind in ("int", "float"):
                return float(value)
            raise self.raw.error(position, f"label {shown(plain(value))}", "a number", self.hint)
        if self.space.task == "single_label":
            return self.id(position, kind, value)
        if kind != "list":
            raise self.raw.error(
                position,
                f"label {shown(plain(value))}",
                "a list of labels, such as [0, 2]",
                self.hint,
            )
        return self.row(position, value)

    def row(self, position: int, parts: Sequence[tuple[str, Any]]) -> list[float]:
        if is_vector(parts, self.space.num_labels) and self.vectors():
            return [float(part) for _, part in parts]
        ids = [self.id(position, kind, value) for kind, value in parts]
        return [float(index in ids) for index in range(self.space.num_labels)]

    def vectors(self) -> bool:
        """Return whether every list is a 0/1 vector: then none of them is a list of ids."""
        if not hasattr(self, "_vectors"):
            self._vectors = all(is_vector(v, self.space.num_labels) for v in self.raw.values)
        return self._vectors

    def id(self, position: int, kind: str, value: Any) -> int:
        if kind == "float" and value.is_integer():
            kind, value = "int", int(value)
        if self.given is not None:
            if str(value) in self.given:
                return self.given[str(value)]
            listed = shown(", ".join(self.given), 200)
            raise self.raw.error(
                position, f"label {shown(plain(value))}", f"a label of the map: {listed}", self.hint
            )
        if str(value) in self.exact:
            return self.exact[str(value)]
        if kind in ("name", "bool") and str(value).casefold() in self.folded:
            return self.folded[str(value).casefold()]
        if kind == "bool" and self.space.num_labels == 2:
            return int(value)
        if kind == "int" and not self.ints_are_names and 0 <= value < self.space.num_labels:
            return int(value)
        raise self.unknown(position, kind, value)

    def unknown(self, position: int, kind: str, value: Any) -> DataError:
        names = shown(self.space.id2label, 200)
        if kind == "int" and value < 0:
            return negative_label(self.raw, position, value)
        if kind == "int" and not self.ints_are_names:
            expected = f"an integer 0..{self.space.num_labels - 1}, or a name of {names}"
        else:
            expected = f"one of the labels {names}"
        found = shown(sorted({str(plain(v)) for v in self.raw.values}), 200)
        return self.raw.error(
            position, f"label {shown(plain(value))} (labels found: {found})", expected, self.hint
        )


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)
