"""Particle swarm optimisation over word substitutions."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Generator, Sequence
from typing import Any

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import Lattice, SynonymLattice
from textadv.attacks.requests import Request
from textadv.attacks.search import best
from textadv.words import Words

__all__ = ["PSO"]

HIGH, LOW = 0.8, 0.2


@dataclasses.dataclass
class _Particle:
    """A text, its velocity at each place, and the best text it has been at."""

    words: Words
    margin: float
    velocity: dict[int, float]
    best_words: Words
    best_margin: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSO(SynonymLattice):
    """Move a swarm of texts towards the best ones seen, word by word, and mutate them.

    With `source: sememes` and a table of HowNet this is the published attack; with WordNet, the
    default, it is the same search over synonyms.

    Source: Zang et al., Word-level Textual Adversarial Attacking as Combinatorial Optimization, ACL
    2020, arXiv 1910.12196: 60 particles, 20 iterations, inertia from 0.8 to 0.2, velocity up to 3,
    mutation with probability 1 - 2 * share of modified words.

    Deviations: parts of speech are not checked; positions are drawn by the fall of the margin in
    units of the clean spread; a mutation looks at the words that are not modified yet.

    Cost: 1 + all candidates of all words, for the first swarm and again for each mutated particle,
    and 60 for each iteration.

    Args:
        particles: Texts in the swarm.
        iterations: Most moves.
        max_velocity: Bound of each velocity.
        max_rate: Largest share of words modified, rounded up.
    """

    particles: int = ranged(60, 2)
    iterations: int = 20
    max_velocity: float = ranged(3.0, 0)
    max_rate: float = ranged(0.4, 0, 1)

    def search(self, example: Example, rng: random.Random) -> Search:
        """Spread the swarm, then move and mutate it until some text flips."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        places = sorted(lattice)
        limit = math.ceil(self.max_rate * len(example.words))
        starts, flipped = yield from self._mutants(
            example, lattice, limit, [(example.words, example.clean_margin)] * self.particles, rng
        )
        if flipped is not None:
            return flipped
        v = self.max_velocity
        swarm = [
            _Particle(words, margin, {at: rng.uniform(-v, v) for at in places}, words, margin)
            for words, margin in starts
        ]
        leader = min(swarm, key=lambda one: one.margin)
        top, top_margin = leader.words, leader.margin
        for iteration in range(self.iterations):
            done = (iteration + 1) / self.iterations
            inertia = HIGH - done * (HIGH - LOW)
            own, shared = inertia, LOW + done * (HIGH - LOW)
            for one in swarm:
                self._move(one, top, places, inertia, (own, shared), rng)
            flipped = yield from self._judge(example, swarm)
            if flipped is not None:
                return flipped
            chosen = [
                one
                for one in swarm
                if rng.random() < 1 - 2 * one.words.num_modified / len(one.words)
            ]
            mutants, flipped = yield from self._mutants(
                example, lattice, limit, [(one.words, one.margin) for one in chosen], rng
            )
            if flipped is not None:
                return flipped
            for one, (words, margin) in zip(chosen, mutants, strict=True):
                one.words, one.margin = words, margin
            for one in swarm:
                if one.words.num_modified > limit:
                    continue
                if one.margin < one.best_margin:
                    one.best_words, one.best_margin = one.words, one.margin
                if one.margin < top_margin:
                    top, top_margin = one.words, one.margin
        return None

    def _move(
        self,
        one: _Particle,
        top: Words,
        places: Sequence[int],
        inertia: float,
        chances: tuple[float, float],
        rng: random.Random,
    ) -> None:
        """Update the velocities, then turn words to those of the two best texts."""
        v = self.max_velocity
        for at in places:
            here = one.words.words[at]
            pull = sum(-v if here == other.words[at] else v for other in (one.best_words, top))
            speed = inertia * one.velocity[at] + (1 - inertia) * pull
            one.velocity[at] = max(-v, min(v, speed))
        for target, chance in zip((one.best_words, top), chances, strict=True):
            if rng.random() < chance:
                turned = [at for at in places if rng.random() < _sigmoid(one.velocity[at])]
                one.words = one.words.replace_many({at: target.words[at] for at in turned})

    def _judge(
        self, example: Example, swarm: Sequence[_Particle]
    ) -> Generator[Request, Any, Words | None]:
        """Ask about the swarm; return a text that flips within the share of words."""
        scores = yield [one.words for one in swarm]
        limit = math.ceil(self.max_rate * len(example.words))
        flips = example.flips(scores)
        for one, margin, flip in zip(swarm, example.margins(scores), flips, strict=True):
            one.margin = margin
            if flip and one.words.num_modified <= limit:
                return one.words
        return None

    def _mutants(
        self,
        example: Example,
        lattice: Lattice,
        limit: int,
        members: Sequence[tuple[Words, float]],
        rng: random.Random,
    ) -> Generator[Request, Any, tuple[list[tuple[Words, float]], Words | None]]:
        """Give one word of each text its best candidate, drawn by the fall of the margin.

        Texts that may not be modified further come back as they are.
        """
        options: dict[tuple[str, ...], list[tuple[int, Words]]] = {}
        for text, _ in members:
            modified = set(text.modified_positions)
            free = [at for at in lattice if at not in modified and len(modified) < limit]
            options[text.texts] = [(at, text.replace(at, n)) for at in free for n in lattice[at]]
        candidates = [words for many in options.values() for _, words in many]
        scores = yield candidates
        found = best(example, scores)
        if found is not None and found[2]:
            return [], candidates[found[0]]
        margins = iter(example.margins(scores))
        tops: dict[tuple[str, ...], dict[int, tuple[float, Words]]] = {}
        for key, many in options.items():
            tops[key] = {}
            for at, words in many:
                margin = next(margins)
                if at not in tops[key] or margin < tops[key][at][0]:
                    tops[key][at] = margin, words
        mutants = []
        for text, margin in members:
            choices = list(tops[text.texts].values())
            if not choices:
                mutants.append((text, margin))
                continue
            lowest = min(top for top, _ in choices)
            weights = [math.exp(lowest - top) if math.isfinite(top) else 0.0 for top, _ in choices]
            top, words = rng.choices(choices, weights if any(weights) else None)[0]
            mutants.append((words, top))
        return mutants, None


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
