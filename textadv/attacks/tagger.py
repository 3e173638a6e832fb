"""Tag parts of speech with nltk's averaged perceptron, read from its data files."""

from __future__ import annotations

import functools
import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textadv.errors import ResourceError, shown
from textadv.resources import find

__all__ = ["Tagger", "load_tagger", "universal"]

_GROUPS = {
    "NOUN": "NN NNP NNPS NNS NP",
    "VERB": "MD VB VBD VBG VBN VBP VBZ VP",
    "ADJ": "JJ JJR JJS",
    "ADV": "RB RBR RBS WRB",
    "PRON": "PRP PRP$ WP WP$",
    "DET": "DT EX PDT WDT",
    "ADP": "IN",
    "NUM": "CD",
    "CONJ": "CC",
    "PRT": "POS PRT RP TO",
    ".": "! # $ '' ( ) , -LRB- -RRB- . : ? ``",
}
_UNIVERSAL = {tag: group for group, tags in _GROUPS.items() for tag in tags.split()}


def universal(tag: str) -> str:
    """Return the universal tag of a Penn Treebank tag; X for others.

    Source: Petrov, Das and McDonald, A Universal Part-of-Speech Tagset, LREC 2012.
    """
    return _UNIVERSAL.get(tag, "X")


class Tagger:
    """Give words their universal part-of-speech tags.

    Source: Honnibal, A good part-of-speech tagger in about 200 lines of Python, 2013; the weights
    and the features they were trained with are nltk's.

    Args:
        path: A folder with the classes, tag dictionary and weights as JSON, or a zip of it.
    """

    def __init__(self, path: Path) -> None:
        self._weights: dict[str, dict[str, float]] = _read(path, "weights")
        self._known: dict[str, str] = _read(path, "tagdict")
        self._classes: list[str] = sorted(_read(path, "classes"), reverse=True)

    @functools.lru_cache(maxsize=65536)  # noqa: B019 - one instance per file
    def tags(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """Return the universal tag of each word of a text."""
        return tuple(universal(tag) for tag in self.penn_tags(words))

    def penn_tags(self, words: Sequence[str]) -> list[str]:
        """Return the Penn Treebank tag of each word of a text."""
        padded = ["-START-", "-START2-", *map(_folded, words), "-END-", "-END2-"]
        tags = ["-START2-", "-START-"]
        for index, word in enumerate(words):
            before, last = tags[-2:]
            tags.append(self._known.get(word) or self._predict(word, padded[index:], before, last))
        return tags[2:]

    def _predict(self, word: str, around: list[str], before: str, last: str) -> str:
        """Return the tag with the largest sum of weights, the last in the alphabet on a tie."""
        two_back, back, own, ahead, two_ahead = around[:5]
        features = (
            "bias",
            f"i suffix {word[-3:]}",
            f"i pref1 {word[:1]}",
            f"i-1 tag {last}",
            f"i-2 tag {before}",
            f"i tag+i-2 tag {last} {before}",
            f"i word {own}",
            f"i-1 tag+i word {last} {own}",
            f"i-1 word {back}",
            f"i-1 suffix {back[-3:]}",
            f"i-2 word {two_back}",
            f"i+1 word {ahead}",
            f"i+1 suffix {ahead[-3:]}",
            f"i+2 word {two_ahead}",
        )
        sums: defaultdict[str, float] = defaultdict(float)
        for feature in features:
            for tag, weight in self._weights.get(feature, {}).items():
                sums[tag] += weight
        return max(self._classes, key=lambda tag: sums[tag])


def _folded(word: str) -> str:
    """Return the form under which a word stands in features."""
    if "-" in word and not word.startswith("-"):
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    return "!DIGITS" if word[:1].isdigit() else word.lower()


def _read(path: Path, part: str) -> Any:
    try:
        if path.is_dir():
            (file,) = path.glob(f"*.{part}.json")
            return json.loads(file.read_bytes())
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(f".{part}.json"))
            return json.loads(archive.read(name))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ResourceError(
            f"tagger {path}",
            got=f"no readable {part} in it: {shown(str(error))}",
            expected="nltk's averaged_perceptron_tagger_eng, as JSON",
        ) from error


def load_tagger(path: str | None = None) -> Tagger:
    """Open the tagger, once per place.

    Raises:
        ResourceError: There is none.
    """
    return _load(find("tagger", path))


@functools.cache
def _load(path: Path) -> Tagger:
    return Tagger(path)
