from __future__ import annotations

import pytest

from tests.oracles import toy
from textadv.errors import DataError
from textadv.single import attack_one


def test_one_text_under_several_attacks() -> None:
    texts, labels = toy.texts_and_labels(12)
    found = attack_one(toy.victim(), texts[1], labels[1], ["pruthi", "deepwordbug"])
    assert [one.record.attack for one in found] == ["pruthi", "deepwordbug"]
    flipped = [one for one in found if one.record.status == "flipped"]
    assert flipped
    for one in flipped:
        (changes,) = one.changes
        assert "".join(t for kind, t in changes if kind != "added") == texts[1]
        assert one.record.adversarial_text is not None
        changed = "".join(t for kind, t in changes if kind != "removed")
        assert changed == one.record.adversarial_text[0]
        before, after = one.scores
        assert before.index(max(before)) == labels[1] != after.index(max(after))


def test_the_label_is_what_the_model_says_unless_given() -> None:
    text = "funny film"
    (row,) = toy.scores([text])
    (found,) = attack_one(toy.victim(), text)
    assert found.record.label == row.index(max(row))
    (wrong,) = attack_one(toy.victim(), text, (row.index(max(row)) + 1) % 3)
    assert (wrong.record.status, wrong.changes, len(wrong.scores)) == ("wrong_before", [], 1)


def test_columns_are_told_apart() -> None:
    def scores(pairs: list[tuple[str, str]]) -> list[list[float]]:
        return [[2.0 * ("good" in second) - 1.0, 0.0] for _, second in pairs]

    (found,) = attack_one(scores, ("a film", "is good"))
    assert [kind for kind, _ in found.changes[0]] == ["same"]
    assert ("removed", "good") in found.changes[1]


def test_an_empty_text_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="a text that is not empty"):
        attack_one(toy.victim(), " ")
    with pytest.raises(DataError, match="one that the model can score"):
        attack_one(lambda texts: [[float("nan"), 0.0]], "good")
