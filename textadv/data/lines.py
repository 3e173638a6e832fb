"""Lines of text files, decoded strictly and in bounded memory."""

from __future__ import annotations

import codecs
from pathlib import Path

from textadv.errors import DataError, shown

__all__ = ["MAX_LINE_BYTES", "Lines", "display_name"]

MAX_LINE_BYTES = 16 * 2**20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def display_name(path: Path) -> str:
    """Return the path as errors show it: escaped, and cut when it is long."""
    return shown(str(path), 200)[1:-1]


class Lines:
    """Iterate over the decoded lines of a UTF-8 file, holding one of them at a time.

    Args:
        path: A regular file.

    Attributes:
        row: The row being read, from 1; counted by the reader that knows what a row is.
        number: The line being read, from 1.
        offset: Its byte offset, behind a byte order mark.

    Raises:
        DataError: Not UTF-8, or a line longer than `MAX_LINE_BYTES`.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.row, self.number, self.offset = display_name(path), 0, 0, 0
        self._end = 0
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(self.name, got=error.strerror or str(error)) from None

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def error(self, got: str, expected: str = "", fix: str = "") -> DataError:
        """Build the error for the row that is being read."""
        place = f"{self.name} row {max(self.row, 1)} (line {self.number})"
        return DataError(place, got=got, expected=expected, fix=fix)

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        self.offset = self._end
        # One readline never takes more than this, however long the line is.
        raw = self._file.readline(MAX_LINE_BYTES + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        self._end += len(raw)
        if self.number == 1 and raw.startswith(codecs.BOM_UTF8):
            self.offset += len(codecs.BOM_UTF8)
            raw = raw[len(codecs.BOM_UTF8) :]
        return self._decode(raw)

    def _decode(self, raw: bytes) -> str:
        if len(raw) > MAX_LINE_BYTES:
            raise self._unread(
                f"a line of more than {MAX_LINE_BYTES:,} bytes", "shorter texts", "cut or split it"
            )
        if self.offset == 0 and raw.startswith(_UTF16):
            raise DataError(
                self.name,
                got="UTF-16 text",
                expected="UTF-8",
                fix="convert it, for example with: iconv -f UTF-16 -t UTF-8",
            )
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._unread(
                f"byte 0x{raw[error.start]:02x} at byte offset {self.offset + error.start}",
                "UTF-8",
                "convert the file; if it is Windows-1252: iconv -f CP1252 -t UTF-8",
            ) from None

    def _unread(self, *parts: str) -> DataError:
        """Build the error for a line that its reader has not counted yet."""
        self.row += 1
        return self.error(*parts)
