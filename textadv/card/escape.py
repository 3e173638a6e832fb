"""Names that others chose, made harmless in Markdown."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["cell", "code", "fenced", "text", "visible"]

# Colons, at signs and the dot of "www." would make links.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~:@]|(?<=www)\.)")
_MAX_CHARACTERS = 200


def visible(value: object, limit: int | None = _MAX_CHARACTERS) -> str:
    r"""Return one line without controls, invisible or direction-changing characters.

    Example:
        >>> print(visible("a\nb"))
        a\nb
    """
    found = "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"
        else character
        for character in str(value)
    )
    return found if limit is None or len(found) <= limit else found[: limit - 3] + "..."


def text(value: object) -> str:
    """Return running text in which nothing is markup, a link or HTML."""
    escaped = visible(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", escaped)


def code(value: object) -> str:
    """Return a code span that ends where it should, whatever backticks are inside."""
    content = visible(value) or " "
    ticks = "`" * (1 + max(map(len, re.findall("`+", content)), default=0))
    pad = " " if content[0] == "`" or content[-1] == "`" else ""
    return f"{ticks}{pad}{content}{pad}{ticks}"


def cell(value: object) -> str:
    """Return a code span for a table; nothing for nothing."""
    return "" if value in (None, "") else code(value).replace("|", r"\|")


def fenced(value: str, language: str) -> str:
    """Return a code block whose fence is longer than any run of backticks inside."""
    lines = "\n".join(visible(line, limit=None) for line in value.split("\n"))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return f"{fence}{language}\n{lines}\n{fence}"
