"""Rows with all their columns, from a data set and into a new file."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textadv.cli.common import print_notes
from textadv.errors import ConfigError, DataError, OutputExistsError, shown
from textadv.files import formula_safe

if TYPE_CHECKING:
    from textadv.data.columns import Columns

__all__ = ["open_rows", "write_rows"]

Rows = Iterable[dict[str, Any]]


def open_rows(arguments: argparse.Namespace) -> tuple[Columns, list[dict[str, Any]]]:
    """Return which columns hold text and id, and every row with every column.

    The label column is guessed only where a text column has to be.
    """
    from textadv.data.columns import Columns, choose_columns
    from textadv.data.readers import open_table
    from textadv.data.sources import is_file_name, open_hub_splits

    if is_file_name(arguments.data):
        table = open_table(Path(arguments.data).expanduser(), "data")
    else:
        name, _, config = arguments.data.partition(":")
        splits = {"examples": arguments.split}
        table = open_hub_splits(name, splits, config=config or None, where="data")["examples"]
    names = list(table.columns)
    if Path(arguments.data).suffix.lower() in (".jsonl", ".ndjson", ".json"):
        # The first row may lack columns that later ones have.
        lines = Path(arguments.data).expanduser().read_text(encoding="utf-8-sig").split("\n")
        names = list(dict.fromkeys(key for line in lines if line.strip() for key in _keys(line)))
    given = arguments.text_column.split(",") if arguments.text_column else None
    if given is not None and arguments.label_column is None and set(given) <= set(names):
        label = next((one for one in names if one not in given), names[0])
        columns = choose_columns(table, text=given, label=label)
    else:
        columns = choose_columns(table, text=given, label=arguments.label_column)
    rows = [dict(zip(names, values, strict=True)) for values in table.rows(names)]
    if not rows:
        raise DataError(table.name, got="0 rows", expected="rows")
    return Columns(text=columns.text, label=columns.label, id=columns.id), rows


def _keys(line: str) -> list[str]:
    try:
        row = json.loads(line)
    except ValueError:
        return []  # the reader says which line it is, and what is wrong with it
    return list(row) if isinstance(row, dict) else []


def write_rows(path: Path, *, exact: bool = False) -> Callable[[Rows], int]:
    """Return what writes rows to a new file, whole or not at all, and counts them.

    Args:
        path: The file.
        exact: Write cells of .csv and .tsv as they are, also those a spreadsheet would run.

    Raises:
        ConfigError: An ending that is not written.
        OutputExistsError: There is something already.
    """
    from textadv.checkpoint import replace

    formats: dict[str, Callable[[Path, Rows], int]] = {
        ".jsonl": _write_jsonl,
        ".csv": lambda place, rows: _write_csv(place, rows, ",", exact),
        ".tsv": lambda place, rows: _write_csv(place, rows, "\t", exact),
        ".parquet": _write_parquet,
    }
    write_as = formats.get(path.suffix.lower())
    if write_as is None:
        expected = "a file ending in " + ", ".join(formats)
        raise ConfigError("--out", got=shown(str(path)), expected=expected)
    if path.exists():
        raise OutputExistsError(
            str(path), got="a file that is there", expected="a new one", fix="choose another --out"
        )

    def write(rows: Rows) -> int:
        counts: list[int] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, lambda aside: counts.append(write_as(aside, rows)))
        return counts[0]

    return write


def _write_jsonl(path: Path, rows: Rows) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, default=str)
            # A lone surrogate has no UTF-8, but an escape.
            clean = line.encode("utf-8", "replace").decode() == line
            file.write((line if clean else json.dumps(row, default=str)) + "\n")
            count += 1
    return count


def _write_csv(path: Path, rows: Rows, delimiter: str, exact: bool) -> int:
    count = guarded = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        for row in rows:
            if not count:
                writer.writerow(row if exact else map(formula_safe, row))
            cells = [_cell(value) for value in row.values()]
            safe = cells if exact else [formula_safe(cell) for cell in cells]
            guarded += cells != safe
            writer.writerow(safe)
            count += 1
    if guarded:
        print_notes(
            [
                f"{guarded} rows hold a cell that a spreadsheet would run; a quote stands before "
                "it now. --exact, .jsonl and .parquet keep cells as they are"
            ]
        )
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _write_parquet(path: Path, rows: Rows) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.Table.from_pylist(list(rows))
    except pyarrow.ArrowException as error:
        raise DataError(
            "rows", got=shown(str(error)), expected="one type in each column", fix="use .jsonl"
        ) from None
    pyarrow.parquet.write_table(table, path)
    return int(table.num_rows)
