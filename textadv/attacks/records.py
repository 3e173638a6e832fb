"""One line per example and attack, appended to a file that survives being killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import IO, Any

from textadv.errors import BusyError, DataError, OutputExistsError, shown
from textadv.files import parse_json, path_problem, read_json
from textadv.metrics import STATUSES, Status

__all__ = ["Record", "RecordFile", "read_records"]

SYNC_SECONDS = 1.0
RECORDS = "the records behind a report"
HEADER = "what the records beside it belong to"
EVALUATION = "name the output directory of an evaluation"
ANOTHER = "choose another output directory, or delete the records"
MAX_LINE_BYTES = 64 * 2**20
_MOST = {
    **dict.fromkeys(("label", "prediction", "adversarial_prediction"), 10**6),
    **dict.fromkeys(("num_queries", "num_unique_queries"), 10**12),
    **dict.fromkeys(("num_modified_words", "num_words", "num_unread_words"), 10**9),
}


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
        found = cls(**{**values, **texts})
        _check(found)
        return found


def _columns(text: Any) -> tuple[str, ...] | None:
    if text is None:
        return None
    columns = (text,) if isinstance(text, str) else tuple(text)
    if not columns or not all(isinstance(column, str) for column in columns):
        raise ValueError("a text that is no string")
    return columns


def _check(record: Record) -> None:
    """Refuse values of another type or out of range; ValueError."""
    for name in ("id", "attack", "reason"):
        if not isinstance(getattr(record, name), str):
            raise ValueError(f"{name} is no string")
    if record.text is None or len(record.adversarial_text or record.text) != len(record.text):
        raise ValueError("texts of different columns")
    for name, most in _MOST.items():
        value = getattr(record, name)
        if value is None and name in ("prediction", "adversarial_prediction"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise ValueError(f"{name} {value!r}")


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
        OutputExistsError: Another run's file.
        BusyError: Another process is writing it.
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
        self._file: IO[bytes] = _no_link(self.path).open("a+b")
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
        # Systems and file systems without flock cannot be locked.
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    str(self.path),
                    got="a file another process is writing",
                    fix="wait for it, or choose another output directory",
                ) from error

    def _take_up(self) -> None:
        """Read what is there, check or write the header, cut off a torn last line."""
        self._file.seek(0)
        self.records, kept = _parse(self.path, self._file)
        beside = self._beside(".header.json")
        if kept:
            self._check_header(read_json(beside, HEADER, fix=ANOTHER))
        self._file.seek(kept)
        if torn := self._file.read(MAX_LINE_BYTES):
            with self._beside(".torn").open("ab") as aside:
                aside.write(torn + b"\n")
            self._file.truncate(kept)
        if not kept:
            beside.write_text(json.dumps(self.header) + "\n", encoding="utf-8")

    def _check_header(self, header: dict[str, Any]) -> None:
        if header != self.header:
            keys = sorted({*header, *self.header})
            different = [key for key in keys if header.get(key) != self.header.get(key)]
            raise OutputExistsError(
                str(self.path),
                got="records of another run (different "
                + shown(", ".join(different), 200)[1:-1]
                + ")",
                fix="choose another output directory, or delete the file",
            )

    def _beside(self, ending: str) -> Path:
        """Return a file beside the records, which must not lead out of their folder."""
        return _no_link(self.path.with_name(self.path.name + ending))


def read_records(path: str | Path) -> list[Record]:
    """Return the complete records of a file; a torn last line is left out.

    Raises:
        DataError: No regular file, or a line that is no record.
    """
    path = Path(path)
    if problem := path_problem(path):
        raise DataError(str(path), got=problem, expected=RECORDS, fix=EVALUATION)
    try:
        with path.open("rb") as file:
            return _parse(path, file)[0]
    except OSError as error:
        reason = shown(error.strerror or str(error))
        raise DataError(str(path), got=reason, expected=RECORDS, fix=EVALUATION) from None


def _no_link(path: Path) -> Path:
    """Refuse a link, which could make us write anywhere, and what is no file."""
    problem = "a link" if path.is_symlink() else path_problem(path) if path.exists() else ""
    if problem:
        raise OutputExistsError(
            str(path), got=problem, expected="a plain file, or none", fix=ANOTHER
        )
    return path


def _parse(path: Path, file: IO[bytes]) -> tuple[list[Record], int]:
    """Return the records, the first where a key comes twice, and the end of the last whole line."""
    records: dict[tuple[str, str], Record] = {}
    number = end = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE_BYTES:
                raise _damaged(path, number, line)
            break
        try:
            record = Record.from_dict(parse_json(line))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, number, line) from error
        records.setdefault(record.key, record)
        end += len(line)
    return list(records.values()), end


def _damaged(path: Path, number: int, line: bytes) -> DataError:
    return DataError(
        f"{path} line {number}",
        got=shown(line[:1000].decode("ascii", "replace")),
        expected="a record",
        fix="delete that line and start again: its example will be redone",
    )
