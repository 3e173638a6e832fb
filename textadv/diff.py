"""What an attack changed in a text, word by word."""

from __future__ import annotations

import difflib
import re
from typing import Literal

__all__ = ["Change", "edit_distance", "word_diff"]

Change = tuple[Literal["same", "removed", "added"], str]

_TOKEN = re.compile(r"\s+|[^\s]+")
LONGEST = 20_000


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
