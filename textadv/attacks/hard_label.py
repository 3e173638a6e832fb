"""An attack that sees only which class is predicted."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Generator, Sequence
from typing import Any, Literal

from textadv.attacks.base import Example, NoCandidatesError, OutOfQueriesError, Search
from textadv.attacks.candidates import Lattice, SynonymLattice, prepare_resources
from textadv.attacks.requests import Request, Similar
from textadv.words import Words

__all__ = ["HardLabel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardLabel(SynonymLattice):
    """Find any text with another prediction, then bring it back to the original's meaning.

    Random substitutions until the prediction changes; then words are restored while it stays
    changed; then a genetic search keeps it changed and raises the similarity to the original.

    Source: Maheshwary, Maheshwary and Pudi, Generating Natural Language Attacks in a Hard Label
    Black Box Setting, AAAI 2021, arXiv 2012.14956: 2,500 tries, population 30, 100 generations, an
    end after 15 without progress.

    Deviations: any sentence encoder; parts of speech are not checked; tries substitute a random
    number of words each; no bound on how often one word is changed again.

    Cost: up to `num_tries` to begin, 2 for each modified word to restore, then 30 for each
    generation.

    Args:
        objective: `"similarity"`: cosine of sentence vectors; `"words"`: share of words kept.
        encoder: Directory of a sentence encoder, for `"similarity"`.
        num_tries: Most random texts, asked about `chunk` at a time.
        chunk: Texts in one request of the first stage.
        population: Texts in a generation.
        generations: Most generations.
        patience: Generations without progress after which it ends.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "vectors"
    objective: Literal["similarity", "words"] = "similarity"
    encoder: str | None = None
    num_tries: int = 2500
    chunk: int = 16
    population: int = 30
    generations: int = 100
    patience: int = 15

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        encoder = {"encoder": self.encoder} if self.objective == "similarity" else {}
        return super().needs() | encoder

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def search(self, example: Example, rng: random.Random) -> Search:
        """Start, restore, breed; every text kept has another prediction."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        found = yield from self._start(example, lattice, rng)
        if found is None:
            return None
        kept = [found]
        try:
            yield from self._restore(example, kept)
            yield from self._breed(example, lattice, kept, rng)
        except OutOfQueriesError:
            pass
        return kept[-1]

    def _start(self, example: Example, lattice: Lattice, rng: random.Random) -> Search:
        left = self.num_tries
        while left > 0:
            texts = [
                _random_text(example.words, lattice, rng) for _ in range(min(self.chunk, left))
            ]
            left -= len(texts)
            flips = example.flips((yield texts))
            if True in flips:
                return texts[flips.index(True)]
        return None

    def _restore(self, example: Example, kept: list[Words]) -> Generator[Request, Any, None]:
        """Put original words back, those first whose return alone leaves the closest text."""
        found = kept[-1]
        modified = found.modified_positions
        singles = [found.replace(at, found.original[at]) for at in modified]
        flips = example.flips((yield singles))
        closeness = yield from self._closeness(example, singles)
        ranked = sorted(
            (-close, at) for at, close, flip in zip(modified, closeness, flips, strict=True) if flip
        )
        for _, at in ranked:
            text = kept[-1].replace(at, found.original[at])
            if example.flips((yield [text]))[0]:
                kept.append(text)

    def _breed(
        self, example: Example, lattice: Lattice, kept: list[Words], rng: random.Random
    ) -> Generator[Request, Any, None]:
        """Mutate and cross texts that stay changed, and keep the most similar of them."""
        (close,) = yield from self._closeness(example, kept[-1:])
        members = [(close, kept[-1])]
        stale = 0
        for _ in range(self.generations):
            if stale >= self.patience or kept[-1].num_modified <= 1:
                return
            parents = [words for _, words in members]
            children = [self._child(parents, lattice, rng) for _ in range(self.population)]
            flips = example.flips((yield children))
            flipped = [child for child, flip in zip(children, flips, strict=True) if flip]
            closeness = yield from self._closeness(example, flipped)
            ranked = [*members, *zip(closeness, flipped, strict=True)]
            pool = {words.texts: (near, words) for near, words in reversed(ranked)}
            members = sorted(pool.values(), key=lambda pair: -pair[0])[: self.population]
            stale = 0 if members[0][0] > close else stale + 1
            close = members[0][0]
            kept.append(members[0][1])

    def _child(self, parents: Sequence[Words], lattice: Lattice, rng: random.Random) -> Words:
        """Cross two parents word by word, then change or restore one modified word."""
        mother, father = rng.choices(parents, k=2)
        places = sorted(lattice)
        child = mother.replace_many({at: father.words[at] for at in places if rng.random() < 0.5})
        modified = child.modified_positions
        if not modified:
            return child
        at = rng.choice(modified)
        return child.replace(at, rng.choice([child.original[at], *lattice[at]]))

    def _closeness(
        self, example: Example, texts: Sequence[Words]
    ) -> Generator[Request, Any, list[float]]:
        if self.objective == "words" or not texts:
            return [1 - text.modified_rate for text in texts]
        original = example.words.texts
        pairs = [
            (old, new) for text in texts for old, new in zip(original, text.texts, strict=True)
        ]
        cosines: list[float] = yield Similar(self.encoder, pairs)
        n = len(original)
        return [sum(cosines[at : at + n]) / n for at in range(0, len(cosines), n)]


def _random_text(words: Words, lattice: Lattice, rng: random.Random) -> Words:
    places = rng.sample(sorted(lattice), rng.randint(1, len(lattice)))
    return words.replace_many({at: rng.choice(lattice[at]) for at in places})
