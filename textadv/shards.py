"""Share the examples of an evaluation between processes, and gather their records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from textadv.attacks.base import Example
from textadv.attacks.records import Record, RecordFile, read_records
from textadv.checkpoint import write_text
from textadv.errors import ConfigError
from textadv.seeding import derive

__all__ = ["Processes", "collect_records", "share"]

logger = logging.getLogger(__name__)

RecordsOf = Callable[[Sequence[Example], frozenset[tuple[str, str]]], Iterable[Record]]
"""Attacks examples, leaving `(attack, id)` pairs out."""


class Processes(Protocol):
    """What is asked of Accelerate: an `Accelerator` or a `PartialState` has it."""

    num_processes: int
    process_index: int

    def wait_for_everyone(self) -> None:
        """Return when every process has called it."""
        ...


def share(examples: Sequence[Example], index: int, count: int) -> list[Example]:
    """Return one process's examples, chosen by id, so that order and neighbours do not matter."""
    return [one for one in examples if derive(0, "share", one.id) % count == index]


def collect_records(
    path: Path | None,
    header: dict[str, str],
    sample: Sequence[Example],
    records_of: RecordsOf,
    processes: Processes | None = None,
) -> list[Record]:
    """Run the attacks and return all records, appending them to a file as they come.

    When all are there the file is put in the order of the examples, so that equal runs leave equal
    files, whatever stopped them on the way.

    Of several processes each runs a share of the examples and appends to a file of its own beside
    `path`. They are brought together there at the end, and at the start where an earlier run was
    stopped, whatever its number of processes.

    Args:
        path: The records file, if any.
        header: What must be equal for records to belong together.
        sample: All examples.
        records_of: Runs the attacks.
        processes: The launch, if there is one.

    Raises:
        ConfigError: Several processes and no file.
        OutputExistsError: The file holds the records of another run.
    """
    if processes is None or processes.num_processes == 1:
        if path is None:
            return list(records_of(sample, frozenset()))
        with RecordFile(path, header) as file:
            for record in records_of(sample, file.done):
                file.append(record)
            _put_in_order(path, file.records, sample)
            return file.records
    if path is None:
        raise ConfigError("output_dir", got="None", expected="a directory to share records in")
    index, count = processes.process_index, processes.num_processes
    _gather(path, header, processes)
    done = frozenset(record.key for record in read_records(path))
    own = path.with_name(f"{path.stem}.{index}-of-{count}{path.suffix}")
    with RecordFile(own, header) as file:
        for record in records_of(share(sample, index, count), done):
            file.append(record)
    _gather(path, header, processes)
    records = read_records(path)
    if index == 0:
        _put_in_order(path, records, sample)
    processes.wait_for_everyone()
    return records


def _put_in_order(path: Path, records: Sequence[Record], sample: Sequence[Example]) -> None:
    """Replace the file in one step by one whose records are in the order of the examples."""
    place = {example.id: row for row, example in enumerate(sample)}
    ordered = sorted(records, key=lambda record: (place[record.id], record.attack))
    if ordered != list(records):
        write_text(path, "".join(record.to_line() for record in ordered))


def _gather(path: Path, header: dict[str, str], processes: Processes) -> None:
    """Move the records of all parts into the one file; the other processes wait."""
    processes.wait_for_everyone()
    if processes.process_index == 0:
        pattern = f"{path.stem}.*-of-*{path.suffix}"
        with RecordFile(path, header) as whole:
            for part in sorted(path.parent.glob(pattern)):
                known = whole.done
                with RecordFile(part, header) as file:
                    for record in file.records:
                        if record.key not in known:
                            whole.append(record)
        # Only now that the records are on the disk may the parts go.
        for left in [*path.parent.glob(pattern), *path.parent.glob(f"{pattern}.header.json")]:
            left.unlink()
    processes.wait_for_everyone()
