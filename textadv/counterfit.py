"""Counter-fit word vectors: pull synonyms together, push antonyms apart, keep the rest."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from textadv.attacks.wordnet import load_wordnet
from textadv.checkpoint import save
from textadv.errors import ConfigError, DataError, OutputExistsError, shown
from textadv.files import read_plain
from textadv.vectors import Vectors, load_vectors

__all__ = [
    "Counterfit",
    "Fit",
    "counterfit",
    "fit_of",
    "make_counterfit",
    "read_pairs",
    "wordnet_pairs",
]

logger = logging.getLogger(__name__)

Pairs: TypeAlias = Sequence[tuple[str, str]]
Floats: TypeAlias = NDArray[np.floating]
Rows: TypeAlias = NDArray[np.int64]

BLOCK = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counterfit:
    """The weights and margins of the three terms; the defaults are the paper's.

    Source: Mrkšić et al., Counter-fitting Word Vectors to Linguistic Constraints, NAACL 2016, arXiv
    1603.00892. With the distance d = 1 - cosine, the sum of

    - `antonym_weight` * max(0, `antonym_margin` - d) over antonyms,
    - `synonym_weight` * max(0, d - `synonym_margin`) over synonyms,
    - `preserve_weight` * max(0, d - the distance before) over words that were near each other.

    In each epoch a vector moves against the mean of the slopes of the terms that are active for it,
    and is given unit length again, as in the authors' code.

    Args:
        epochs: Passes over all terms.
        antonym_weight: Step along the first term.
        synonym_weight: Step along the second.
        preserve_weight: Step along the third.
        antonym_margin: Distance beyond which antonyms are left alone.
        synonym_margin: Distance below which synonyms are left alone.
        radius: Distance within which two words were near each other.
    """

    epochs: int = 20
    antonym_weight: float = 0.1
    synonym_weight: float = 0.1
    preserve_weight: float = 0.1
    antonym_margin: float = 1.0
    synonym_margin: float = 0.0
    radius: float = 0.2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(
                    f"counterfit.{field.name}",
                    got=shown(getattr(self, field.name)),
                    expected=">= 0",
                )


def counterfit(
    words: Sequence[str],
    matrix: Floats,
    synonyms: Pairs,
    antonyms: Pairs,
    config: Counterfit = Counterfit(),
) -> Floats:
    """Return the counter-fitted matrix `(V, D)`, rows of unit length, in the type of `matrix`.

    Pairs with a word that has no row, with twice the same word, or named both synonyms and antonyms
    (which counts as antonyms) are left out.

    Example:
        >>> old = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> new = counterfit(["warm", "cold", "hot"], old, [("warm", "hot")], [("warm", "cold")])
        >>> bool(new[0] @ new[2] > old[0] @ old[2]), bool(new[0] @ new[1] < 0.2)
        (True, True)
    """
    together, against = _both(words, synonyms, antonyms)
    logger.info("%d synonym and %d antonym pairs have vectors", len(together), len(against))
    vectors = _unit(np.asarray(matrix))
    near, before = _near(vectors, config.radius, np.concatenate([against, together]))
    for _ in range(config.epochs):
        slopes, counts = np.zeros_like(vectors), np.zeros(len(vectors), vectors.dtype)
        for pairs, weight, sign, bound in (
            (against, config.antonym_weight, -1, np.full(len(against), config.antonym_margin)),
            (together, config.synonym_weight, 1, np.full(len(together), config.synonym_margin)),
            (near, config.preserve_weight, 1, before),
        ):
            _add_slopes(vectors, pairs, weight * sign, sign * bound, slopes, counts)
        moved = counts > 0
        vectors[moved] = _unit(vectors[moved] - slopes[moved] / counts[moved, None])
    return vectors


def _add_slopes(
    vectors: Floats, pairs: Rows, weight: float, bound: Floats, slopes: Floats, counts: Floats
) -> None:
    """Add the slopes of `max(0, +-d - bound)` where it is active, and count them by word."""
    if not len(pairs):
        return
    first, second = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    cosines = np.einsum("pd,pd->p", first, second)
    active = np.sign(weight) * (1 - cosines) > bound
    pairs, first, second = pairs[active], first[active], second[active]
    cosines = cosines[active, None]
    np.add.at(slopes, pairs[:, 0], weight * (cosines * first - second))
    np.add.at(slopes, pairs[:, 1], weight * (cosines * second - first))
    np.add.at(counts, pairs.ravel(), 1)


def _near(vectors: Floats, radius: float, named: Rows) -> tuple[Rows, Floats]:
    """Return all pairs of words within the radius that no list names, and their distances."""
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ vectors[start:].T
        pairs = np.argwhere(1 - cosines <= radius) + start
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    pairs = _without(pairs, named, len(vectors))
    distances = 1 - np.einsum("pd,pd->p", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    return pairs, distances


def _without(pairs: Rows, others: Rows, size: int) -> Rows:
    """Return the pairs that are not among others."""
    return pairs[~np.isin(pairs @ [size, 1], others @ [size, 1])]


def _both(words: Sequence[str], synonyms: Pairs, antonyms: Pairs) -> tuple[Rows, Rows]:
    """Return the pairs of rows that count as synonyms, and as antonyms."""
    row = {word: at for at, word in reversed(list(enumerate(words)))}
    against = _rows(antonyms, row)
    return _without(_rows(synonyms, row), against, len(words)), against


def _rows(pairs: Pairs, row: dict[str, int]) -> Rows:
    """Return the distinct pairs of rows, the lower one first."""
    known = {
        (min(row[a], row[b]), max(row[a], row[b]))
        for a, b in pairs
        if a in row and b in row and row[a] != row[b]
    }
    return np.array(sorted(known), np.int64).reshape(-1, 2)


def _unit(matrix: Floats) -> Floats:
    kind = np.float64 if matrix.dtype == np.float64 else np.float32
    values = matrix.astype(kind)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    result: Floats = values / np.where(lengths == 0, 1, lengths)
    return result


def read_pairs(paths: Iterable[str | Path]) -> list[tuple[str, str]]:
    """Read files with two words per line, separated by a space or tab.

    Raises:
        DataError: No such file, or a line that is not two words.
    """
    pairs = []
    for path in paths:
        content = read_plain(Path(path), "a file with two words in each line")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} byte {error.start}", got="not UTF-8", expected="UTF-8"
            ) from None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            parts = line.split()
            if len(parts) != 2:
                raise DataError(
                    f"{path} line {number}", got=shown(line), expected="two words in each line"
                )
            pairs.append((parts[0], parts[1]))
    return pairs


def wordnet_pairs(path: str | None = None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the synonym and the antonym pairs of WordNet, single words in lower case."""
    return load_wordnet(path).pairs()


