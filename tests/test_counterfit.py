from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textadv import counterfit as module
from textadv.counterfit import Counterfit, counterfit, fit_of, make_counterfit, read_pairs
from textadv.errors import ConfigError, DataError, OutputExistsError
from textadv.vectors import Vectors, load_vectors


def slow(
    words: list[str],
    matrix: np.ndarray,
    synonyms: list[tuple[str, str]],
    antonyms: list[tuple[str, str]],
    config: Counterfit,
) -> np.ndarray:
    """Follow the three sums word by word and pair by pair."""
    vectors = [row / np.linalg.norm(row) for row in matrix]
    start = [row.copy() for row in vectors]
    number = {word: at for at, word in enumerate(words)}

    def known(pairs: list[tuple[str, str]]) -> list[tuple[int, int]]:
        found = []
        for a, b in pairs:
            if a in number and b in number and a != b:
                pair = (min(number[a], number[b]), max(number[a], number[b]))
                if pair not in found:
                    found.append(pair)
        return found

    against = known(antonyms)
    together = [pair for pair in known(synonyms) if pair not in against]
    for _ in range(config.epochs):
        slope = [np.zeros(matrix.shape[1]) for _ in words]
        count = [0] * len(words)
        for i in range(len(words)):
            for j in range(i + 1, len(words)):
                cosine = vectors[i] @ vectors[j]
                distance, old = 1 - cosine, 1 - start[i] @ start[j]
                if (i, j) in against:
                    weight = -config.antonym_weight if distance < config.antonym_margin else 0
                elif (i, j) in together:
                    weight = config.synonym_weight if distance > config.synonym_margin else 0
                else:
                    near = old <= config.radius and distance > old
                    weight = config.preserve_weight if near else 0
                if weight:
                    slope[i] += weight * (cosine * vectors[i] - vectors[j])
                    slope[j] += weight * (cosine * vectors[j] - vectors[i])
                    count[i] += 1
                    count[j] += 1
        for at in range(len(words)):
            if count[at]:
                moved = vectors[at] - slope[at] / count[at]
                vectors[at] = moved / np.linalg.norm(moved)
    return np.stack(vectors)


pairs_of = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), pairs_of, pairs_of, st.sampled_from([0.0, 0.4, 1.0]))
def test_equals_the_sums_written_out(
    seed: int, synonyms: list[tuple[int, int]], antonyms: list[tuple[int, int]], radius: float
) -> None:
    words = [f"w{at}" for at in range(9)]  # w9 has no vector
    matrix = np.random.default_rng(seed).normal(size=(9, 3))
    together = [(f"w{a}", f"w{b}") for a, b in synonyms]
    against = [(f"w{a}", f"w{b}") for a, b in antonyms]
    config = Counterfit(epochs=3, radius=radius, synonym_weight=0.2, preserve_weight=0.05)
    expected = slow(words, matrix, together, against, config)
    found = counterfit(words, matrix, together, against, config)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"w{at}" for at in range(40)]
    matrix = np.random.default_rng(1).normal(size=(40, 2))
    lists = ([("w1", "w30"), ("w2", "w3")], [("w1", "w2")])
    whole = counterfit(words, matrix, *lists)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(counterfit(words, matrix, *lists), whole, atol=1e-12)


def test_words_in_no_pair_and_far_from_all_stay() -> None:
    matrix = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 2.0]])
    found = counterfit(["a", "b", "c"], matrix, [("a", "b")], [])
    assert found[2].tolist() == [0.0, 0.0, 1.0]
    assert found[0] @ found[1] > 0.9
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


def test_files_in_and_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "v.txt").write_text("hot 1 0.1\nwarm 0.2 1\ncold 1 0\n")
    (tmp_path / "syn.txt").write_text("hot warm\n\nhot\tfiery\n")
    synonyms = read_pairs([tmp_path / "syn.txt"])
    assert synonyms == [("hot", "warm"), ("hot", "fiery")]
    with caplog.at_level(logging.INFO):
        made = make_counterfit(
            str(tmp_path / "v.txt"),
            tmp_path / "out",
            synonyms=synonyms,
            antonyms=[("hot", "cold")],
        )
    assert "1 synonym and 1 antonym pairs" in caplog.text
    assert made.words == ("hot", "warm", "cold")
    assert made.neighbours("hot", 1)[0][0] == "warm"
    assert load_vectors(str(tmp_path / "out")) is made
    with pytest.raises(OutputExistsError, match="not empty"):
        make_counterfit(str(tmp_path / "v.txt"), tmp_path / "out", synonyms=synonyms, antonyms=[])
    with pytest.raises(DataError, match="no pair with vectors"):
        make_counterfit(
            str(tmp_path / "v.txt"), tmp_path / "new", synonyms=[("x", "y")], antonyms=[]
        )
    assert not (tmp_path / "new").exists()


def test_bad_lists_and_settings_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("a b\na b c\n")
    with pytest.raises(DataError, match=r"bad.txt line 2: got 'a b c'"):
        read_pairs([tmp_path / "bad.txt"])
    with pytest.raises(ConfigError, match=r"counterfit.radius: got -1"):
        Counterfit(radius=-1)


def test_figures_of_a_fit_are_those_of_its_pairs() -> None:
    words = ["hot", "warm", "cold", "chair"]
    old = Vectors(words, np.array([[1.0, 0.1, 0], [0.2, 1, 0], [1, 0, 0], [0, 0, 1]]))
    synonyms = [("hot", "warm"), ("warm", "hot"), ("hot", "cold"), ("hot", "fiery"), ("hot", "hot")]
    antonyms = [("cold", "hot")]
    new = Vectors(words, counterfit(words, old.matrix, synonyms, antonyms))
    found = fit_of(old, new, synonyms, antonyms)
    assert (found.words, found.moved, found.synonyms, found.antonyms) == (4, 3, 1, 1)
    for pair, cosines in (
        (("hot", "warm"), found.synonym_cosine),
        (("hot", "cold"), found.antonym_cosine),
    ):
        assert cosines == pytest.approx((old.cosine(*pair), new.cosine(*pair)), abs=1e-6)
    kept = [old.vector(word) @ new.vector(word) for word in words]
    assert found.kept == pytest.approx(np.mean(kept), abs=1e-6)
    assert fit_of(old, old, [], []).moved == 0
    assert fit_of(old, old, [], []).synonym_cosine is None


def test_lists_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: got no such file"):
        read_pairs([tmp_path / "none.txt"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 bar\n")
    with pytest.raises(DataError, match=r"latin\.txt byte 3: got not UTF-8"):
        read_pairs([tmp_path / "latin.txt"])
