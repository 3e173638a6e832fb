"""Edits that a reader does not see: invisible, lookalike, reordered and deleted characters."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import TypeAlias

from textadv.attacks.base import Checked, Example, NoCandidatesError, Search, ranged
from textadv.attacks.chars import LOOKALIKES
from textadv.attacks.constraints import attackable
from textadv.attacks.search import best
from textadv.words import Words

__all__ = [
    "ImperceptibleDelete",
    "ImperceptibleHomoglyph",
    "ImperceptibleInvisible",
    "ImperceptibleReorder",
    "sanitise",
]

INVISIBLE = "\u200b\u200c\u200d"
"""Zero-width space, non-joiner and joiner."""

BACKSPACE = "\b"
_PDF, _LRO, _RLO, _LRI, _PDI = "\u202c", "\u202d", "\u202e", "\u2066", "\u2069"

Place: TypeAlias = tuple[int, int]
"""A word and a character of it."""

Genes: TypeAlias = tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Imperceptible(Checked):
    """Search places and characters of a few edits by differential evolution.

    Args:
        budget: Most edits of one text.
        population: Members for each number that is searched.
        generations: Most generations.
    """

    budget: int = ranged(3, 1)
    population: int = ranged(32, 1)
    generations: int = ranged(10, 0)

    def prepare(self) -> None:
        """Need nothing."""

    def choices(self, word: str) -> list[tuple[int, Sequence[str]]]:
        """Return for each place of a word the strings its character can become."""
        raise NotImplementedError

    def search(self, example: Example, rng: random.Random) -> Search:
        """Evolve places and characters until some text flips.

        A member has two numbers in [0, 1] for each edit: which place, with a slot more that means
        no edit, and which string. Mutation is best/1 with a factor drawn from [0.5, 1) for each
        generation, crossover 0.7, and a child replaces its parent when its margin is not higher.
        """
        places: list[Place] = []
        strings: list[Sequence[str]] = []
        for at in attackable(example.words, skip_stopwords=False):
            for character, options in self.choices(example.words.words[at]):
                places.append((at, character))
                strings.append(options)
        if not places:
            raise NoCandidatesError

        def text(genes: Genes) -> Words:
            edits: dict[Place, str] = {}
            for spot, choice in zip(genes[::2], genes[1::2], strict=True):
                slot = min(int(spot * (len(places) + 1)), len(places))
                if slot < len(places):
                    options = strings[slot]
                    edits[places[slot]] = options[min(int(choice * len(options)), len(options) - 1)]
            return _edited(example.words, edits)

        size = 2 * self.budget
        count = max(self.population * size, 4)
        members = [tuple(rng.random() for _ in range(size)) for _ in range(count)]
        texts = [text(genes) for genes in members]
        scores = yield texts
        margins = example.margins(scores)
        for _ in range(self.generations):
            found = best(example, scores)
            if found is not None and found[2]:
                return texts[found[0]]
            leader = members[min(range(count), key=lambda row: margins[row])]
            factor = rng.uniform(0.5, 1.0)
            children = [_child(members, row, leader, factor, rng) for row in range(count)]
            texts = [text(genes) for genes in children]
            scores = yield texts
            for row, margin in enumerate(example.margins(scores)):
                if margin <= margins[row]:
                    members[row], margins[row] = children[row], margin
        found = best(example, scores)
        return texts[found[0]] if found is not None and found[2] else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImperceptibleInvisible(_Imperceptible):
    """Put zero-width characters in front of characters.

    Source: Boucher et al., Bad Characters: Imperceptible NLP Attacks, IEEE S&P 2022, arXiv
    2106.09898.

    Deviations: edits stay inside words that may be edited; stops at the first flip.

    Cost: 1 + 32 * 2 * `budget` for each of 11 generations at most.

    Known failure: removing control characters undoes it; see `sanitise`.
    """

    def choices(self, word: str) -> list[tuple[int, Sequence[str]]]:
        """Return every character with each zero-width one in front."""
        return [(at, [mark + old for mark in INVISIBLE]) for at, old in enumerate(word)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImperceptibleHomoglyph(_Imperceptible):
    """Replace characters by lookalikes of other scripts.

    Source: Boucher et al., Bad Characters: Imperceptible NLP Attacks, IEEE S&P 2022, arXiv
    2106.09898.

    Deviations: one lookalike for each lower-case ASCII letter instead of Unicode's list of
    intentional confusables; edits stay inside words that may be edited; stops at the first flip.

    Cost: 1 + 32 * 2 * `budget` for each of 11 generations at most.

    Known failure: mapping confusable characters to one form undoes it.
    """

    def choices(self, word: str) -> list[tuple[int, Sequence[str]]]:
        """Return every character that has a lookalike."""
        return [(at, [LOOKALIKES[old]]) for at, old in enumerate(word) if old in LOOKALIKES]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImperceptibleReorder(_Imperceptible):
    """Exchange neighbouring characters, and have Unicode's direction marks show them in order.

    Source: Boucher et al., Bad Characters: Imperceptible NLP Attacks, IEEE S&P 2022, arXiv
    2106.09898.

    Deviations: edits stay inside words that may be edited; stops at the first flip.

    Cost: 1 + 32 * 2 * `budget` for each of 11 generations at most.

    Known failure: removing control characters shows the exchange; see `sanitise`.
    """

    def choices(self, word: str) -> list[tuple[int, Sequence[str]]]:
        """Return every pair of different characters, exchanged and put back for the eye."""
        return [
            (at, [_shown_swapped(word[at + 1], word[at])])
            for at in range(len(word) - 1)
            if word[at] != word[at + 1]
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImperceptibleDelete(_Imperceptible):
    """Add letters that a backspace character takes away again for the eye.

    Source: Boucher et al., Bad Characters: Imperceptible NLP Attacks, IEEE S&P 2022, arXiv
    2106.09898.

    Deviations: edits stay inside words that may be edited; stops at the first flip.

    Cost: 1 + 32 * 2 * `budget` for each of 11 generations at most.

    Known failure: removing control characters shows the letters; see `sanitise`.
    """

    def choices(self, word: str) -> list[tuple[int, Sequence[str]]]:
        """Return every character with each letter and a backspace in front."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        return [
            (at, [letter + BACKSPACE + old for letter in letters]) for at, old in enumerate(word)
        ]


