"""Where substitute words come from: WordNet, vectors, sememes, a masked LM; a lattice per text."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from textadv import language
from textadv.attacks.base import Checked, ranged
from textadv.attacks.constraints import attackable
from textadv.attacks.requests import Guess, Request
from textadv.attacks.tagger import load_tagger
from textadv.attacks.wordnet import load_wordnet
from textadv.errors import ResourceError, shown
from textadv.resources import find
from textadv.vectors import Vectors, load_vectors
from textadv.words import Words

__all__ = ["Lattice", "SynonymLattice", "load_sememes", "match_case", "prepare_resources"]

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
class SynonymLattice(Checked):
    """Propose substitutes of every attackable word of a text, from the unchanged text alone.

    Args:
        source: `"wordnet"`: lemmas that share a synset, most frequent sense first. `"vectors"`:
            nearest words by cosine, for which counter-fitted vectors keep antonyms apart.
            `"sememes"`: words with a sense of the same sememes. `"masked-lm"`: what a masked
            language model expects in the place.
        wordnet: Folder or zip with WordNet, or an nltk data folder; by default `NLTK_DATA` and
            nltk's usual places.
        vectors: A `.npy` matrix with `words.txt` beside it, or a word2vec or GloVe text file; by
            default `TEXTADV_VECTORS`.
        sememes: A JSON file, each word with the sememes of each sense; by default
            `TEXTADV_SEMEMES`.
        masked_lm: Directory of a masked language model; by default `TEXTADV_MASKED_LM`.
        max_candidates: Most candidates per word.
        min_cosine: Least cosine of a candidate, with `source="vectors"`.
        skip_stopwords: Leave function words alone.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "wordnet"
    wordnet: str | None = None
    vectors: str | None = None
    sememes: str | None = None
    masked_lm: str | None = None
    max_candidates: int = 50
    min_cosine: float = ranged(0.5, -1, 1)
    skip_stopwords: bool = True

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        paths = {"masked-lm": self.masked_lm}
        return {self.source: paths.get(self.source, getattr(self, self.source.replace("-", "_")))}

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def lattice(self, words: Words) -> Lattice:
        """Return the candidates of every attackable position, in the case of the word there.

        For sources that know words apart from their text; see `propose` for all.
        """
        positions = self.positions(words)
        if self.source == "vectors":
            # One pass over the matrix for all words of the text.
            table = self.table()
            keys = [_key(table, words.words[index]) for index in positions]
            table.prepare(keys, self.max_candidates)
        return self.cleaned(words, {at: self.synonyms(words.words[at]) for at in positions})

    def propose(self, words: Words) -> Generator[Request, Any, Lattice]:
        """Return the lattice of a text, asking the masked language model where it is the source."""
        if self.source != "masked-lm":
            return self.lattice(words)
        found: Lattice = {}
        for column, text in enumerate(words.texts):
            places = [at for at in self.positions(words) if words.columns[at] == column]
            if places:
                spans = [words.spans[at][1:] for at in places]
                answers = yield Guess(self.masked_lm, text, spans, self.max_candidates)
                found |= dict(zip(places, answers, strict=True))
        return self.cleaned(words, dict(sorted(found.items())))

    def positions(self, words: Words) -> list[int]:
        """Return the positions that may be edited."""
        return attackable(words, skip_stopwords=self.skip_stopwords)

    def cleaned(self, words: Words, names: Lattice) -> Lattice:
        """Match case, drop repeats and the word itself, cut, and leave out what is then empty."""
        found: Lattice = {}
        for index, candidates in names.items():
            word = words.words[index]
            cased = dict.fromkeys(match_case(name, word) for name in candidates)
            unique = [name for name in cased if name.lower() != word.lower()]
            if unique:
                found[index] = unique[: self.max_candidates]
        return found

    def synonyms(self, word: str) -> list[str]:
        """Return the candidates of one word, best first, in the source's own case."""
        if self.source == "wordnet":
            return list(load_wordnet(self.wordnet).synonyms(word))
        if self.source == "sememes":
            return load_sememes(self.sememes).get(word.lower(), [])
        table = self.table()
        neighbours = table.neighbours(_key(table, word), self.max_candidates)
        return [name for name, cosine in neighbours if cosine >= self.min_cosine]

    def table(self) -> Vectors:
        """Return the word vectors."""
        return load_vectors(str(find("vectors", self.vectors)))


def _key(table: Vectors, word: str) -> str:
    """Return the form under which a word may have a vector."""
    return word if word in table else word.lower()


def load_sememes(path: str | None = None) -> dict[str, list[str]]:
    """Return for each word the others that have a sense of exactly the same sememes.

    Source: Zang et al., ACL 2020.

    Raises:
        ResourceError: There is no table, or it is no JSON of words with lists of lists of strings.
    """
    return _load_sememes(find("sememes", path))


@functools.cache
def _load_sememes(file: Path) -> dict[str, list[str]]:
    try:
        table: dict[str, list[list[str]]] = json.loads(file.read_text(encoding="utf-8"))
        senses = {word: [frozenset(sense) for sense in many] for word, many in table.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ResourceError(
            f"sememes {file}",
            got=shown(str(error)),
            expected='JSON such as {"film": [["show", "record"]]}, sememes by word and sense',
        ) from error
    words: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for word, many in senses.items():
        for sense in dict.fromkeys(many):
            words[sense].append(word)
    return {
        word: [other for other in dict.fromkeys(n for s in many for n in words[s]) if other != word]
        for word, many in senses.items()
    }


def prepare_resources(needs: dict[str, str | None]) -> None:
    """Load resources by kind; ResourceError when one is not there."""
    for kind, path in needs.items():
        if kind == "wordnet":
            load_wordnet(path)
        elif kind == "vectors":
            load_vectors(str(find("vectors", path)))
        elif kind == "sememes":
            load_sememes(path)
        elif kind == "tagger":
            load_tagger(path)
        elif kind == "masked-lm":
            language.load_masked_lm(path)
        elif kind == "encoder":
            language.load_encoder(path)
        else:
            find(kind, path)