def make_counterfit(
    vectors: str,
    output_dir: str | Path,
    *,
    synonyms: Pairs,
    antonyms: Pairs,
    config: Counterfit = Counterfit(),
) -> Vectors:
    """Counter-fit a vector file and write `vectors.npy` (float16) and `words.txt`.

    Args:
        vectors: What `textadv.vectors.load_vectors` reads.
        output_dir: A new or empty folder, which the attacks' `vectors` field can name.
        synonyms: Pairs of words; see `read_pairs` and `wordnet_pairs`.
        antonyms: Pairs of words.
        config: The weights.

    Raises:
        OutputExistsError: The folder is not empty.
        DataError: No pair has vectors.
    """
    folder = Path(output_dir)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputExistsError(
            str(folder),
            got="a folder that is not empty" if folder.is_dir() else "a file",
            expected="a new or empty folder",
            fix="choose another output folder",
        )
    table = load_vectors(vectors)
    if not any(a in table and b in table for a, b in [*synonyms, *antonyms]):
        raise DataError("synonyms and antonyms", got="no pair with vectors", expected="some")
    fitted = counterfit(table.words, np.asarray(table.matrix), synonyms, antonyms, config)

    def write(place: Path) -> None:
        np.save(place / "vectors.npy", fitted.astype(np.float16))
        (place / "words.txt").write_text("\n".join(table.words) + "\n", encoding="utf-8")

    save(folder, write, manifest=False)
    return load_vectors(str(folder))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """What counter-fitting did, over the pairs that have vectors.

    Args:
        words: Words with a vector.
        moved: Words whose cosine with their old vector is below 0.999.
        kept: Mean cosine of all words with their old vectors.
        synonyms: Number of pairs.
        synonym_cosine: Their mean cosine before and after; None without pairs.
        antonyms: Number of pairs.
        antonym_cosine: Their mean cosine before and after; None without pairs.
    """

    words: int
    moved: int
    kept: float
    synonyms: int
    synonym_cosine: tuple[float, float] | None
    antonyms: int
    antonym_cosine: tuple[float, float] | None


def fit_of(before: Vectors, after: Vectors, synonyms: Pairs, antonyms: Pairs) -> Fit:
    """Return how far words moved, and how near the pairs were and are.

    A pair named both synonyms and antonyms counts as antonyms.
    """
    old, new = _unit(np.asarray(before.matrix)), _unit(np.asarray(after.matrix))
    together, against = _both(before.words, synonyms, antonyms)
    same = np.einsum("vd,vd->v", old, new)

    def cosines(pairs: Rows) -> tuple[float, float] | None:
        if not len(pairs):
            return None
        found = [np.einsum("pd,pd->p", m[pairs[:, 0]], m[pairs[:, 1]]).mean() for m in (old, new)]
        return float(found[0]), float(found[1])

    return Fit(
        words=len(before.words),
        moved=int((same < 0.999).sum()),
        kept=float(same.mean()),
        synonyms=len(together),
        synonym_cosine=cosines(together),
        antonyms=len(against),
        antonym_cosine=cosines(against),
    )
