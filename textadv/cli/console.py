"""A console that shows what would drive a terminal, and never sends it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from textadv.errors import redacted

__all__ = ["SafeConsole", "guard_log", "harmless"]

# Controls but tab and newline, direction marks, line separators, and what no encoding can write.
_HARMFUL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def harmless(text: str) -> str:
    r"""Return text whose terminal escapes, direction marks and lone surrogates are spelled out.

    Example:
        >>> print(harmless("\x1b[31mred"))
        \x1b[31mred
    """
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class SafeConsole(Console):
    """A rich console for texts that others wrote: no markup, no emoji codes, no escapes of theirs.

    What rich itself sends to place and colour the text is untouched.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield segments without anything harmful in their text."""
        for segment in super().render(renderable, options):
            if segment.control or not _HARMFUL.search(segment.text):
                yield segment
            else:
                yield Segment(harmless(segment.text), segment.style)


class _Harmless(logging.Formatter):
    """Log lines that are as safe to show, and hold no secret."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return harmless(redacted(super().format(record)))


def guard_log() -> None:
    """Make what Python logs where nobody set a handler safe to show."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Harmless())
