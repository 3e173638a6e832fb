"""Tables of rows from CSV, TSV, JSON lines and Parquet files, exactly as they were typed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from textadv.data.lines import MAX_LINE_BYTES, Lines, display_name
from textadv.errors import DataError, shown
from textadv.files import path_problem

__all__ = ["SUFFIXES", "Table", "open_table"]

_T = TypeVar("_T")
# Generators rather than iterators: whoever stops early can close the file behind them.
_Stream: TypeAlias = Generator[_T, None, None]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that have been opened far enough to know their columns.

    Args:
        name: What errors call the source.
        columns: Column names, all different.
        rows: Streams the rows from the start, as lists of the values of the columns asked for.
        class_names: Label names per column, where the source itself records them.
        notes: What the reader left out; filled while `rows` runs.
    """

    name: str
    columns: list[str]
    rows: Callable[[list[str]], _Stream[list[Any]]]
    class_names: Mapping[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_table(path: Path, where: str) -> Table:
    """Open a local file by its ending.

    Args:
        path: The file.
        where: Option that named the file, for errors about the path itself.

    Raises:
        DataError: Not a regular file, an unknown ending, or a damaged header or first row.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            where,
            got=shown(str(path)),
            expected="a file ending in " + ", ".join(SUFFIXES),
            fix="convert or rename the file; a Hub dataset id goes into data.name",
        )
    problem = path_problem(path)
    if problem:
        raise DataError(where, got=f"{shown(str(path))}, {problem}", expected="a readable file")
    table = SUFFIXES[suffix](path)
    repeated = sorted({name for name in table.columns if table.columns.count(name) > 1})
    if repeated:
        raise DataError(
            f"{table.name} header",
            got=f"column {', '.join(map(shown, repeated))} more than once",
            expected="different column names",
            fix="rename or delete one of them",
        )
    return table


def _csv_records(path: Path, delimiter: str, notes: list[str]) -> _Stream[list[str]]:
    """Yield the header and every record, all of equal width."""
    # The limit is process-wide, and at 131,072 characters too low for long documents.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    header: list[str] | None = None
    blank = 0
    with Lines(path) as lines:
        try:
            for cells in csv.reader(lines, delimiter=delimiter, strict=True):
                if not cells:
                    blank += 1
                    continue
                if header is not None:
                    lines.row += 1
                    _check_width(lines, cells, header)
                header = header or cells
                yield cells
        except csv.Error as error:
            lines.row += header is not None
            raise lines.error(
                f"broken quoting ({error})", "closed quotes, quotes inside doubled"
            ) from None
    if blank:
        notes.append(f"{lines.name}: skipped {blank} blank lines")


def _check_width(lines: Lines, cells: list[str], header: list[str]) -> None:
    if len(cells) != len(header):
        raise lines.error(
            f"{len(cells)} fields",
            f"{len(header)} ({shown(', '.join(header))})",
            "quote fields that contain the separator or a line break",
        )


def _open_csv(path: Path, delimiter: str = ",") -> Table:
    notes: list[str] = []
    with closing(_csv_records(path, delimiter, [])) as records:
        header = next(records, None)
    if header is None:
        raise DataError(
            display_name(path), got="0 rows (an empty file)", expected="a header and rows"
        )
    if len(header) == 1 and delimiter == "," and any(mark in header[0] for mark in ";\t"):
        raise DataError(
            f"{display_name(path)} header",
            got=f"one column {shown(header[0])}",
            expected="commas between columns",
            fix="save it with commas, or with tabs as .tsv",
        )

    def rows(wanted: list[str]) -> _Stream[list[Any]]:
        places = [header.index(name) for name in wanted]
        notes.clear()
        with closing(_csv_records(path, delimiter, notes)) as records:
            next(records)
            for cells in records:
                yield [cells[place] for place in places]

    return Table(name=display_name(path), columns=header, rows=rows, notes=notes)


def _open_tsv(path: Path) -> Table:
    return _open_csv(path, delimiter="\t")


def _json_objects(path: Path, notes: list[str]) -> _Stream[dict[str, Any]]:
    """Yield one dict per line that is not blank."""
    decode = json.JSONDecoder(object_pairs_hook=_unique_keys).decode
    blank = 0
    with Lines(path) as lines:
        for line in lines:
            if not line.strip():
                blank += 1
                continue
            lines.row += 1
            try:
                value = decode(line)
            except json.JSONDecodeError as error:
                byte = lines.offset + len(line[: error.pos].encode())
                end = "" if line.endswith("\n") else ", the file ends here"
                raise lines.error(
                    f"broken JSON at byte {byte} ({error.msg}{end})",
                    "one JSON object per line",
                    "write the file again, it was cut off" if end else "",
                ) from None
            except (ValueError, RecursionError) as error:
                raise lines.error(f"JSON that cannot be read ({error})") from None
            if not isinstance(value, dict):
                raise lines.error(
                    f"a JSON {type(value).__name__}",
                    'one JSON object per line, such as {"text": "...", "label": 1}',
                )
            yield value
    if blank:
        notes.append(f"{lines.name}: skipped {blank} blank lines")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _open_jsonl(path: Path) -> Table:
    notes: list[str] = []
    with closing(_json_objects(path, [])) as objects:
        first = next(objects, None)
    if first is None:
        raise DataError(display_name(path), got="0 rows (an empty file)", expected="JSON objects")

    def rows(wanted: list[str]) -> _Stream[list[Any]]:
        notes.clear()
        with closing(_json_objects(path, notes)) as objects:
            for row in objects:
                yield [row.get(name) for name in wanted]

    return Table(name=display_name(path), columns=list(first), rows=rows, notes=notes)


def _open_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    def failed(error: Exception) -> DataError:
        return DataError(display_name(path), got=f"broken Parquet ({shown(str(error))})")

    broken = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
    try:
        schema = pyarrow.parquet.read_schema(path)
        columns = list(schema.names)
    except broken as error:
        raise failed(error) from None

    def rows(wanted: list[str]) -> _Stream[list[Any]]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1024, columns=wanted):
                    values = [batch.column(name).to_pylist() for name in wanted]
                    yield from map(list, zip(*values, strict=True))
        except broken as error:
            raise failed(error) from None

    names = _recorded_class_names(schema.metadata or {})
    return Table(name=display_name(path), columns=columns, rows=rows, class_names=names)


def _recorded_class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the label names that `datasets` writes into a Parquet file's metadata."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        kinds = {name: kind.get("feature", kind) for name, kind in features.items()}
        return {n: list(k["names"]) for n, k in kinds.items() if k.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}


SUFFIXES: dict[str, Callable[[Path], Table]] = {
    ".csv": _open_csv,
    ".tsv": _open_tsv,
    ".jsonl": _open_jsonl,
    ".ndjson": _open_jsonl,
    ".json": _open_jsonl,
    ".parquet": _open_parquet,
}
