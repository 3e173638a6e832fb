"""One line per example and attack, appended to a file that survives being killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from textadv.errors import DataError, OutputExistsError, shown
from textadv.metrics import STATUSES, Status

__all__ = ["Record", "RecordFile", "read_records"]

SYNC_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The outcome of one attack on one example.

    Args:
        id: The example.
        attack: The name the attack ran under.
        status: `wrong_before`, `flipped`, `survived` or `unresolved`.
        reason: Why, where the status does not say: `budget` (survived because the queries ran
            out); `reduced` (survived, and the adversarial text is a shorter one that keeps the
            prediction); `no_candidates`, `replay` or `error: ...` (unresolved).
        label: The gold label.
        prediction: The class predicted for the unchanged text; None when it could not be scored.
        text: The unchanged text, one string per column.
        adversarial_text: The text that was replayed and changed the prediction.
        adversarial_prediction: The class predicted for it.
        num_queries: Texts the attack asked about, the unchanged one included, cached or not.
        num_unique_queries: Distinct texts among them.
        num_modified_words: Words replaced, inserted or deleted in the adversarial text.
        num_words: Words of the unchanged text.
        num_unread_words: Words behind the longest input of the model, which no attack may edit.
    """

    id: str
    attack: str
    status: Status
    reason: str = ""
    label: int
    prediction: int | None = None
    text: tuple[str, ...]
    adversarial_text: tuple[str, ...] | None = None
    adversarial_prediction: int | None = None
    num_queries: int = 0
    num_unique_queries: int = 0
    num_modified_words: int = 0
    num_words: int = 0
    num_unread_words: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """The `(attack, id)` pair that names the record."""
        return self.attack, self.id

    def to_line(self) -> str:
        """Return the record as one line of ASCII JSON; a text of one column is a plain string."""
        values = dataclasses.asdict(self)
        for name in ("text", "adversarial_text"):
            columns = values[name]
            values[name] = columns[0] if columns and len(columns) == 1 else columns
        return json.dumps(values, ensure_ascii=True) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """Build a record from a parsed line; ValueError or TypeError when it does not fit."""
        if values.get("status") not in STATUSES:
            raise ValueError(f"status {values.get('status')!r}")
        texts = {name: _columns(values[name]) for name in ("text", "adversarial_text")}
        return cls(**{**values, **texts})


def _columns(text: Any) -> Any:
    if text is None:
        return None
    return (text,) if isinstance(text, str) else tuple(text)


class RecordFile:
    """Append records to a JSON-lines file, and take up one that was cut off.

    `<name>.header.json` beside it states what the run is; a file made for another run is refused. A
    last line that a crash cut short is moved to `<name>.torn` and its example is done again. Every
    line reaches the operating system at once and the disk at least every second. One process
    writes at a time.

    Args:
        path: The file; made when missing.
        header: What must be equal for records to belong together, for instance a `config_hash`
            and a `data_hash`.

    Raises:
        OutputExistsError: Another run's file, or another process is writing it.
        DataError: A line before the last that is no record.

    Example:
        >>> with RecordFile(path, {"config_hash": "ab"}) as file:  # doctest: +SKIP
        ...     for record in run(attacks, victim, examples, skip=file.done):
        ...         file.append(record)
    """

    def __init__(self, path: str | Path, header: dict[str, str]) -> None:
        self.path = Path(path)
        self.header = dict(header)
        self.records: list[Record] = []
        self._synced = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = self.path.open("a+b")
        try:
            self._lock()
            self._take_up()
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> frozenset[tuple[str, str]]:
        """The `(attack, id)` pairs that are finished."""
        return frozenset(record.key for record in self.records)

    def append(self, record: Record) -> None:
        """Write one record."""
        self._write(record.to_line())
        self.records.append(record)

    def close(self) -> None:
        """Bring everything to the disk and give the file up."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        self._file.write(line.encode("ascii"))
        self._file.flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _lock(self) -> None:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputExistsError(
                    str(self.path),
                    got="a file another process is writing",
                    fix="wait for it, or choose another output directory",
                ) from error

    def _take_up(self) -> None:
        """Read what is there, cut off a torn last line, check or write the header."""
        self._file.seek(0)
        content = self._file.read()
        kept = content[: content.rfind(b"\n") + 1]
        if torn := content[len(kept) :]:
            with self.path.with_name(self.path.name + ".torn").open("ab") as aside:
                aside.write(torn + b"\n")
            self._file.truncate(len(kept))
        beside = self.path.with_name(self.path.name + ".header.json")
        if not kept:
            beside.write_text(json.dumps(self.header) + "\n", encoding="utf-8")
            return
        self.records = _parse(self.path, kept)
        try:
            header = dict(json.loads(beside.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                str(beside),
                got=shown(str(error)),
                expected="what the records beside it belong to",
                fix="choose another output directory, or delete the records",
            ) from error
        if header != self.header:
            keys = sorted({*header, *self.header})
            different = [key for key in keys if header.get(key) != self.header.get(key)]
            raise OutputExistsError(
                str(self.path),
                got="records of another run (different " + ", ".join(different) + ")",
                fix="choose another output directory, or delete the file",
            )


def read_records(path: str | Path) -> list[Record]:
    """Return the complete records of a file; a torn last line is left out."""
    content = Path(path).read_bytes()
    return _parse(Path(path), content[: content.rfind(b"\n") + 1])


def _parse(path: Path, content: bytes) -> list[Record]:
    """Read the records; the first is kept where a key comes twice."""
    lines = content.split(b"\n")[:-1]
    records: dict[tuple[str, str], Record] = {}
    for number, values in _lines(path, lines):
        try:
            record = Record.from_dict(values)
            records.setdefault(record.key, record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, number, lines[number - 1]) from error
    return list(records.values())


def _lines(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise _damaged(path, number, line) from error
        yield number, values


def _damaged(path: Path, number: int, line: bytes) -> DataError:
    return DataError(
        f"{path} line {number}",
        got=shown(line.decode("ascii", "replace")),
        expected="a record",
        fix="delete that line and start again: its example will be redone",
    )
