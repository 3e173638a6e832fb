"""CLARE: replace, insert and merge in the order of what each does to the margin."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Generator
from typing import Any, Literal

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import prepare_resources
from textadv.attacks.constraints import attackable
from textadv.attacks.masked import Action, filled
from textadv.attacks.meaning import Meaning
from textadv.attacks.requests import Request
from textadv.attacks.search import best
from textadv.words import Words

__all__ = ["CLARE"]

_KINDS: tuple[Literal["replace", "insert", "merge"], ...] = ("replace", "insert", "merge")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLARE(Meaning):
    """Replace, insert and merge words with what a masked language model puts in their place.

    Every action is tried on the unchanged text and ranked by its best candidate; then the actions
    are made in that order, with new proposals from the running text. Neighbours of an edit are left
    alone.

    Source: Li et al., Contextualized Perturbation for Textual Adversarial Attack, NAACL 2021,
    arXiv 2009.07502, with the single ranking pass of the authors' code.

    Deviations: merges are not limited to pairs of parts of speech; any masked language model and
    sentence encoder; queries are counted as they are made.

    Cost: 1 + up to 3 times 50 for each word to rank, then up to 50 for each action.

    Args:
        masked_lm: Directory of a masked language model; by default `TEXTADV_MASKED_LM`.
        top_k: Tokens of the model that are looked at.
        min_replace: Least probability of a replacement.
        min_insert: Least probability of an insertion.
        min_merge: Least probability of a word that two are merged into.
        skip_stopwords: Leave function words alone.
    """

    min_similarity: float | None = ranged(0.7, -1, 1)
    reference: Literal["previous", "original"] = "original"
    masked_lm: str | None = None
    top_k: int = 50
    min_replace: float = ranged(5e-4, 0, 1)
    min_insert: float = ranged(0.0, 0, 1)
    min_merge: float = ranged(5e-3, 0, 1)
    skip_stopwords: bool = True

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return {"masked-lm": self.masked_lm} | super().needs()

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank all actions once, then make them one after the other."""
        words = example.words
        positions = attackable(words, skip_stopwords=self.skip_stopwords)
        actions: list[Action] = [
            (kind, at)
            for at in positions
            for kind in _KINDS
            if kind != "merge" or _can_merge(words, at)
        ]
        edits, similarities = yield from self._edits(example, words, actions)
        if not edits:
            raise NoCandidatesError
        scores = yield [text for _, text in edits]
        found = best(example, scores, similarities)
        if found is not None and found[2]:
            return edits[found[0]][1]
        falls: dict[Action, float] = {}
        for (action, _), margin in zip(edits, example.margins(scores), strict=True):
            falls[action] = min(margin, falls.get(action, math.inf))
        current, margin = words, example.clean_margin
        touched: set[int] = set()
        for kind, origin in sorted(falls, key=lambda action: falls[action]):
            index = current.position(origin)
            last = origin + (kind == "merge")
            if index is None or touched & set(range(origin - 1, last + 2)):
                continue
            edits, similarities = yield from self._edits(example, current, [(kind, index)])
            if not edits:
                continue
            found = best(example, (yield [text for _, text in edits]), similarities)
            if found is not None and found[2]:
                return edits[found[0]][1]
            if found is not None and found[1] < margin:
                current, margin = edits[found[0]][1], found[1]
                touched |= {origin, last}
        return None

    def _edits(
        self, example: Example, words: Words, actions: list[Action]
    ) -> Generator[Request, Any, tuple[list[tuple[Action, Words]], list[float]]]:
        """Return the candidates of the actions that are probable and keep the meaning."""
        least = {"replace": self.min_replace, "insert": self.min_insert, "merge": self.min_merge}
        proposals = yield from filled(words, actions, self.masked_lm, self.top_k)
        likely = [
            ((kind, index), text)
            for (kind, index), chance, text in proposals
            if chance > least[kind]
        ]
        passed = yield from self.passing(
            example, words, [(index, text) for (_, index), text in likely]
        )
        return [likely[row] for row, _ in passed], [similarity for _, similarity in passed]


def _can_merge(words: Words, index: int) -> bool:
    after = index + 1
    return (
        after < len(words)
        and words.editable[after]
        and words.columns[after] == words.columns[index]
    )
