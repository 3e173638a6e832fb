"""Checked rows of one split: texts, ids and raw labels."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textadv.data.columns import Columns
from textadv.data.raw import RawLabels
from textadv.data.readers import Table
from textadv.errors import DataError, shown

__all__ = ["MAX_TEXT_CHARACTERS", "Rows", "read_rows"]

MAX_TEXT_CHARACTERS = 1_000_000
_CHUNK_ROWS = 10_000
_CHUNK_CHARACTERS = 2**26
# Anything but white space, controls and marks that show nothing (zero width, direction).
_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split as it was read.

    Args:
        name: The source.
        texts: `(N,)` lists of one or two strings, exactly as found.
        ids: `(N,)` strings, all different.
        labels: The labels, not yet mapped.
        hashes: `(N,)` 64-bit content hashes of the texts.
        forms: `(N,)` the same of their Unicode normal form C: equal for texts that look equal
            however their accents are encoded.
        notes: What was left out.
    """

    name: str
    texts: pa.ChunkedArray
    ids: pa.ChunkedArray
    labels: RawLabels
    hashes: np.ndarray
    forms: np.ndarray
    notes: list[str]


def read_rows(table: Table, columns: Columns, *, drop_empty: bool = False) -> Rows:
    """Stream a table into Arrow chunks, checking every row.

    Args:
        table: The source.
        columns: What to read.
        drop_empty: Drop rows with an empty text; otherwise they are refused.

    Raises:
        DataError: No rows, a text that is missing, empty, not a string, too long or not Unicode, a
            missing label, or an id that occurs twice.
    """
    reader = _Reader(table, columns)
    width = len(columns.text)
    wanted = [*columns.text, columns.label, *([columns.id] if columns.id else [])]
    with closing(table.rows(wanted)) as stream:
        for row, values in enumerate(stream, start=1):
            texts = values[:width]
            reader.check(row, texts)
            if not all(map(_VISIBLE.search, texts)):
                reader.empty.append(row)
                continue
            reader.append(row, texts, values[width], values[width + 1] if columns.id else None)
    return reader.finish(drop_empty)


