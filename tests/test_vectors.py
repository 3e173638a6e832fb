from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from textadv import vectors
from textadv.errors import ResourceError
from textadv.vectors import Vectors, load_vectors


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    load_vectors.cache_clear()
    yield
    load_vectors.cache_clear()


def table(count: int = 50, dtype: type = np.float32) -> Vectors:
    matrix = np.random.default_rng(1).normal(size=(count, 6)).astype(dtype)
    return Vectors([f"w{row}" for row in range(count)], matrix)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_neighbours_equal_brute_force(
    dtype: type, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK_ROWS", chunk)
    known = table(dtype=dtype)
    unit = known.matrix.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for row, word in enumerate(known.words):
        order = sorted(
            (-float(unit[row] @ unit[other]), other) for other in range(50) if other != row
        )
        found = known.neighbours(word, 5)
        assert [name for name, _ in found] == [f"w{other}" for _, other in order[:5]]
        assert [cosine for _, cosine in found] == pytest.approx(
            [-c for c, _ in order[:5]], abs=1e-5
        )
        assert known.cosine(word, found[0][0]) == pytest.approx(found[0][1], abs=1e-6)


def test_neighbours_of_many_words_at_once_are_those_of_each() -> None:
    together, alone = table(), table()
    together.prepare([*together.words, "absent"], 4)
    for word in alone.words:
        names = [name for name, _ in alone.neighbours(word, 4)]
        assert [name for name, _ in together.neighbours(word, 4)] == names
    assert together.neighbours("absent", 4) == ()
    assert len(alone.neighbours("w0", 500)) == 49
    assert alone.neighbours("w0", 0) == ()
    with pytest.raises(KeyError):
        alone.cosine("w0", "absent")


def test_ties_and_zero_rows() -> None:
    vectors = Vectors(["a", "b", "c", "zero"], np.array([[1.0, 0], [2, 0], [3, 0], [0, 0]]))
    assert vectors.neighbours("a", 2) == (("b", 1.0), ("c", 1.0))
    assert vectors.neighbours("a", 3)[-1] == ("zero", 0.0)


def test_npy_folder_and_text_formats_agree(tmp_path: Path) -> None:
    words, matrix = ["good", "fi ne", "naïve"], np.array([[1, 0.5], [1, 0.25], [-1, 2]], np.float32)
    np.save(tmp_path / "v.npy", matrix)
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    lines = [f"{word} {row[0]} {row[1]}" for word, row in zip(words, matrix, strict=True)]
    (tmp_path / "glove.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "w2v.txt").write_text("\n".join(["3 2", *lines, ""]), encoding="utf-8")
    for name in ("v.npy", "", "glove.txt", "w2v.txt"):
        vectors = load_vectors(str(tmp_path / name))
        assert vectors.words == tuple(words)
        assert np.array_equal(vectors.matrix, matrix)
        assert load_vectors(str(tmp_path / name)) is vectors
    assert isinstance(load_vectors(str(tmp_path / "v.npy")).matrix, np.memmap)


def test_bad_vector_files_are_one_clear_line(tmp_path: Path) -> None:
    def fails(path: Path, match: str) -> None:
        load_vectors.cache_clear()
        with pytest.raises(ResourceError, match=match):
            load_vectors(str(path))

    fails(tmp_path / "none.npy", "no such file.*words.txt")
    fails(tmp_path, "0 .npy files")
    np.save(tmp_path / "v.npy", np.ones((2, 3)))
    fails(tmp_path / "v.npy", "no words.txt beside it")
    (tmp_path / "words.txt").write_text("one\n")
    fails(tmp_path / "v.npy", r"shape \(2, 3\) and 1 words")
    np.save(tmp_path / "v.npy", np.array([{}], dtype=object), allow_pickle=True)
    fails(tmp_path / "v.npy", "Python objects")
    text = tmp_path / "v.txt"
    for content, match in [
        ("", "empty"),
        ("a 1 2\nb 1\n", "line 2.*2 numbers"),
        ("a x y\n", "line 1"),
    ]:
        text.write_text(content)
        fails(text, match)
