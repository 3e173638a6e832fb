"""Edits of the characters of one word: swaps, deletions, substitutions, insertions, bugs."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

__all__ = [
    "LOOKALIKES",
    "all_typos",
    "bugs",
    "deletions",
    "insertions",
    "keyboard_neighbours",
    "lookalikes",
    "one_typo_each",
    "slips",
    "substitutions",
    "swaps",
]

LOOKALIKES = dict(zip(
    "abcdefghijklmnopqrstuvwxyz-",
    "\u0251\u042c\u03f2\u0501\u0435\U0001d68f\u0261\u0570\u0456\u03f3\U0001d48c\u217c\uff4d\u0578\u043e\u0440\u051b\u2c85\u0455\U0001d69d\u057d\u0475\u051d\u00d7\u0443\u1d22\u02d7",
    strict=True,
))  # fmt: skip
"""A character of another script that looks like each ASCII letter."""

_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def swaps(word: str) -> list[str]:
    """Return the word with two neighbouring characters exchanged, left to right.

    Example:
        >>> swaps("abb")
        ['bab']
    """
    return [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        for at in range(len(word) - 1)
        if word[at] != word[at + 1]
    ]


def deletions(word: str) -> list[str]:
    """Return the word without one character; nothing for a word of one character."""
    return [word[:at] + word[at + 1 :] for at in range(len(word))] if len(word) > 1 else []


def substitutions(word: str, letters: str = string.ascii_lowercase) -> list[str]:
    """Return the word with one character replaced, each by every one of `letters` in its case."""
    return [
        word[:at] + new + word[at + 1 :]
        for at, old in enumerate(word)
        for new in (letters.upper() if old.isupper() else letters)
        if new != old
    ]


def insertions(word: str, letters: str = string.ascii_lowercase) -> list[str]:
    """Return the word with one of `letters` added, in front, between or behind."""
    places = range(len(word) + 1)
    return [word[:at] + new + word[at:] for at in places for new in letters]


def all_typos(word: str, letters: str = string.ascii_lowercase) -> list[str]:
    """Return every swap, deletion, substitution and insertion, each text once."""
    found = swaps(word) + deletions(word) + substitutions(word, letters) + insertions(word, letters)
    return [typo for typo in dict.fromkeys(found) if typo != word]


def one_typo_each(word: str, rng: random.Random) -> list[str]:
    """Return one random swap, substitution, deletion and insertion, where the word allows them."""
    letters = string.ascii_letters
    edits: tuple[Callable[[str], list[str]], ...] = (
        swaps,
        lambda word: substitutions(word, rng.choice(letters)),
        deletions,
        lambda word: insertions(word, rng.choice(letters)),
    )
    found = [rng.choice(typos) for edit in edits if (typos := edit(word))]
    return [typo for typo in dict.fromkeys(found) if typo != word]


def lookalikes(word: str) -> list[str]:
    """Return the word with one character replaced by one that looks like it.

    Example:
        >>> lookalikes("go")
        ['ɡo', 'gо']
    """
    return [
        word[:at] + LOOKALIKES[old] + word[at + 1 :]
        for at, old in enumerate(word)
        if old in LOOKALIKES
    ]


def keyboard_neighbours(letter: str) -> str:
    """Return the letters beside, above and below a letter on a QWERTY keyboard, in its case.

    Example:
        >>> keyboard_neighbours("s"), keyboard_neighbours("é")
        ('adwezx', '')
    """
    low = letter.lower()
    for row, keys in enumerate(_KEY_ROWS):
        if low and low in keys:
            at = keys.index(low)
            beside = keys[max(at - 1, 0) : at] + keys[at + 1 : at + 2]
            above = _KEY_ROWS[row - 1][at : at + 2] if row else ""
            below = _KEY_ROWS[row + 1][max(at - 1, 0) : at + 1] if row < 2 else ""
            found = beside + above + below
            return found.upper() if letter.isupper() else found
    return ""


def slips(word: str, rng: random.Random) -> list[str]:
    """Return all edits of the inside of a word: swaps, deletions, insertions, keyboard slips.

    The first and the last character stay. Each place gets one random letter inserted.
    """
    first, inside, last = word[:1], word[1:-1], word[-1:]
    places = range(len(inside) + 1)
    found = swaps(inside) + [inside[:at] + inside[at + 1 :] for at in range(len(inside))]
    found += [inside[:at] + rng.choice(string.ascii_lowercase) + inside[at:] for at in places]
    found += [
        inside[:at] + new + inside[at + 1 :]
        for at, old in enumerate(inside)
        for new in keyboard_neighbours(old)
    ]
    return [typo for typo in dict.fromkeys(first + edit + last for edit in found) if typo != word]


def bugs(word: str, rng: random.Random) -> list[str]:
    """Return a random space, deletion and swap inside a word, and all its lookalikes.

    Words of 2 to 5 characters get the space, those of 3 or more the deletion, those of 5 or more
    the swap.
    """
    found = []
    if 2 <= len(word) <= 5:
        at = rng.randrange(1, len(word))
        found.append(f"{word[:at]} {word[at:]}")
    if len(word) >= 3:
        at = rng.randrange(1, len(word) - 1)
        found.append(word[:at] + word[at + 1 :])
    if len(word) >= 5 and (inside := swaps(word[1:-1])):
        found.append(word[0] + rng.choice(inside) + word[-1])
    return [bug for bug in dict.fromkeys(found + lookalikes(word)) if bug != word]
