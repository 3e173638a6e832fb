"""Beam, best-first and gradient-guided search in the lattice of synonyms."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import Lattice, SynonymLattice
from textadv.attacks.requests import Gradients
from textadv.attacks.search import best
from textadv.words import Words

__all__ = ["SynonymBeam", "SynonymBestFirst", "TokenGradient", "substitutions"]


def substitutions(words: Words, lattice: Lattice, limit: int) -> list[Words]:
    """Return all texts that differ in one more word, in the order of positions and candidates.

    Args:
        limit: Most words modified in them.
    """
    modified = set(words.modified_positions)
    if len(modified) >= limit:
        return []
    return [
        words.replace(index, name)
        for index, names in lattice.items()
        if index not in modified
        for name in names
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynonymBeam(SynonymLattice):
    """Search synonym substitutions by beam: keep the best texts, substitute one word in each.

    Source: the search that Yoo et al., Searching for a Search Method, BlackboxNLP 2020, arXiv
    2009.06368, recommend for short texts.

    Deviations: none to name; candidates come from the unchanged text.

    Cost: in each round, all candidates of all words for each of `beam` texts.

    Args:
        beam: Texts kept.
        max_rate: Largest share of words modified, rounded up.
    """

    beam: int = 8
    max_rate: float = ranged(0.4, 0, 1)

    def search(self, example: Example, rng: random.Random) -> Search:
        """Widen the beam by one word until some text flips or the share is used up."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        limit = math.ceil(self.max_rate * len(example.words))
        beam = [example.words]
        while beam:
            new = {t.texts: t for text in beam for t in substitutions(text, lattice, limit)}
            texts = list(new.values())
            scores = yield texts
            found = best(example, scores)
            if found is not None and found[2]:
                return texts[found[0]]
            margins = example.margins(scores)
            order = sorted(range(len(texts)), key=lambda row: margins[row])
            beam = [texts[row] for row in order[: self.beam]]
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynonymBestFirst(SynonymLattice):
    """Search synonym substitutions best-first: always go on from the best text not yet used.

    Source: Ivgi and Berant, Achieving Model Robustness through Discrete Adversarial Training, EMNLP
    2021, arXiv 2104.05062.

    Deviations: all substitutions of a text are asked about at once, in place of one word's.

    Cost: all candidates of all words for each text that is used, at most `max_texts` of them.

    Args:
        max_texts: Texts gone on from.
        max_rate: Largest share of words modified, rounded up.
    """

    max_texts: int = 50
    max_rate: float = ranged(0.4, 0, 1)

    def search(self, example: Example, rng: random.Random) -> Search:
        """Take the best text from a queue, ask about all its successors, queue them."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        limit = math.ceil(self.max_rate * len(example.words))
        count = itertools.count()
        queue = [(example.clean_margin, next(count), example.words)]
        seen = {example.words.texts}
        for _ in range(self.max_texts):
            if not queue:
                return None
            _, _, text = heapq.heappop(queue)
            texts = [t for t in substitutions(text, lattice, limit) if t.texts not in seen]
            scores = yield texts
            found = best(example, scores)
            if found is not None and found[2]:
                return texts[found[0]]
            for new, margin in zip(texts, example.margins(scores), strict=True):
                seen.add(new.texts)
                heapq.heappush(queue, (margin, next(count), new))
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenGradient(SynonymLattice):
    """Substitute synonyms by the slope of the margin: white-box, inside the synonym lattice.

    Each step differentiates the model at the running text, scores all substitutions to first order,
    asks about the `top_k` best and takes the best of them. A substitution may be taken back. All
    scores come from the text as a string, so that what a tokenizer makes of it is what counts.

    Source: HotFlip (Ebrahimi et al., ACL 2018, arXiv 1712.06751) for the first-order score; greedy
    coordinate steps with exact evaluation as GCG (Zou et al., 2023, arXiv 2307.15043).

    Deviations: words instead of tokens, whose embeddings are averaged; candidates from a lattice
    instead of the whole vocabulary; the best `top_k` instead of a random sample of them.

    Cost: 1 + `top_k` for each step, of which there are up to `num_steps` for each start.

    Args:
        top_k: Substitutions asked about in each step.
        num_steps: Most steps from one start.
        num_restarts: Starts: the unchanged text, then random substitutions.
        max_rate: Largest share of words modified, rounded up.
    """

    top_k: int = 16
    num_steps: int = 20
    num_restarts: int = 3
    max_rate: float = ranged(0.4, 0, 1)

    white_box = True

    def search(self, example: Example, rng: random.Random) -> Search:
        """Follow the slope from each start until some text flips."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        limit = math.ceil(self.max_rate * len(example.words))
        for restart in range(self.num_restarts):
            current = self._start(example, lattice, limit, rng) if restart else example.words
            margin = example.clean_margin
            for step in range(self.num_steps):
                choices = self._choices(current, lattice, limit)
                (slopes,) = yield Gradients([current], choices)
                if slopes is None:
                    return None
                if restart and not step:
                    (margin,) = example.margins(slopes.logits[None])
                    if example.flips(slopes.logits[None])[0]:
                        return current
                ranked = sorted(
                    (-gain, at, row) for at in choices for row, gain in enumerate(slopes.gains[at])
                )
                texts = [
                    current.replace(at, choices[at][row]) for _, at, row in ranked[: self.top_k]
                ]
                found = best(example, (yield texts))
                if found is not None and found[2]:
                    return texts[found[0]]
                if found is None or found[1] >= margin:
                    break
                current, margin = texts[found[0]], found[1]
        return None

    def _start(self, example: Example, lattice: Lattice, limit: int, rng: random.Random) -> Words:
        count = rng.randint(1, min(limit, len(lattice)))
        places = rng.sample(sorted(lattice), count)
        return example.words.replace_many({at: rng.choice(lattice[at]) for at in places})

    def _choices(self, current: Words, lattice: Lattice, limit: int) -> Lattice:
        """Return what each word may become, the original word included."""
        modified = set(current.modified_positions)
        full = len(modified) >= limit
        return {
            at: [n for n in (current.original[at], *names) if n != current.words[at]]
            for at, names in lattice.items()
            if at in modified or not full
        }
