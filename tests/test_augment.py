from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oracles import toy
from textadv.augment import SOURCES, adversarial_rows, augment_rows, augment_text
from textadv.errors import ConfigError, DataError, ResourceError
from textadv.evaluate import attack
from textadv.words import Words

ROWS = [{"text": text, "label": at} for at, text in enumerate(toy.texts_and_labels(20)[0])]


@pytest.fixture(scope="session")
def source_fields(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("augment")
    (folder / "wordnet").mkdir()
    (folder / "lm").mkdir()
    paths = {
        "vectors": toy.write_vectors(folder),
        "wordnet": toy.write_wordnet(folder / "wordnet"),
        "sememes": toy.write_sememes(folder),
        "masked-lm": toy.write_language_model(folder / "lm", "BertForMaskedLM"),
    }

    def fields(source: str) -> dict[str, Any]:
        extra = {"min_cosine": 0.0} if source == "vectors" else {}
        path = paths.get(source)
        return {source.replace("-", "_"): str(path), **extra} if path else {}

    return fields


@pytest.mark.parametrize("source", SOURCES)
def test_copies_keep_labels_and_differ_in_few_words(
    source: str, source_fields: Callable[[str], dict[str, Any]]
) -> None:
    rows = ROWS
    if source == "checklist":
        rows = [{"text": f"John is not in Paris {at}", "label": at} for at in range(20)]
    options: dict[str, Any] = {"rate": 0.3, "copies": 2, "fields": source_fields(source)}
    found = list(augment_rows(rows, source, **options))
    assert found == list(augment_rows(rows, source, **options))
    assert found != list(augment_rows(rows, source, seed=1, **options))
    copies = [row for row in found if row not in rows]
    assert [row for row in found if row in rows] == rows
    assert len(copies) > 20
    for row in copies:
        original = Words.of(rows[row["label"]]["text"])
        changed = Words.of(row["text"])
        if source != "checklist":
            pairs = zip(original.words, changed.words, strict=True)
            count = sum(a != b for a, b in pairs)
            assert 1 <= count <= -(-3 * len(original) // 10)
    alone = list(augment_rows(rows, source, **options, keep=False))
    assert alone == copies


def test_pairs_and_single_texts() -> None:
    rows = [{"a": "warm film", "b": "dull plot", "label": 1}]
    (copy,) = augment_rows(rows, "typos", columns=["a", "b"], keep=False)
    assert copy["label"] == 1
    assert copy["a"] != "warm film"
    assert copy["b"] != "dull plot"
    assert augment_text("warm film", "typos") == augment_text("warm film", "typos") != "warm film"
    assert augment_text("the of", "typos") == "the of"
    assert list(augment_rows([{"text": "the of"}], "typos", keep=False)) == []


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown source.*did you mean 'typos'"):
        augment_rows(ROWS, "typo")
    with pytest.raises(ConfigError, match="copies 0"):
        augment_rows(ROWS, "typos", copies=0)
    with pytest.raises(ConfigError, match=r"unknown field.*letters"):
        augment_rows(ROWS, "typos", fields={"letters": "a"})
    with pytest.raises(ResourceError, match=r"none\.npy"):
        augment_rows(ROWS, "vectors", fields={"vectors": str(tmp_path / "none.npy")})
    with pytest.raises(DataError, match="row 0, 'body': got None"):
        list(augment_rows(ROWS, "typos", columns=["body"]))


def found(**options: Any) -> list[dict[str, Any]]:
    texts, labels = toy.texts_and_labels(12)
    rows = [
        {"id": at, "text": text, "label": label, "extra": [at]}
        for at, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    return list(adversarial_rows(rows, toy.victim(), ["deepwordbug", "pruthi"], **options))


def test_what_attacks_find_flips_the_model_and_keeps_the_rest() -> None:
    texts, labels = toy.texts_and_labels(12)
    copies = found(keep=False)
    report = attack(toy.victim(), texts, labels, ["deepwordbug", "pruthi"])
    expected = {
        (record.id, record.adversarial_text[0])
        for record in report.records
        if record.adversarial_text is not None
    }
    assert {(str(row["id"]), row["text"]) for row in copies} == expected
    assert len(copies) == len(expected) > 3
    for row in copies:
        scores = toy.scores([row["text"]])[0]
        assert scores.index(max(scores)) != row["label"] == labels[row["id"]]
        assert row["extra"] == [row["id"]]
    both = found()
    assert [row for row in both if row["text"] in texts] == [
        {"id": at, "text": text, "label": labels[at], "extra": [at]}
        for at, text in enumerate(texts)
    ]
    assert [row for row in both if row["text"] not in texts] == copies


def test_more_copies_are_more_texts_each_once_with_ids_of_their_own() -> None:
    once, thrice = found(keep=False), found(keep=False, copies=3)
    assert {row["text"] for row in once} < {row["text"] for row in thrice}
    assert len({(row["id"], row["text"]) for row in thrice}) == len(thrice)
    names = [row["id"] for row in found(copies=3, id_column="id")]
    assert len(set(names)) == len(names)
    assert all(isinstance(name, str) for name in names)
    assert {"0", "1", "1-1"} & set(names)


def test_adversarial_rows_refuse_bad_input_before_the_first_query() -> None:
    def never(texts: list[str]) -> None:
        raise AssertionError("asked")

    def made(rows: list[dict[str, Any]], **options: Any) -> None:
        list(adversarial_rows(rows, never, ["deepwordbug"], **options))

    with pytest.raises(DataError, match=r"row 1, 'label': got None, expected a label"):
        made([{"text": "a", "label": 0}, {"text": "b"}])
    with pytest.raises(DataError, match=r"row 0, 'text': got 3, expected a string"):
        made([{"text": 3, "label": 0}])
    with pytest.raises(ConfigError, match="copies 0"):
        made([{"text": "a", "label": 0}], copies=0)
    with pytest.raises(DataError, match="got none, expected at least one"):
        made([])
    with pytest.raises(ConfigError, match="did you mean 'pruthi'"):
        list(adversarial_rows([{"text": "a", "label": 0}], never, ["pruhti"]))


def test_copies_of_random_edits_get_ids_of_their_own() -> None:
    rows = [{"id": "x", "text": "a fine film"}, {"id": None, "text": "a fine film"}]
    names = [row["id"] for row in augment_rows(rows, "typos", copies=2, id_column="id")]
    assert names == ["x", "x-1", "x-2", None, None, None]
