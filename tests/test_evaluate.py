from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.oracles import toy
from textadv.attacks import Record, read_records
from textadv.errors import ConfigError, DataError, OutputExistsError, ResourceError
from textadv.evaluate import (
    EvaluationConfig,
    attack,
    evaluate_attacks,
    make_examples,
    sample_examples,
)
from textadv.report import RobustnessReport
from textadv.victim import CallableVictim


def config(**fields: Any) -> EvaluationConfig:
    fields = {"attacks": ["deepwordbug"], "num_examples": 40, "query_budget": 60, **fields}
    return EvaluationConfig(**fields)


def test_report_and_records_agree(tmp_path: Path) -> None:
    vectors = str(toy.write_vectors(tmp_path))
    attacks = [
        "deepwordbug",
        {"name": "synonym", "alias": "near", "source": "vectors", "vectors": vectors},
    ]
    seen: list[Record] = []
    folder = tmp_path / "run"
    report = evaluate_attacks(
        toy.victim(),
        toy.examples(60),
        config(attacks=attacks),
        folder,
        seen.append,
        model="m",
        data="d",
    )
    records = read_records(folder / "records.jsonl")
    assert len(records) == 80 == len(seen)
    assert set(records) == set(report.records) == set(seen)
    assert RobustnessReport.load(folder).to_dict() == report.to_dict()
    right = {r.id for r in records if r.status != "wrong_before"}
    assert report.clean_accuracy == len(right) / 40
    for name, result in report.attacks.items():
        mine = [r for r in records if r.attack == name]
        counts = Counter(r.status for r in mine)
        assert result.counts == {**dict.fromkeys(result.counts, 0), **counts}
        assert result.accuracy_under_attack == counts["survived"] / 40
        queries = [r.num_queries for r in mine if r.status in ("flipped", "survived")]
        assert result.mean_queries == pytest.approx(sum(queries) / len(queries))
        low, high = result.interval
        assert low <= result.accuracy_under_attack <= high
    assert report.worst_case is not None
    survivors = [
        name for name in right if all(r.status == "survived" for r in records if r.id == name)
    ]
    assert report.worst_case["accuracy"] == len(survivors) / 40
    assert report.attacks["near"].config["vectors"] == vectors
    assert "preliminary" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_second_start_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(record: Record, left: list[int] = [9]) -> None:  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise StopError

    examples = toy.examples(40)
    with pytest.raises(StopError):
        evaluate_attacks(toy.victim(), examples, config(), tmp_path / "a", stop)
    assert not (tmp_path / "a" / "report.json").exists()
    done = len(read_records(tmp_path / "a" / "records.jsonl"))
    seen: list[Record] = []
    resumed = evaluate_attacks(toy.victim(), examples, config(), tmp_path / "a", seen.append)
    assert 0 < done < 40
    assert len(seen) == 40 - done
    whole = evaluate_attacks(toy.victim(), examples, config(width=3), tmp_path / "b")
    assert resumed == whole
    assert resumed.records == whole.records


def test_another_config_or_data_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    examples = toy.examples(8)
    evaluate_attacks(toy.victim(), examples, config(), tmp_path)
    evaluate_attacks(toy.victim(), examples, config(width=2, cache_size=0), tmp_path)
    for other, rows in [(config(seed=1), examples), (config(query_budget=61), examples)]:
        with pytest.raises(OutputExistsError, match="config_hash"):
            evaluate_attacks(toy.victim(), rows, other, tmp_path)
    with pytest.raises(OutputExistsError, match="data_hash"):
        evaluate_attacks(toy.victim(), toy.examples(9), config(), tmp_path)


def test_attack_in_one_call() -> None:
    texts, labels = toy.texts_and_labels(20)
    report = attack(toy.scores, texts, labels, ["deepwordbug"])
    assert report.model == "scores"
    assert report.num_examples == len(report.records) == 20
    assert attack(toy.victim(), texts, labels).records == report.records
    flipped = next(r for r in report.records if r.status == "flipped")
    (changed,) = toy.scores([flipped.adversarial_text[0]])
    assert changed.index(max(changed)) == flipped.adversarial_prediction != flipped.label


