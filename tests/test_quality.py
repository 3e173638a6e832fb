from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textadv import quality
from textadv.attacks import Record
from textadv.attacks.constraints import levenshtein
from textadv.diff import edit_distance, word_diff
from textadv.errors import ResourceError
from textadv.metrics import wilson_interval

texts = st.text(st.sampled_from("ab \n\tcé\u200b<"), max_size=40)


@given(texts, texts)
def test_the_parts_make_up_both_texts(before, after):
    changes = word_diff(before, after)
    assert "".join(text for kind, text in changes if kind != "added") == before
    assert "".join(text for kind, text in changes if kind != "removed") == after
    assert all(text for _, text in changes)
    assert (before == after) == all(kind == "same" for kind, _ in changes)


@given(texts, texts)
def test_edit_distance_bounds_levenshtein_from_above(before, after):
    assert edit_distance(before, after) >= levenshtein(before, after)
    assert (edit_distance(before, after) == 0) == (before == after)


def test_edit_distance_is_exact_for_edits_inside_words():
    source = random.Random(0)
    for _ in range(50):
        words = ["".join(source.choices("abcdefgh", k=6)) for _ in range(8)]
        changed = list(words)
        place = source.randrange(8)
        changed[place] = changed[place][:3] + "z" + changed[place][4:]
        assert edit_distance(" ".join(words), " ".join(changed)) == 1
    assert edit_distance("a b c", "a c") == 2
    assert edit_distance("", "abc") == 3


def test_a_very_long_text_is_one_change():
    assert word_diff("a " * 20_000, "b " * 20_000) == [
        ("removed", "a " * 20_000),
        ("added", "b " * 20_000),
    ]


def record(status, after=None):
    return Record(
        id=str(after),
        attack="a",
        status=status,
        label=0,
        text=("a fine film",),
        adversarial_text=None if after is None else (after,),
    )


class Encoder:
    def similarities(self, pairs):
        return [1.0 if after.startswith("a f") else 0.5 for _, after in pairs]


def test_quality_is_over_the_changed_texts(monkeypatch, tmp_path):
    rows = [record("survived"), record("flipped", "a fyne film"), record("flipped", "no")]
    monkeypatch.setattr(quality, "find", lambda kind, path: tmp_path / "mini" / "model")
    monkeypatch.setattr(quality, "load_encoder", lambda path: Encoder())
    found = quality.quality(rows)
    assert found == {
        "edit_distance": (1 + edit_distance("a fine film", "no")) / 2,
        "encoder": "mini",
        "similarity": 0.75,
        "similarity_p5": 0.5,
        "threshold": 0.8,
        "dissimilar": 1,
    }
    assert quality.filtered(1, 1, 3) == {
        "filtered": 2 / 3,
        "filtered_interval": list(wilson_interval(2, 3)),
    }
    assert quality.quality(rows[:1]) == {}


def test_without_an_encoder_there_is_no_similarity(monkeypatch):
    def missing(*_):
        raise ResourceError("encoder", got="none")

    monkeypatch.setattr(quality, "find", missing)
    assert set(quality.quality([record("flipped", "x")])) == {"edit_distance"}
    with pytest.raises(ResourceError):
        quality.quality([record("flipped", "x")], "given")
