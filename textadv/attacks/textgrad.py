"""TextGrad: projected gradient descent over which words to change and what to."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import Lattice, SynonymLattice
from textadv.attacks.requests import Gradients, Slopes
from textadv.attacks.search import best
from textadv.words import Words

__all__ = ["TextGrad", "project_budget", "project_simplex"]

Floats: TypeAlias = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextGrad(SynonymLattice):
    """Relax the choice of words to change and of their substitutes, and descend the margin.

    The chance of each word to be changed and the weights of its candidates are moved by the mean
    slope at sampled texts, then projected back: chances to the budget, weights to the simplex. At
    the end texts are sampled and asked about.

    Source: Hou et al., TextGrad, ICLR 2023, arXiv 2212.09254: 50 candidates of a masked language
    model, a quarter of the words, 20 steps of 0.8 / sqrt(t) along normalised slopes, straight
    through 20 samples, 20 samples at the end, up to 10 restarts.

    Deviations: no language-model penalty and no limit to parts of speech; the slope is taken at the
    sampled text and extended to first order to the other candidates; a sampled text that changes
    the prediction ends the search at once.

    Cost: for each restart 20 gradients for each of 20 steps, and 20 texts.

    Args:
        max_rate: Largest share of words changed, rounded down, at least one.
        num_steps: Steps.
        step_size: Of the first step.
        num_samples: Texts sampled in each step, and at the end.
        num_restarts: Starts.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "masked-lm"
    max_rate: float = ranged(0.25, 0, 1)
    num_steps: int = 20
    step_size: float = ranged(0.8, 0)
    num_samples: int = 20
    num_restarts: int = 10

    white_box = True

    def search(self, example: Example, rng: random.Random) -> Search:
        """Descend from each start, and sample."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        limit = max(1, math.floor(self.max_rate * len(example.words)))
        words = example.words.words
        options = {at: [words[at], *names] for at, names in lattice.items()}
        for _ in range(self.num_restarts):
            chances = project_budget(np.array([rng.random() for _ in lattice]), limit)
            weights = [
                project_simplex(np.array([rng.random() for _ in n])) for n in lattice.values()
            ]
            for step in range(1, self.num_steps + 1):
                texts = [
                    _sample(example.words, lattice, chances, weights, limit, rng)
                    for _ in range(self.num_samples)
                ]
                slopes: list[Slopes | None] = yield Gradients(texts, options)
                known = [one for one in slopes if one is not None]
                if not known:
                    return None
                found = best(example, torch.stack([one.logits for one in known]))
                if found is not None and found[2]:
                    return texts[found[0]]
                if len(known) < len(texts):
                    return None
                size = self.step_size / math.sqrt(step)
                chances, weights = _descend(chances, weights, known, lattice, limit, size)
            texts = [
                _sample(example.words, lattice, chances, weights, limit, rng)
                for _ in range(self.num_samples)
            ]
            found = best(example, (yield texts))
            if found is not None and found[2]:
                return texts[found[0]]
        return None


def _descend(
    chances: Floats,
    weights: Sequence[Floats],
    slopes: Sequence[Slopes],
    lattice: Lattice,
    limit: int,
    size: float,
) -> tuple[Floats, list[Floats]]:
    """Move along the mean fall of the margin, normalised, and project."""
    falls = [np.mean([one.gains[at] for one in slopes], axis=0) for at in lattice]
    # What a word gains by being changed: its candidates as weighted, against the original word.
    wanted = np.array(
        [weight @ fall[1:] - fall[0] for weight, fall in zip(weights, falls, strict=True)]
    )
    moved = [
        project_simplex(weight + size * _unit(chance * fall[1:]))
        for weight, chance, fall in zip(weights, chances, falls, strict=True)
    ]
    return project_budget(chances + size * _unit(wanted), limit), moved


def _sample(
    words: Words,
    lattice: Lattice,
    chances: Floats,
    weights: Sequence[Floats],
    limit: int,
    rng: random.Random,
) -> Words:
    """Draw words to change and their substitutes; those over the limit are left as they are."""
    changes: dict[int, str] = {}
    for chance, weight, (at, names) in zip(chances, weights, lattice.items(), strict=True):
        changed = rng.random() < chance
        (name,) = rng.choices(names, weight.tolist())
        if changed and len(changes) < limit:
            changes[at] = name
    return words.replace_many(changes)


def _unit(values: Floats) -> Floats:
    length = float(np.linalg.norm(values))
    return values / length if length else values


def project_simplex(values: Floats) -> Floats:
    """Return the nearest point with entries >= 0 that sum to 1.

    Source: Held, Wolfe and Crowder, Mathematical Programming 1974.

    Example:
        >>> project_simplex(np.array([0.5, 1.5])).tolist()
        [0.0, 1.0]
    """
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(values) + 1)
    threshold = excess[np.flatnonzero(ordered > excess)[-1]]
    projected: Floats = np.maximum(values - threshold, 0)
    return projected


def project_budget(values: Floats, budget: float) -> Floats:
    """Return the nearest point with entries in [0, 1] that sum to at most `budget`.

    Found by bisection of the shift, to 60 halvings.

    Example:
        >>> project_budget(np.array([2.0, 0.75, 0.75]), 2).round(6).tolist()
        [1.0, 0.5, 0.5]
    """
    clipped: Floats = np.clip(values, 0, 1)
    if clipped.sum() <= budget:
        return clipped
    low, high = 0.0, float(values.max())
    for _ in range(60):
        middle = (low + high) / 2
        if np.clip(values - middle, 0, 1).sum() > budget:
            low = middle
        else:
            high = middle
    shifted: Floats = np.clip(values - high, 0, 1)
    return shifted
