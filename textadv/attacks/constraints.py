"""What an attack may not do: words it must leave alone, and how far it may go."""

from __future__ import annotations

import functools

from textadv.resources import STOPWORDS
from textadv.words import Words

__all__ = ["attackable", "edit_distance", "levenshtein"]


def attackable(words: Words, *, skip_stopwords: bool = True, min_length: int = 1) -> list[int]:
    """Return the positions that may be edited: editable, not a stopword, not already modified."""
    modified = set(words.modified_positions)
    return [
        index
        for index in words.editable_positions
        if index not in modified
        and len(words.words[index]) >= min_length
        and not (skip_stopwords and is_stopword(words.words[index]))
    ]


def is_stopword(word: str) -> bool:
    """Return whether a word, in any case and with either apostrophe, is a function word."""
    return word.lower().replace("’", "'") in STOPWORDS


def edit_distance(words: Words) -> int:
    """Return the sum of the edit distances of all words from their originals.

    For replaced words this bounds the Levenshtein distance of the whole texts from above. An
    inserted word counts its length and a deleted one too, each with the space it comes with.
    """
    kept = {origin for origin in words.origins if origin >= 0}
    total = sum(len(word) + 1 for at, word in enumerate(words.original) if at not in kept)
    for index in words.modified_positions:
        origin, word = words.origins[index], words.words[index]
        total += len(word) + 1 if origin < 0 else levenshtein(words.original[origin], word)
    return total


@functools.lru_cache(maxsize=65536)
def levenshtein(first: str, second: str) -> int:
    """Return the least number of inserted, deleted and substituted characters between two words.

    Source: Wagner and Fischer, JACM 1974.

    Example:
        >>> levenshtein("kitten", "sitting")
        3
    """
    above = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            substituted = above[column - 1] + (left != right)
            current.append(min(above[column] + 1, current[-1] + 1, substituted))
        above = current
    return above[-1]
