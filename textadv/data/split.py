"""One split with its mapped labels, and what can be said about it beside the others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from textadv.data.labels import LabelSpace
from textadv.data.rows import Rows
from textadv.data.sampling import sample, stratified_sample
from textadv.errors import DataError, shown

__all__ = ["Split", "duplicate_notes", "overlap_notes", "require_two_classes", "set_aside"]


@dataclass(frozen=True)
class Split:
    """Rows with mapped labels, and which of them are kept.

    Args:
        rows: What was read.
        encoded: `(N,)` or `(N, C)` labels from `encode_labels`.
        keep: Sorted positions of the rows that belong to the split.
    """

    rows: Rows
    encoded: np.ndarray
    keep: np.ndarray

    @classmethod
    def whole(cls, rows: Rows, encoded: np.ndarray) -> Split:
        """Keep every row."""
        return cls(rows, encoded, np.arange(len(encoded)))

    @property
    def hashes(self) -> np.ndarray:
        """Return the content hashes of the kept rows."""
        return self.rows.hashes[self.keep]

    @property
    def forms(self) -> np.ndarray:
        """Return the hashes of the kept rows in normal form C."""
        return self.rows.forms[self.keep]

    @property
    def labels(self) -> np.ndarray:
        """Return the labels of the kept rows."""
        return self.encoded[self.keep]

    def sampled(self, size: int, seed: int, key: str) -> Split:
        """Return a random subset of at most `size` rows."""
        return Split(self.rows, self.encoded, self.keep[sample(len(self.keep), size, seed, key)])

    def digest(self) -> str:
        """Return the SHA-256 of ids, texts and labels."""
        digest = hashlib.sha256(self.hashes.tobytes() + self.labels.tobytes())
        for chunk in self.rows.ids.take(pa.array(self.keep)).chunks:
            for start in range(0, len(chunk), 10_000):
                digest.update(
                    "\x00".join([*chunk[start : start + 10_000].to_pylist(), ""]).encode()
                )
        return digest.hexdigest()

    def dataset(self, fingerprint: str) -> Any:
        """Return the kept rows as a `datasets.Dataset` in memory."""
        from datasets import Dataset
        from datasets.table import InMemoryTable

        table = pa.table({"id": self.rows.ids, "text": self.rows.texts})
        if len(self.keep) < len(self.encoded):
            table = table.take(pa.array(self.keep))
        table = table.append_column("label", _label_array(self.labels))
        return Dataset(InMemoryTable(table), fingerprint=fingerprint[:32])


def _label_array(label: np.ndarray) -> pa.Array:
    if label.ndim == 1:
        return pa.array(label)
    offsets = np.arange(0, label.size + 1, label.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(label.ravel()))


def set_aside(train: Split, space: LabelSpace, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split validation rows off the training rows, every class in its share.

    A class with a single row stays in training.

    Raises:
        DataError: One side would be empty.
    """
    size = round(fraction * len(train.keep))
    stratified = space.task == "single_label"
    strata = train.labels if stratified else np.zeros(len(train.keep), np.int64)
    _, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    free = np.flatnonzero(counts[inverse] > 1)
    if not 1 <= size <= len(free) or size == len(train.keep):
        raise DataError(
            f"{train.rows.name}: data.validation_fraction",
            got=f"{fraction} of {len(train.keep)} rows",
            expected="at least one row on each side",
        )
    chosen = train.keep[free[stratified_sample(strata[free], size, seed, "validation")]]
    rest = np.setdiff1d(train.keep, chosen)
    return Split(train.rows, train.encoded, rest), Split(train.rows, train.encoded, chosen)


def require_two_classes(train: Split, space: LabelSpace) -> None:
    """Refuse training rows of which only a single class is left.

    Raises:
        DataError: All kept rows have the same class.
    """
    if space.task != "single_label":
        return
    classes = np.unique(train.labels)
    if len(classes) < 2:
        smaller = len(train.keep) < len(train.encoded)
        raise DataError(
            train.rows.name,
            got=f"a single class, {shown(space.names[classes[0]])}, in all {len(train.keep)} "
            "training rows",
            expected="two or more classes",
            fix="raise data.max_examples or lower data.validation_fraction" if smaller else "",
        )


def duplicate_notes(name: str, split: Split) -> list[str]:
    """Count texts that occur more than once, in normal form C, and those whose labels disagree."""
    labels = split.labels.reshape(len(split.keep), -1)
    texts, first, inverse = np.unique(split.forms, return_index=True, return_inverse=True)
    if len(texts) == len(labels):
        return []
    note = f"{name}: {len(labels) - len(texts)} rows repeat the text of another row"
    disagreeing = np.unique(inverse[(labels != labels[first][inverse]).any(axis=1)])
    if len(disagreeing):
        examples = split.rows.texts.take(pa.array(split.keep[first[disagreeing[:3]]])).to_pylist()
        listed = ", ".join(shown(" | ".join(example), 60) for example in examples)
        note += f", {len(disagreeing)} texts with conflicting labels, such as {listed}"
    return [note]


def overlap_notes(name: str, split: Split, train: Split, space: LabelSpace) -> list[str]:
    """Count the texts of `split` that training has seen, and name the classes it has not."""
    notes = []
    both = int(np.isin(split.forms, train.forms).sum())
    if both:
        notes.append(f"{name}: {both} of {len(split.keep)} texts also occur in train")
    if space.task == "single_label":
        unseen = np.setdiff1d(split.labels, train.labels)
        listed = ", ".join(shown(space.names[index]) for index in unseen)
        if listed:
            notes.append(f"{name}: class {listed} does not occur in train")
    return notes
