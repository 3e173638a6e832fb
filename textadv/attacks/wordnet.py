"""Read the English WordNet database: synonyms of a word, also of its inflected forms."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path

from textadv.errors import ResourceError
from textadv.resources import find_nltk_data

__all__ = ["WordNet", "load_wordnet"]

_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}

# Endings and what replaces them, tried in this order: the detachment rules of morphy(7WN).
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "n": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
        ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ),
    "v": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
        ("ing", ""),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip


class WordNet:
    """The lemmas and synsets of a WordNet 3.x database, held in memory as they are on the disk.

    Source: Fellbaum, WordNet, MIT Press 1998; file formats in wndb(5WN).

    Args:
        path: A folder with `index.*`, `data.*` and `*.exc`, or a zip of such a folder.
    """

    def __init__(self, path: Path) -> None:
        self._data: dict[str, bytes] = {}
        self._index: dict[str, dict[str, str]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}
        for pos, name in _FILES.items():
            self._data[pos] = _read(path, f"data.{name}")
            index = _read(path, f"index.{name}").decode().splitlines()
            pairs = (line.split(" ", 1) for line in index if not line.startswith(" "))
            self._index[pos] = dict(pair for pair in pairs if len(pair) == 2)
            rows = (line.split() for line in _read(path, f"{name}.exc").decode().splitlines())
            self._exceptions[pos] = {row[0]: row[1:] for row in rows if row}

    @functools.cache  # noqa: B019 - one instance per database, alive as long as the process
    def lemmas(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        """Return all lemmas of all synsets of a word, most frequent sense first, without repeats.

        Args:
            word: In any case and inflection.
            pos: `"n"`, `"v"`, `"a"` or `"r"` to stay within a part of speech.
        """
        found: dict[str, None] = {}
        for part in _FILES if pos is None else (pos,):
            for base in self.base_forms(word, part):
                fields = self._index[part][base].split()
                for offset in fields[len(fields) - int(fields[1]) :]:
                    found.update(dict.fromkeys(self._synset(part, int(offset))))
        return tuple(found)

    def synonyms(self, word: str, pos: str | None = None) -> tuple[str, ...]:
        """Return the lemmas that are one plain word and not `word` itself in another case."""
        lowered = word.lower()
        names = (name for name in self.lemmas(lowered, pos) if name.lower() != lowered)
        return tuple(name for name in names if name.replace("-", "").replace("'", "").isalpha())

    def pairs(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return all pairs of synonyms and of antonyms that are single words, in lower case."""
        synonyms: dict[tuple[str, str], None] = {}
        antonyms: dict[tuple[str, str], None] = {}
        for pos, data in self._data.items():
            for line in data.decode().splitlines():
                if line.startswith(" "):
                    continue
                words = [name.lower() for name in _lemmas(line.split(" "))]
                plain = [word for word in words if word.isalpha()]
                found = [(a, b) for a in plain for b in plain if a < b]
                synonyms.update(dict.fromkeys(found))
                for own, other_pos, offset, other in _antonyms(line.split(" ")):
                    first = words[own]
                    kind = "a" if other_pos == "s" else other_pos
                    second = self._synset(kind, offset)[other].lower()
                    if pos == kind and first.isalpha() and second.isalpha() and first < second:
                        antonyms[first, second] = None
        return list(synonyms), list(antonyms)

    def base_forms(self, word: str, pos: str) -> list[str]:
        """Return the forms of a word that are in the index, itself first."""
        word = word.lower()
        index = self._index[pos]
        exceptions = self._exceptions[pos].get(word)
        forms = self._detached(word, pos) if exceptions is None else exceptions
        return [form for form in dict.fromkeys([word, *forms]) if form in index]

    def _detached(self, word: str, pos: str) -> list[str]:
        rules = _RULES[pos]
        return [word.removesuffix(end) + new for end, new in rules if word.endswith(end)]

    def _synset(self, pos: str, offset: int) -> list[str]:
        data = self._data[pos]
        return _lemmas(data[offset : data.index(b"\n", offset)].decode().split(" "))


def _lemmas(fields: list[str]) -> list[str]:
    """Return the lemmas of a synset's line, without the mark of an adjective's place."""
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return [word.partition("(")[0] for word in words]


def _antonyms(fields: list[str]) -> list[tuple[int, str, int, int]]:
    """Return the antonym pointers of a synset's line: own lemma, and part, offset, lemma there."""
    at = 4 + 2 * int(fields[3], 16)
    pointers = [fields[at + 1 + 4 * n : at + 5 + 4 * n] for n in range(int(fields[at]))]
    return [
        (int(ends[:2], 16) - 1, part, int(offset), int(ends[2:], 16) - 1)
        for symbol, offset, part, ends in pointers
        if symbol == "!" and ends != "0000"
    ]


def _read(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            return (path / name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{path.stem}/{name}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ResourceError(
            f"WordNet {path}",
            got=f"no readable {name} in it",
            expected="the files index.*, data.* and *.exc of a WordNet database",
        ) from error


def load_wordnet(path: str | None = None) -> WordNet:
    """Open WordNet once per place; see `textadv.resources.find_nltk_data` for where it looks.

    Raises:
        ResourceError: There is none.
    """
    return _load(find_nltk_data("corpora/wordnet", path))


@functools.cache
def _load(place: Path) -> WordNet:
    return WordNet(place)
