"""Greedy word substitution with checks of meaning: TextFooler and A2T."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Literal

from textadv.attacks.base import Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import Lattice, SynonymLattice, prepare_resources
from textadv.attacks.meaning import Allowed, Meaning
from textadv.attacks.search import Ranked, climb, rank, rank_by_gradient
from textadv.words import Words

__all__ = ["A2T", "TextFooler", "TextFoolerAuthor", "TextFoolerStrict"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFooler(SynonymLattice, Meaning):
    """Replace words by near words of the same kind that keep the sentence's meaning.

    Words are ranked by the fall of the margin when they are deleted. Of the candidates that change
    the prediction the one most similar in meaning is taken; otherwise the one of lowest margin.

    Source: Jin et al., Is BERT Really Robust?, AAAI 2020, arXiv 1907.11932, in the variant of
    TextAttack: 50 neighbours of cosine 0.5, words ranked by deletion, nouns and verbs exchangeable,
    similarity 0.8408 in angle (0.878 as cosine) in a window of 15 words to the text before this
    edit.

    Deviations: any sentence encoder instead of the Universal Sentence Encoder, whose thresholds are
    kept; function words are recognised in any case; margins instead of probabilities.

    Cost: 1 + m + the candidates that pass, up to 50 for each of the m words that have any.

    Known failure: vectors that are not counter-fitted offer antonyms.

    Args:
        ranking: Delete a word, or replace it with `unknown`.
        unknown: What stands for a word the model does not know.
        accept: What an edit that changes no prediction must improve on: the current or the clean
            text.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "vectors"
    pos: Literal["any", "noun-verb", "exact"] = "noun-verb"
    min_similarity: float | None = ranged(0.878, -1, 1)
    ranking: Literal["delete", "unk"] = "delete"
    unknown: str = "[UNK]"
    accept: Literal["current", "clean"] = "current"

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return SynonymLattice.needs(self) | Meaning.needs(self)

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank the words that have candidates, then substitute greedily."""
        lattice = yield from self.propose(example.words)
        if not lattice:
            raise NoCandidatesError
        order = yield from self.order(example, list(lattice))
        return (
            yield from climb(
                example,
                order,
                lambda words, index: self.candidates(example, lattice, words, index),
                accept=self.accept,
                max_modified=self.max_modified(example.words),
            )
        )

    def order(self, example: Example, positions: list[int]) -> Ranked:
        """Return the positions, most important first."""
        return (yield from rank(example, positions, self.ranking, self.unknown))

    def candidates(self, example: Example, lattice: Lattice, words: Words, index: int) -> Allowed:
        """Return the substitutions at one position that pass every check."""
        texts = [words.replace(index, word) for word in lattice[words.origins[index]]]
        return (yield from self.allowed(example, words, index, texts))

    def max_modified(self, words: Words) -> float | None:
        """Return how many words may be modified."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFoolerAuthor(TextFooler):
    """Replace words as TextFooler's published code and command line do.

    Differs from `textfooler`: words are ranked by replacing them with an unknown word; the tag of
    the old word is taken from the whole text; similarity 0.7 of the code's measure (cosine 0.955);
    an edit must be better than the clean text, not than the current one.

    Source: Jin et al., AAAI 2020, arXiv 1907.11932, and the authors' code with its defaults.

    Deviations: as `textfooler`; the importance bonus for a changed label is what the margin does
    anyway.

    Cost: as `textfooler`.
    """

    ranking: Literal["delete", "unk"] = "unk"
    pos_context: Literal["window", "text"] = "text"
    min_similarity: float | None = ranged(0.955, -1, 1)
    accept: Literal["current", "clean"] = "clean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFoolerStrict(TextFooler):
    """Replace words under thresholds that human judges agreed with.

    Differs from `textfooler`: word cosine 0.9, sentence cosine 0.98 to the unchanged text as a
    whole, and the same part of speech exactly.

    Source: Morris et al., Reevaluating Adversarial Examples in Natural Language, Findings of EMNLP
    2020, arXiv 2004.14174.

    Deviations: no grammar checker; as `textfooler` otherwise.

    Cost: as `textfooler`, with far fewer candidates.
    """

    min_cosine: float = ranged(0.9, -1, 1)
    pos: Literal["any", "noun-verb", "exact"] = "exact"
    min_similarity: float | None = ranged(0.98, -1, 1)
    window: int | None = None
    reference: Literal["previous", "original"] = "original"


@dataclasses.dataclass(frozen=True, kw_only=True)
class A2T(TextFooler):
    """Replace words, ranked once by gradient, for adversarial training.

    Source: Yoo and Qi, Towards Improving Adversarial Training of NLP Models, Findings of EMNLP
    2021, arXiv 2109.00544: 20 neighbours of cosine 0.8, the same part of speech, sentence cosine
    0.9 to the unchanged text, at most a tenth of the words but always up to four.

    Deviations: the gradient is that of the margin, in evaluation mode, unpadded and in one pass;
    any sentence encoder instead of DistilBERT-STS.

    Cost: 2 + 20 queries for each word visited; the gradient counts as one.

    Args:
        max_rate: Largest share of words modified, rounded up.
        min_modified: Number of words that may be modified whatever the share.
    """

    max_candidates: int = 20
    min_cosine: float = ranged(0.8, -1, 1)
    pos: Literal["any", "noun-verb", "exact"] = "exact"
    min_similarity: float | None = ranged(0.9, -1, 1)
    window: int | None = None
    reference: Literal["previous", "original"] = "original"
    max_rate: float = ranged(0.1, 0, 1)
    min_modified: int = 4

    white_box = True

    def order(self, example: Example, positions: list[int]) -> Ranked:
        """Return the positions, steepest first."""
        return (yield from rank_by_gradient(example, positions))

    def max_modified(self, words: Words) -> float | None:
        """Return how many words may be modified."""
        return max(math.ceil(self.max_rate * len(words)), self.min_modified)
