"""Word vectors with cosine neighbours, from a matrix on the disk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textadv.errors import ResourceError, shown
from textadv.files import path_problem, read_plain

__all__ = ["Vectors", "load_vectors"]

CHUNK_ROWS = 65536
MAX_LINE = 1_000_000
MAX_BYTES = 2**30
# Cosines are rounded, so that they do not depend on which words are asked about together.
GRID = np.float32(2.0**-20)


class Vectors:
    """Word vectors with cosine neighbours, read from the disk as they are needed.

    Args:
        words: The word of each row.
        matrix: `(V, D)`, of any float type, possibly memory-mapped; need not have unit length.
    """

    def __init__(self, words: Sequence[str], matrix: NDArray[Any]) -> None:
        self.words = tuple(words)
        self.matrix = matrix
        self._rows: dict[str, int] = {}
        for row, word in enumerate(self.words):
            self._rows.setdefault(word, row)
        self._neighbours: dict[tuple[str, int], tuple[tuple[str, float], ...]] = {}

    def __contains__(self, word: str) -> bool:
        return word in self._rows

    def vector(self, word: str) -> NDArray[np.float32]:
        """Return the unit vector `(D,)` of a word; KeyError when it has none."""
        vector: NDArray[np.float32] = _unit(self.matrix[self._rows[word]][None])[0]
        return vector

    def cosine(self, first: str, second: str) -> float:
        """Return the cosine of two words; KeyError when one has no vector."""
        return float(self.vector(first) @ self.vector(second))

    def neighbours(self, word: str, count: int) -> tuple[tuple[str, float], ...]:
        """Return the `count` nearest other words and their cosines, nearest first.

        A word without a vector has no neighbours.
        """
        if (word, count) not in self._neighbours:
            self.prepare([word], count)
        return self._neighbours[word, count]

    def prepare(self, words: Sequence[str], count: int) -> None:
        """Find the neighbours of many words in one pass over the matrix."""
        wanted = list(dict.fromkeys(w for w in words if (w, count) not in self._neighbours))
        known = [word for word in wanted if word in self]
        self._neighbours.update({(word, count): () for word in wanted})
        if not known or count < 1:
            return
        queries = np.stack([self.vector(word) for word in known])
        best: list[list[tuple[float, int]]] = [[] for _ in known]
        for start in range(0, len(self.words), CHUNK_ROWS):
            cosines = queries @ _unit(self.matrix[start : start + CHUNK_ROWS]).T
            cosines = np.round(cosines / GRID) * GRID
            keep = min(count + 1, cosines.shape[1])
            limits = -np.partition(-cosines, keep - 1, axis=1)[:, keep - 1]
            for query, limit in enumerate(limits):
                rows = np.flatnonzero(cosines[query] >= limit)
                best[query] += [(-float(cosines[query, row]), start + int(row)) for row in rows]
        for word, pairs in zip(known, best, strict=True):
            others = [pair for pair in sorted(pairs) if self.words[pair[1]] != word][:count]
            found = tuple((self.words[row], -negative) for negative, row in others)
            self._neighbours[word, count] = found


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows of unit length in float32; a zero row stays zero, one not finite becomes zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        values: NDArray[np.float32] = np.array(rows, dtype=np.float32)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values[~np.isfinite(lengths[:, 0])] = 0
    lengths[(lengths == 0) | ~np.isfinite(lengths)] = 1
    values /= lengths
    return values


@functools.cache
def load_vectors(path: str) -> Vectors:
    """Read word vectors, once per path.

    Args:
        path: A `.npy` matrix `(V, D)` with `words.txt` (one word per line, in row order) beside
            it, the folder that holds the two, or a word2vec or GloVe text file.

    Raises:
        ResourceError: A file that is missing or does not fit.
    """
    file = Path(path)
    if file.is_dir():
        matrices = sorted(file.glob("*.npy"))
        if len(matrices) != 1:
            raise ResourceError(
                f"vectors {shown(path)}", got=f"{len(matrices)} .npy files", expected="one"
            )
        file = matrices[0]
    if problem := path_problem(file):
        raise ResourceError(
            f"vectors {shown(path)}",
            got=problem,
            expected="a .npy matrix beside words.txt, or a word2vec or GloVe text file",
            fix="give its path in the attack's `vectors` field",
        )
    return _read_npy(file) if file.suffix == ".npy" else _read_text(file)


def _read_npy(file: Path) -> Vectors:
    names = file.with_name("words.txt")
    if not names.is_file():
        raise ResourceError(
            f"vectors {file}",
            got="no words.txt beside it",
            expected="one word per row of the matrix",
        )
    content = read_plain(names, "one word in each line", limit=MAX_BYTES, error=ResourceError)
    try:
        words = content.decode("utf-8").removesuffix("\n").split("\n")
        # Not `np.load`, which takes archives and pickles for arrays too.
        matrix = np.lib.format.open_memmap(file, mode="r")
    # A damaged header makes numpy raise what its parser of Python literals raises.
    except Exception as error:
        raise ResourceError(
            f"vectors {file}", got=shown(str(error)), expected="a matrix of numbers"
        ) from error
    if matrix.dtype.kind not in "fiu":
        raise ResourceError(
            f"vectors {file}", got=f"values of type {matrix.dtype}", expected="numbers"
        )
    if matrix.ndim != 2 or len(matrix) != len(words) or not matrix.shape[1]:
        raise ResourceError(
            f"vectors {file}",
            got=f"shape {matrix.shape} and {len(words)} words",
            expected="one row per line of words.txt",
        )
    return Vectors(words, matrix)


def _read_text(file: Path) -> Vectors:
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE), ""), start=1):
            # Some published files have words with spaces in them.
            word, *values = line.rstrip().rsplit(" ", len(rows[0]) if rows else -1)
            if number == 1 and len(values) == 1:
                continue
            try:
                with np.errstate(over="ignore"):
                    row = np.array(values, dtype=np.float32)
            except ValueError:
                row = np.empty(0, dtype=np.float32)
            odd = not len(row) or (rows and len(row) != len(rows[0]))
            if odd or not np.isfinite(row).all():
                width = len(rows[0]) if rows else "some"
                raise ResourceError(
                    f"vectors {file} line {number}",
                    got=shown(line),
                    expected=f"a word and {width} numbers that are finite",
                )
            words.append(word)
            rows.append(row)
    if not rows:
        raise ResourceError(f"vectors {file}", got="an empty file", expected="word vectors")
    return Vectors(words, np.stack(rows))
