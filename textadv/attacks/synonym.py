"""Greedy synonym substitution, and random substitution from the same candidates as its control."""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from textadv.attacks.base import Example, NoCandidatesError, Search
from textadv.attacks.candidates import SynonymLattice
from textadv.attacks.search import best, greedy, rank
from textadv.errors import ConfigError
from textadv.words import Words

__all__ = ["RandomSubstitution", "Synonym"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synonym(SynonymLattice):
    """Replace words by synonyms, most important first, keeping the best synonym of each.

    Source: the search that PWWS (Ren et al., ACL 2019), TextFooler (Jin et al., AAAI 2020) and
    others share, in its plainest form: importance by replacement, then all candidates of a word.

    Deviations: no part-of-speech and no sentence-similarity check, so expect it to succeed more
    often and to keep the meaning less often than the published attacks.

    Cost: 1 + m + the candidates of each of the m words that have any, until the prediction
    changes. Words without candidates are not ranked.

    Known failure: WordNet's rare senses; a word in every sense is offered in any of them.

    Args:
        ranking: Replace a word with `unknown`, or delete it.
        unknown: What stands for a word the model does not know.
    """

    ranking: Literal["unk", "delete"] = "unk"
    unknown: str = "[UNK]"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranking not in ("unk", "delete"):
            raise ConfigError("ranking", got=repr(self.ranking), expected="'unk' or 'delete'")

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank the words that have candidates, then substitute greedily."""
        lattice = self.lattice(example.words)
        if not lattice:
            raise NoCandidatesError
        order = yield from rank(example, list(lattice), self.ranking, self.unknown)

        def propose(words: Words, index: int) -> list[Words]:
            return [words.replace(index, word) for word in lattice[words.origins[index]]]

        return (yield from greedy(example, order, propose))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomSubstitution(SynonymLattice):
    """Replace random words by random synonyms, and look only at whether the prediction changes.

    The control for `synonym`: the same candidates and, by default, at most as many queries as that
    search can need on the text. A guided attack that does not beat it measures nothing but luck.

    Each try takes a random number of the words that have candidates, chosen evenly, and gives each
    of them a random candidate.

    Source: our own control.

    Cost: 1 + `num_tries` queries at most, in requests of `chunk`.

    Args:
        num_tries: Texts tried; None for as many as the guided search could ask about.
        chunk: Texts tried per request. A success costs up to `chunk - 1` queries too many.
    """

    num_tries: int | None = None
    chunk: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("num_tries", self.num_tries), ("chunk", self.chunk)):
            if value is not None and value < 1:
                raise ConfigError(name, got=str(value), expected=">= 1")

    def search(self, example: Example, rng: random.Random) -> Search:
        """Sample texts until one changes the prediction or the tries are used up."""
        lattice = self.lattice(example.words)
        if not lattice:
            raise NoCandidatesError
        guided = len(lattice) + sum(map(len, lattice.values()))
        left = guided if self.num_tries is None else self.num_tries
        while left > 0:
            texts = [self._sample(example, lattice, rng) for _ in range(min(self.chunk, left))]
            left -= len(texts)
            found = best(example, (yield texts))
            if found is not None and found[2]:
                return texts[found[0]]
        return None

    def _sample(self, example: Example, lattice: dict[int, list[str]], rng: random.Random) -> Words:
        positions = rng.sample(sorted(lattice), rng.randint(1, len(lattice)))
        return example.words.replace_many({at: rng.choice(lattice[at]) for at in positions})