def test_pairs_edit_only_the_columns_allowed() -> None:
    def scores(pairs: list[tuple[str, str]]) -> list[list[float]]:
        return toy.scores([f"{first} {second}" for first, second in pairs])

    texts, _ = toy.texts_and_labels(24)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    labels = [row.index(max(row)) for row in scores(pairs)]
    examples = make_examples(pairs, labels, editable=[1])
    report = evaluate_attacks(CallableVictim(scores), examples, config())
    flipped = [r for r in report.records if r.adversarial_text]
    assert len(flipped) > 3
    assert all(r.adversarial_text[0] == r.text[0] for r in flipped)
    assert all(r.adversarial_text[1] != r.text[1] for r in flipped)


def test_sample_is_fixed_stratified_and_independent_of_order() -> None:
    examples = make_examples([f"text {n}" for n in range(100)], [0] * 60 + [1] * 30 + [2] * 10)
    chosen = sample_examples(examples, 20, seed=4)
    assert Counter(e.label for e in chosen) == {0: 12, 1: 6, 2: 2}
    assert chosen == [e for e in examples if e in chosen]
    backwards = sample_examples(examples[::-1], 20, seed=4)
    assert {e.id for e in backwards} == {e.id for e in chosen}
    assert {e.id for e in sample_examples(examples, 20, seed=5)} != {e.id for e in chosen}
    for count in (1, 7, 33, 99):
        assert len(sample_examples(examples, count)) == count
    assert sample_examples(examples, 100) == sample_examples(examples, 1000) == examples


@pytest.mark.parametrize(
    ("texts", "labels", "match"),
    [
        (["a", "b"], [0], "2 texts, 1 labels"),
        (["a", None], [0, 1], "row 1, text: got 'None'|row 1, text: got None"),
        (["a", 3], [0, 1], "row 1, text: got 3"),
        (["a", " \n"], [0, 1], "row 1, text"),
        ([("a", 3)], [0], "row 0, text"),
        (["a"], [-1], "row 0, label: got -1"),
        (["a"], [1.5], "row 0, label: got 1.5"),
        (["a"], ["pos"], "row 0, label: got 'pos'"),
        (["a"], [True], "row 0, label: got True"),
    ],
)
def test_bad_rows_are_named(texts: list[Any], labels: list[Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        make_examples(texts, labels)


def test_bad_evaluations_fail_before_the_first_query(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a' more than once"):
        make_examples(["x", "y"], [0, 1], ids=["a", "a"])
    with pytest.raises(DataError, match="examples: got none"):
        attack(toy.scores, [], [])
    victim = toy.victim()
    victim.num_labels = 2  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="got 2, expected 0 to 1"):
        evaluate_attacks(victim, make_examples(["x"], [2]), config())
    missing = {"name": "synonym", "source": "vectors", "vectors": str(tmp_path / "none.npy")}
    with pytest.raises(ResourceError, match=r"none\.npy"):
        evaluate_attacks(toy.victim(), toy.examples(2), config(attacks=[missing]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"attacks": ["deepwordbg"]}, "did you mean 'deepwordbug'"),
        ({"attacks": "deepwordbug"}, "a list"),
        ({"attacks": ["deepwordbug", {"name": "deepwordbug"}]}, "twice.*alias"),
        ({"attacks": [{"max_distance": 3}]}, "a `name`"),
        ({"attacks": [{"name": "deepwordbug", "max_dist": 3}]}, "did you mean 'max_distance'"),
        ({"num_examples": 0}, "num_examples: got 0"),
        ({"query_budget": "many"}, "query_budget: got 'many'"),
        ({"width": True}, "width"),
    ],
)
def test_bad_config_is_one_clear_line(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config(**fields)


def test_report_json_holds_what_a_card_needs(tmp_path: Path) -> None:
    evaluate_attacks(toy.victim(), toy.examples(10), config(), tmp_path, model="m", data="d")
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["model"] == "m"
    assert values["versions"]["torch"]
    assert values["attacks"]["deepwordbug"]["config"]["max_distance"] == 30
    assert sum(values["attacks"]["deepwordbug"]["counts"].values()) == 10
