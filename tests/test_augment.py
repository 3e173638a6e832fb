from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oracles import toy
from textadv.augment import SOURCES, augment_rows, augment_text
from textadv.errors import ConfigError, DataError, ResourceError
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
