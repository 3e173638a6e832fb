"""Edits of the characters of one word: swaps, deletions, substitutions, insertions."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

__all__ = ["all_typos", "deletions", "insertions", "one_typo_each", "substitutions", "swaps"]


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