def _shown_swapped(first: str, second: str) -> str:
    """Return two characters that a bidirectional display shows the other way round."""
    return f"{_LRO}{_LRI}{_RLO}{_LRI}{first}{_PDI}{_LRI}{second}{_PDI}{_PDF}{_PDI}{_PDF}"


def sanitise(text: str) -> str:
    r"""Return a text in NFKC without control, format and private characters.

    Tabs and newlines stay.

    The usual defence against these edits, to be measured beside the attack.

    Example:
        >>> sanitise("fi\u200blm \uff11")
        'film 1'
    """
    import unicodedata

    folded = unicodedata.normalize("NFKC", text)
    return "".join(c for c in folded if c in "\t\n\r" or unicodedata.category(c)[0] != "C")


def _edited(words: Words, edits: dict[Place, str]) -> Words:
    """Replace characters; a reordered pair takes the character behind it with it."""
    changes: dict[int, str] = {}
    for at in sorted({at for at, _ in edits}):
        word, parts, place = words.words[at], [], 0
        while place < len(word):
            new = edits.get((at, place))
            parts.append(word[place] if new is None else new)
            place += 2 if new is not None and new.startswith(_LRO) else 1
        changes[at] = "".join(parts)
    return words.replace_many(changes)


def _child(
    members: Sequence[Genes], row: int, leader: Genes, factor: float, rng: random.Random
) -> Genes:
    """Return the leader plus a scaled difference of two others, crossed with the parent."""
    parent = members[row]
    first, second = rng.sample([at for at in range(len(members)) if at != row], 2)
    forced = rng.randrange(len(parent))
    genes = []
    for at, old in enumerate(parent):
        new = leader[at] + factor * (members[first][at] - members[second][at])
        if at != forced and rng.random() >= 0.7:
            genes.append(old)
        else:
            genes.append(new if 0 <= new <= 1 else rng.random())
    return tuple(genes)