class _Reader:
    def __init__(self, table: Table, columns: Columns) -> None:
        self.table, self.columns = table, columns
        self.labels = RawLabels(f"{table.name}, column {shown(columns.label)},")
        self.hashes: array[int] = array("Q")
        self.forms: array[int] = array("Q")
        self.empty: array[int] = array("q")
        self.texts: list[list[str]] = []
        self.ids: list[str | None] = []
        self.text_chunks: list[pa.Array] = []
        self.id_chunks: list[pa.Array] = []
        self.characters = 0

    def check(self, row: int, texts: Sequence[Any]) -> None:
        for column, text in zip(self.columns.text, texts, strict=True):
            if type(text) is str and len(text) <= MAX_TEXT_CHARACTERS:
                continue
            where = f"{self.table.name} row {row}, column {shown(column)}"
            if not isinstance(text, str):
                got = "nothing (null)" if text is None else f"{type(text).__name__} {shown(text)}"
                raise DataError(where, got=got, expected="text", fix="clean or drop the row")
            raise DataError(
                where,
                got=f"{len(text):,} characters",
                expected=f"at most {MAX_TEXT_CHARACTERS:,}",
                fix="cut the text or split it into several rows",
            )

    def append(self, row: int, texts: list[str], label: object, identifier: object) -> None:
        self.hashes.append(self._hash(row, texts))
        normal = [unicodedata.normalize("NFC", text) for text in texts]
        self.forms.append(self.hashes[-1] if normal == texts else self._hash(row, normal))
        self.labels.append(label, row)
        self.ids.append(None if identifier in (None, "") else self._id(row, identifier))
        self.texts.append(texts)
        self.characters += sum(map(len, texts))
        if len(self.texts) >= _CHUNK_ROWS or self.characters >= _CHUNK_CHARACTERS:
            self.flush()

    def _hash(self, row: int, texts: Sequence[str]) -> int:
        try:
            parts = [text.encode() for text in texts]
        except UnicodeEncodeError as error:
            column = self.columns.text[texts.index(error.object)]
            raise DataError(
                f"{self.table.name} row {row}, column {shown(column)}",
                got=f"lone surrogate U+{ord(error.object[error.start]):04X} at character "
                f"{error.start}",
                expected="whole Unicode characters",
                fix="write the file again with a UTF-8 encoder",
            ) from None
        message = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "big")

    def _id(self, row: int, value: object) -> str:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            name = str(value)
            if name.isascii() or name.encode(errors="ignore").decode() == name:
                return name
        raise DataError(
            f"{self.table.name} row {row}, column {shown(self.columns.id)}",
            got=f"{type(value).__name__} {shown(value)}",
            expected="a string of whole characters, or a number, as id",
        )

    def flush(self) -> None:
        if self.texts:
            self.text_chunks.append(pa.array(self.texts, type=pa.list_(pa.string())))
            self.id_chunks.append(pa.array(self.ids, type=pa.string()))
            self.texts, self.ids, self.characters = [], [], 0

    def finish(self, drop_empty: bool) -> Rows:
        self.flush()
        name = self.table.name
        if self.empty and not drop_empty:
            raise DataError(
                f"{name} row {', '.join(map(str, self.empty[:5]))}",
                got=f"an empty text in {len(self.empty)} rows",
                expected="visible characters in every text",
                fix="set data.drop_empty to true (--drop-empty), or fill them in",
            )
        if not self.text_chunks:
            found = f"0 rows with text, {len(self.empty)} empty" if self.empty else "0 rows"
            columns = shown(", ".join(self.table.columns), 200)
            raise DataError(name, got=f"{found} below the columns {columns}", expected="rows")
        notes = [*self.table.notes, *([self.columns.guessed] if self.columns.guessed else [])]
        if self.empty:
            notes.append(f"{name}: dropped {len(self.empty)} rows with an empty text")
        hashes = np.frombuffer(self.hashes, dtype=np.uint64)
        return Rows(
            name=name,
            texts=pa.chunked_array(self.text_chunks),
            ids=self._unique(pa.chunked_array(self.id_chunks), hashes),
            labels=self.labels,
            hashes=hashes,
            forms=np.frombuffer(self.forms, dtype=np.uint64),
            notes=notes,
        )

    def _unique(self, ids: pa.ChunkedArray, hashes: np.ndarray) -> pa.ChunkedArray:
        """Fill missing ids from the content, and refuse ids that occur twice."""
        if ids.null_count:
            ids = pc.coalesce(ids, pa.chunked_array(list(_content_ids(hashes))))
        counts = ids.value_counts()
        if len(counts) < len(ids):
            twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
            raise DataError(
                f"{self.table.name}, column {shown(self.columns.id)}",
                got=f"{len(twice)} ids more than once, such as "
                + ", ".join(map(shown, twice[:3].to_pylist())),
                expected="one row per id",
                fix="make the ids unique or rename the column",
            )
        return ids


def _content_ids(hashes: np.ndarray) -> Iterator[pa.Array]:
    """Yield ids that depend on the text alone; its second occurrence gets `-2`, and so on."""
    order = np.argsort(hashes, kind="stable")
    positions = np.arange(len(hashes))
    starts = np.r_[True, hashes[order][1:] != hashes[order][:-1]]
    occurrence = np.empty(len(hashes), dtype=np.int64)
    occurrence[order] = positions - np.maximum.accumulate(np.where(starts, positions, 0))
    for start in range(0, len(hashes), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        pairs = zip(hashes[chunk].tolist(), occurrence[chunk].tolist(), strict=True)
        yield pa.array([f"{value:016x}" + (f"-{k + 1}" if k else "") for value, k in pairs])
