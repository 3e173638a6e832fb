"""What an attack changed in a text, word by word."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Container, Sequence
from typing import Literal

__all__ = ["Change", "edit_distance", "marked", "visible", "word_diff"]

Change = tuple[Literal["same", "removed", "added"], str]

_TOKEN = re.compile(r"\s+|[^\s]+")
LONGEST = 20_000
# Letters, a symbol and marks that show nothing; Unicode does not call them format characters.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def word_diff(before: str, after: str) -> list[Change]:
    """Return the changes that turn one text into the other, a removal before what replaces it.

    The parts that are not added make up `before`, those that are not removed make up `after`.

    Example:
        >>> word_diff("a fine film", "a f1ne film")
        [('same', 'a '), ('removed', 'fine'), ('added', 'f1ne'), ('same', ' film')]
    """
    if before == after:
        return [("same", before)] if before else []
    if len(before) + len(after) > LONGEST:
        whole: list[Change] = [("removed", before), ("added", after)]
        return [part for part in whole if part[1]]
    first, second = _TOKEN.findall(before), _TOKEN.findall(after)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    changes: list[Change] = []
    for kind, low, high, start, end in matcher.get_opcodes():
        removed, added = "".join(first[low:high]), "".join(second[start:end])
        if kind == "equal":
            changes.append(("same", removed))
            continue
        if removed:
            changes.append(("removed", removed))
        if added:
            changes.append(("added", added))
    return changes


def visible(text: str, *, plain: Container[str] = " \n\t", strange: Container[str] = "") -> str:
    r"""Return text in which what cannot be seen is named by its code: no terminal obeys it either.

    Args:
        text: Any text.
        plain: White space that is left as it is.
        strange: Characters that can be seen, but not told from others; their code is added.

    Example:
        >>> visible("fi\u200blm"), visible("f\u0456lm", strange="\u0456") == "f<\u0456 U+0456>lm"
        ('fi<U+200B>lm', True)
    """
    return "".join(
        f"<U+{ord(character):04X}>"
        if _hidden(character) and character not in plain
        else f"<{character} U+{ord(character):04X}>"
        if character in strange
        else character
        for character in text
    )


def _hidden(character: str) -> bool:
    """Return whether a character shows nothing, or is a space other than the usual one."""
    if character.isascii():
        return not character.isprintable()
    kind = unicodedata.category(character)
    selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return kind[0] in "CZ" or character in _BLANK or selector


def marked(changes: Sequence[Change], strange: Container[str] = "") -> str:
    """Return a diff in plain text: `[-removed-]` and `{+added+}`, the invisible by its code.

    Example:
        >>> marked(word_diff("a fine film", "a f1ne film"))
        'a [-fine-]{+f1ne+} film'
    """
    return "".join(
        f"[-{visible(text, plain=' ')}-]"
        if kind == "removed"
        else f"{{+{visible(text, plain=' ', strange=strange)}+}}"
        if kind == "added"
        else visible(text)
        for kind, text in changes
    )


def edit_distance(before: str, after: str) -> int:
    """Return the characters inserted, deleted and substituted between two texts.

    Changed stretches of words are compared by Levenshtein distance, which bounds that of the whole
    texts from above and equals it when every edit stays inside its word.
    """
    total, removed = 0, ""
    for kind, text in [*word_diff(before, after), ("same", "")]:
        if kind == "removed":
            removed = text
            continue
        total += _levenshtein(removed, text if kind == "added" else "")
        removed = ""
    return total


def _levenshtein(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    above = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            changed = above[column - 1] + (left != right)
            current.append(min(above[column] + 1, current[-1] + 1, changed))
        above = current
    return above[-1]
