"""Where substitute words come from: WordNet or word vectors, as a lattice over one text."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from textadv.attacks.constraints import attackable
from textadv.attacks.wordnet import load_wordnet
from textadv.errors import ConfigError, ResourceError, shown
from textadv.resources import load_vectors
from textadv.words import Words

__all__ = ["Lattice", "SynonymLattice", "match_case"]

Lattice: TypeAlias = dict[int, list[str]]
"""Candidates by position, best first; positions without any are left out."""


def match_case(word: str, like: str) -> str:
    """Return `word` in the case pattern of `like`: UPPER, Title, or as it is.

    Example:
        >>> match_case("fine", "Good"), match_case("fine", "GOOD"), match_case("fine", "good")
        ('Fine', 'FINE', 'fine')
    """
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynonymLattice:
    """Propose synonyms of every attackable word of a text, from the unchanged text alone.

    Args:
        source: `"wordnet"`: lemmas that share a synset, most frequent sense first. `"vectors"`:
            nearest words by cosine, for which counter-fitted vectors keep antonyms apart.
        wordnet: Folder or zip with WordNet, or an nltk data folder; by default `NLTK_DATA` and
            nltk's usual places.
        vectors: A `.npy` matrix with `words.txt` beside it, or a word2vec or GloVe text file.
        max_candidates: Most candidates per word.
        min_cosine: Least cosine of a candidate, with `source="vectors"`.
        skip_stopwords: Leave function words alone.
    """

    source: Literal["wordnet", "vectors"] = "wordnet"
    wordnet: str | None = None
    vectors: str | None = None
    max_candidates: int = 50
    min_cosine: float = 0.5
    skip_stopwords: bool = True

    def __post_init__(self) -> None:
        if self.source not in ("wordnet", "vectors"):
            got = shown(self.source)
            raise ConfigError("attack source", got=got, expected="'wordnet' or 'vectors'")
        if self.max_candidates < 1:
            raise ConfigError("max_candidates", got=str(self.max_candidates), expected=">= 1")
        if not -1 <= self.min_cosine <= 1:
            raise ConfigError("min_cosine", got=str(self.min_cosine), expected="-1 to 1")

    def prepare(self) -> None:
        """Load the source; ResourceError when it is not there."""
        if self.source == "wordnet":
            load_wordnet(self.wordnet)
        else:
            load_vectors(self._vectors_path())

    def lattice(self, words: Words) -> Lattice:
        """Return the candidates of every attackable position, in the case of the word there."""
        positions = attackable(words, skip_stopwords=self.skip_stopwords)
        found: Lattice = {}
        for index in positions:
            word = words.words[index]
            names = (match_case(name, word) for name in self.synonyms(word))
            unique = [name for name in dict.fromkeys(names) if name != word]
            if unique:
                found[index] = unique[: self.max_candidates]
        return found

    def synonyms(self, word: str) -> list[str]:
        """Return the candidates of one word, best first, in the source's own case."""
        if self.source == "wordnet":
            return list(load_wordnet(self.wordnet).synonyms(word))
        table = load_vectors(self._vectors_path())
        key = word if word in table else word.lower()
        neighbours = table.neighbours(key, self.max_candidates)
        near = (name for name, cosine in neighbours if cosine >= self.min_cosine)
        return [name for name in near if name.lower() != word.lower()]

    def _vectors_path(self) -> str:
        if self.vectors is None:
            raise ResourceError(
                "synonyms from vectors",
                got="no `vectors` field",
                expected="the path of word vectors",
                fix="set `vectors`, or use source: wordnet",
            )
        return self.vectors
