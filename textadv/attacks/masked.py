"""Attacks that take their words from a masked language model: BERT-Attack and BAE."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Generator
from typing import Any, Literal, TypeAlias

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import SynonymLattice, match_case, prepare_resources
from textadv.attacks.constraints import attackable, is_stopword
from textadv.attacks.meaning import Allowed, Meaning
from textadv.attacks.requests import Fill, Request
from textadv.attacks.search import best, climb, rank
from textadv.resources import find
from textadv.vectors import load_vectors
from textadv.words import Words

__all__ = ["BAEI", "BAER", "Action", "BertAttack", "filled"]

Action: TypeAlias = tuple[Literal["before", "insert", "replace", "merge"], int]
"""What is done at a word, and its position; `"insert"` puts a word behind it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertAttack(SynonymLattice):
    """Replace words by what a masked language model expects in the unmasked text.

    The model sees the unchanged text once. Words of several pieces get combinations of pieces.
    Candidates are tried in the model's order, and the first that changes the prediction ends the
    attack; otherwise the best is kept.

    Source: Li et al., BERT-ATTACK, EMNLP 2020, arXiv 2004.09984: 48 candidates, 4 choices for each
    piece and 24 combinations, at most 40 % of the words.

    Deviations: the last word is attacked too; a position without gain keeps its word; no sentence
    similarity, which the authors only measure. The antonym filter needs vectors.

    Cost: 1 + m + up to 48 for each of the m words, in requests of `chunk`.

    Known failure: the model's favourites need not be synonyms.

    Args:
        max_rate: Largest share of words modified, rounded up.
        antonym_cosine: Drop candidates below this cosine in `vectors`; None to keep all.
        unknown: What stands for a word the model does not know.
        chunk: Candidates asked about at once; a success costs up to `chunk - 1` too many.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "masked-lm"
    max_candidates: int = 48
    max_rate: float = ranged(0.4, 0, 1)
    antonym_cosine: float | None = ranged(None, -1, 1)
    unknown: str = "[UNK]"
    chunk: int = 8

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return super().needs() | ({} if self.antonym_cosine is None else {"vectors": self.vectors})

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank the words, then substitute until the first flip."""
        proposed = yield from self.propose(example.words)
        kept = {at: self._kept(example.words.words[at], names) for at, names in proposed.items()}
        lattice = {at: names for at, names in kept.items() if names}
        if not lattice:
            raise NoCandidatesError
        order = yield from rank(example, list(lattice), "unk", self.unknown)
        current, margin = example.words, example.clean_margin
        limit = math.ceil(self.max_rate * len(current))
        for index in order:
            if current.num_modified >= limit:
                return None
            base = current
            for start in range(0, len(lattice[index]), self.chunk):
                names = lattice[index][start : start + self.chunk]
                texts = [base.replace(index, name) for name in names]
                scores = yield texts
                flips = example.flips(scores)
                if True in flips:
                    return texts[flips.index(True)]
                found = best(example, scores)
                if found is not None and found[1] < margin:
                    current, margin = texts[found[0]], found[1]
        return None

    def _kept(self, word: str, names: list[str]) -> list[str]:
        """Leave out function words, and what the vectors say is far from the word."""
        kept = [name for name in names if not is_stopword(name)]
        if self.antonym_cosine is None:
            return kept
        table = load_vectors(str(find("vectors", self.vectors)))
        own = word.lower()
        if own not in table:
            return kept
        return [
            name
            for name in kept
            if name.lower() not in table or table.cosine(own, name.lower()) >= self.antonym_cosine
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BAER(Meaning):
    """Replace words by what a masked language model puts in their place.

    Words are ranked by the fall of the margin when they are deleted. Of the candidates that change
    the prediction the one most similar in meaning is taken; otherwise the one of lowest margin.

    Source: Garg and Ramakrishnan, BAE, EMNLP 2020, arXiv 2004.01970, mode R: 50 tokens, the same
    part of speech with nouns and verbs exchangeable, similarity in a window of 15 words to the
    unchanged text at the threshold of TextAttack (cosine 0.936; the authors' code means 0.980).

    Deviations: any sentence encoder; candidates need not be in a vocabulary of vectors.

    Cost: 1 + m + the candidates that pass, up to 50 for each of the m words.

    Known failure: the model proposes antonyms.

    Args:
        masked_lm: Directory of a masked language model; by default `TEXTADV_MASKED_LM`.
        top_k: Tokens of the model that are looked at.
        skip_stopwords: Leave function words alone.
    """

    pos: Literal["any", "noun-verb", "exact"] = "noun-verb"
    min_similarity: float | None = ranged(0.936, -1, 1)
    reference: Literal["previous", "original"] = "original"
    masked_lm: str | None = None
    top_k: int = 50
    skip_stopwords: bool = True

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return {"masked-lm": self.masked_lm} | super().needs()

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank the words by deletion, then edit greedily."""
        positions = attackable(example.words, skip_stopwords=self.skip_stopwords)
        if not positions:
            raise NoCandidatesError
        order = yield from rank(example, positions, "delete")
        return (
            yield from climb(
                example, order, lambda words, index: self.candidates(example, words, index)
            )
        )

    def candidates(self, example: Example, words: Words, index: int) -> Allowed:
        """Return the replacements of one word that pass every check."""
        texts = yield from filled(words, [("replace", index)], self.masked_lm, self.top_k)
        return (yield from self.allowed(example, words, index, [text for _, _, text in texts]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BAEI(BAER):
    """Insert what a masked language model puts before and behind the words that matter most.

    Source: Garg and Ramakrishnan, BAE, EMNLP 2020, arXiv 2004.01970, mode I.

    Deviations: as `bae-r`; an inserted word has no part of speech to keep.

    Cost: 1 + m + the candidates that pass, up to 100 for each of the m words.
    """

    pos: Literal["any", "noun-verb", "exact"] = "any"

    def candidates(self, example: Example, words: Words, index: int) -> Allowed:
        """Return the insertions on both sides of one word that pass every check."""
        actions: list[Action] = [("before", index), ("insert", index)]
        texts = yield from filled(words, actions, self.masked_lm, self.top_k)
        return (yield from self.allowed(example, words, index, [text for _, _, text in texts]))


def filled(
    words: Words, actions: list[Action], model: str | None, top_k: int
) -> Generator[Request, Any, list[tuple[Action, float, Words]]]:
    """Return every action with each word the masked model proposes for it: chance and text."""
    gaps = []
    for kind, index in actions:
        column, start, end = words.spans[index]
        text = words.texts[column]
        left, right = text[:start], text[end:]
        if kind == "before":
            right = " " + text[start:]
        elif kind == "insert":
            left = text[:end] + " "
        elif kind == "merge":
            right = text[words.spans[index + 1][2] :]
        gaps.append((left, right))
    answers = yield Fill(model, gaps, top_k)
    found: list[tuple[Action, float, Words]] = []
    for (kind, index), proposals in zip(actions, answers, strict=True):
        old = {words.words[index].lower()} if kind in ("replace", "merge") else set()
        for name, chance in proposals:
            if name.lower() in old:
                continue
            if kind == "before":
                text_ = words.insert_before(index, name)
            elif kind == "insert":
                text_ = words.insert_after(index, name)
            else:
                base = words.delete(index + 1) if kind == "merge" else words
                text_ = base.replace(index, match_case(name, words.words[index]))
            found.append(((kind, index), chance, text_))
    return found
