"""Genetic attacks: Alzantot's, the fast variant on a fixed lattice, and the improved one."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Generator, Sequence
from typing import Any, Literal, TypeAlias

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import Lattice, SynonymLattice, match_case
from textadv.attacks.requests import Request
from textadv.attacks.search import best
from textadv.words import Words

__all__ = ["IGA", "Alzantot", "FastGenetic", "Member"]

TEMPERATURE = 0.3

Member: TypeAlias = tuple[Words, float]
"""A text and its margin."""

Change: TypeAlias = tuple[Words, int]
"""A text, and the position of it that is to be given its best candidate."""

Changed: TypeAlias = Generator[Request, Any, tuple[list[Member], Words | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alzantot(SynonymLattice):
    """Breed texts: choose parents by margin, mix their words, give one word its best neighbour.

    Source: Alzantot et al., Generating Natural Language Adversarial Examples, EMNLP 2018, arXiv
    1804.07998: population 60, 20 generations, 8 neighbours within a squared distance of 0.5 (cosine
    0.75), at most a fifth of the words, one member carried over.

    Deviations: no language model narrows the neighbours to four; fitness is the margin in units of
    the clean spread, at the paper's temperature of 0.3.

    Cost: 1 + up to 8 for each member and generation, about 10,000 in all.

    Args:
        population: Texts in a generation.
        generations: Most generations.
        max_rate: Largest share of words modified, rounded up.
        drift: Take the neighbours of the running word, not of the original one.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "vectors"
    max_candidates: int = 8
    min_cosine: float = ranged(0.75, -1, 1)
    population: int = ranged(60, 2)
    generations: int = 20
    max_rate: float = ranged(0.2, 0, 1)
    drift: bool = True

    def search(self, example: Example, rng: random.Random) -> Search:
        """Fill a population, then breed until some text flips."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        limit = math.ceil(self.max_rate * len(example.words))
        members, flipped = yield from self._first(example, lattice, limit, rng)
        for _ in range(self.generations):
            if flipped is not None or not members:
                return flipped
            elite = min(members, key=lambda member: member[1])
            chances = [math.exp(-margin / TEMPERATURE) for _, margin in members]
            weights = chances if any(chances) else [1.0] * len(members)
            children = []
            for _ in range(self.population - 1):
                mother, father = rng.choices([text for text, _ in members], weights, k=2)
                child = self.cross(mother, father, sorted(lattice), rng)
                child = _within(child, limit, rng)
                children.append((child, self.choose(child, lattice, limit, rng)))
            bred, flipped = yield from self.improve(example, lattice, children)
            members = [elite, *bred]
        return flipped

    def _first(self, example: Example, lattice: Lattice, limit: int, rng: random.Random) -> Changed:
        changes = [
            (example.words, self.choose(example.words, lattice, limit, rng))
            for _ in range(self.population)
        ]
        return (yield from self.improve(example, lattice, changes))

    def choose(self, words: Words, lattice: Lattice, limit: int, rng: random.Random) -> int:
        """Return a position to change, in proportion to its candidates.

        One that is not modified yet, unless there is none left or the share is used up.
        """
        modified = set(words.modified_positions)
        fresh = [at for at in lattice if at not in modified]
        places = fresh if fresh and len(modified) < limit else sorted(modified)
        return rng.choices(places, [len(lattice[at]) for at in places])[0]

    def cross(
        self, mother: Words, father: Words, places: Sequence[int], rng: random.Random
    ) -> Words:
        """Return a child that has each word from either parent."""
        return mother.replace_many({at: father.words[at] for at in places if rng.random() < 0.5})

    def neighbours(self, words: Words, lattice: Lattice, index: int) -> list[str]:
        """Return the candidates of one place of a text."""
        word = words.words[index]
        if not self.drift or self.source == "masked-lm" or word == words.original[index]:
            names = lattice[index]
        else:
            like = words.original[index]
            found = dict.fromkeys(match_case(name, like) for name in self.synonyms(word))
            names = list(found)[: self.max_candidates]
        return [name for name in names if name != word]

    def improve(self, example: Example, lattice: Lattice, changes: Sequence[Change]) -> Changed:
        """Give the chosen place of each text its best candidate; all texts in one request."""
        options = [
            [words.replace(at, name) for name in self.neighbours(words, lattice, at)] or [words]
            for words, at in changes
        ]
        texts = [text for many in options for text in many]
        scores = yield texts
        found = best(example, scores)
        if found is not None and found[2]:
            return [], texts[found[0]]
        margins = iter(example.margins(scores))
        members = []
        for many in options:
            ranked = [(next(margins), row) for row in range(len(many))]
            margin, row = min(ranked)
            members.append((many[row], margin))
        return members, None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastGenetic(Alzantot):
    """Breed texts with candidates that are fixed by the unchanged text.

    Source: Jia et al., Certified Robustness to Adversarial Word Substitutions, EMNLP 2019, arXiv
    1909.00986: the attack of Alzantot et al. with 40 generations and neighbours of the original
    words only, so that words cannot drift away.

    Deviations: no language model in the loop; as `alzantot`.

    Cost: as `alzantot`, with twice the generations.
    """

    generations: int = 40
    drift: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class IGA(Alzantot):
    """Breed texts from the best synonym of every word, crossed at one point.

    Source: Wang et al., Natural Language Adversarial Attacks and Defenses in Word Level, 2019,
    arXiv 1909.06723: population 60, 20 generations, 50 neighbours, and no word changed more than
    five times.

    Deviations: the count of changes of a word goes with the text that has it; as `alzantot`.

    Cost: 1 + all candidates of all words + up to 50 for each member and generation.
    """

    max_candidates: int = 50
    drift: bool = False

    def _first(self, example: Example, lattice: Lattice, limit: int, rng: random.Random) -> Changed:
        members, flipped = yield from self.improve(
            example, lattice, [(example.words, at) for at in lattice]
        )
        members = sorted(members, key=lambda member: member[1])[: self.population]
        return members, flipped

    def choose(self, words: Words, lattice: Lattice, limit: int, rng: random.Random) -> int:
        """Return a position to change, in proportion to its candidates, modified or not."""
        modified = sorted(words.modified_positions)
        places = list(lattice) if len(modified) < limit else modified
        return rng.choices(places, [len(lattice[at]) for at in places])[0]

    def cross(
        self, mother: Words, father: Words, places: Sequence[int], rng: random.Random
    ) -> Words:
        """Return a child with the mother's words up to a point and the father's from there."""
        point = rng.randrange(len(places))
        return mother.replace_many({at: father.words[at] for at in places[point:]})


def _within(words: Words, limit: int, rng: random.Random) -> Words:
    """Take random modifications back until at most `limit` are left."""
    modified = list(words.modified_positions)
    extra = rng.sample(modified, max(len(modified) - limit, 0))
    return words.replace_many({at: words.original[at] for at in extra})
