"""A recipe in, a run directory out: every kind of head, one run that is complete and repeatable."""

from __future__ import annotations

import json

import pytest
import torch

from tests.models import save_tiny_model, sentiment_rows
from textadv.config import Recipe, build, find_recipe, read_recipe
from textadv.errors import ConfigError, DataError, OutputExistsError, UnsupportedModelError
from textadv.report import RobustnessReport
from textadv.run import run_recipe


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def recipe(tmp_path):
    save_tiny_model(tmp_path / "base", num_labels=2)
    for index, (split, count) in enumerate({"train": 48, "validation": 16, "test": 20}.items()):
        rows = sentiment_rows(count, seed=index)
        names = ["negative", "positive"]
        write_rows(
            tmp_path / f"{split}.jsonl", [{**row, "label": names[row["label"]]} for row in rows]
        )
    return {
        "model": {"name": str(tmp_path / "base"), "new_head": True},
        "data": {
            "train": "train.jsonl",
            "validation": "validation.jsonl",
            "test": "test.jsonl",
            "max_length": 32,
        },
        "objective": {"name": "adversarial", "perturbation": {"name": "fgm", "epsilon": 0.3}},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"},
        "evaluation": {
            "attacks": ["deepwordbug"],
            "perturbations": [{"name": "pgd", "epsilon": 0.3}],
            "num_examples": 12,
            "query_budget": 100,
        },
    }


def run(recipe, tmp_path, name="run", **options):
    built = build(Recipe, recipe, "recipe")
    return run_recipe(built, tmp_path / name, base_dir=tmp_path, **options)


def test_a_run_leaves_everything_it_promises(recipe, tmp_path):
    result = run(recipe, tmp_path)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "checkpoints", "env.json", "metrics.jsonl", "model", "recipe.yaml", "records.jsonl",
        "records.jsonl.header.json", "report.json", "report.md",
    }  # fmt: skip
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    report = RobustnessReport.load(tmp_path / "run")
    assert report.num_examples == 12
    attack = report.attacks["deepwordbug"]
    assert sum(attack.counts.values()) == 12
    assert attack.accuracy_under_attack == attack.counts["survived"] / 12
    assert report.clean_accuracy >= attack.accuracy_under_attack
    pgd = report.embedding["pgd"]
    assert (pgd["num_examples"], pgd["norm"], pgd["epsilon"]) == (12, "l2", 0.3)
    assert pgd["interval"][0] <= pgd["accuracy"] <= pgd["interval"][1]
    assert pgd["mean_token_norm"] > 0
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    records = [r for r in records if "status" in r]
    assert {"id", "attack", "status", "label", "text", "adversarial_text", "num_queries"} <= {
        key for record in records for key in record
    }
    assert len(records) == 12
    assert "accuracy_under_pgd" in result.training.metrics


def test_the_resolved_recipe_repeats_the_run_exactly(recipe, tmp_path):
    first = run(recipe, tmp_path)
    again = run_recipe(
        read_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "again", base_dir=tmp_path / "run"
    )
    left, right = first.training.model.state_dict(), again.training.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    reports = [(tmp_path / name / "report.json").read_text() for name in ("run", "again")]
    assert reports[0] == reports[1]


def test_a_directory_with_anything_in_it_is_left_alone(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"notes\.txt.*--resume"):
        run(recipe, tmp_path)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_nothing_is_written_when_the_input_is_bad(recipe, tmp_path):
    cases = [
        ({"data": {**recipe["data"], "train": "none.jsonl"}}, DataError, "none.jsonl"),
        ({"data": {**recipe["data"], "label": "lable"}}, DataError, "lable"),
        ({"data": {**recipe["data"], "max_length": 500}}, ConfigError, "at most 64 tokens"),
        ({"model": {"name": str(tmp_path / "none")}}, UnsupportedModelError, "no such directory"),
        ({"model": {"name": "package:nosuchpackage"}}, UnsupportedModelError, "pip install"),
    ]
    for change, kind, message in cases:
        with pytest.raises(kind, match=message):
            run({**recipe, **change}, tmp_path)
        assert not (tmp_path / "run").exists()


def test_a_pickle_only_checkpoint_is_refused_before_it_is_read(recipe, tmp_path):
    base = tmp_path / "base"
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model\.bin, a pickle that can run"):
        run(recipe, tmp_path)


def test_a_stored_head_with_other_labels_is_not_replaced_silently(recipe, tmp_path):
    save_tiny_model(tmp_path / "five", num_labels=5)
    fields = {"name": str(tmp_path / "five")}
    with pytest.raises(UnsupportedModelError, match=r"got 5 labels, expected the 2.*new_head"):
        run({**recipe, "model": fields}, tmp_path)
    result = run({**recipe, "model": {**fields, "new_head": True}}, tmp_path)
    assert result.training.model.config.num_labels == 2


def test_sentence_pairs(recipe, tmp_path):
    for split in ("train", "validation", "test"):
        rows = sentiment_rows(24, seed=len(split))
        write_rows(
            tmp_path / f"{split}.jsonl",
            [{"premise": r["text"], "hypothesis": "good film", "label": r["label"]} for r in rows],
        )
    result = run(recipe, tmp_path)
    assert sum(result.report.attacks["deepwordbug"].counts.values()) == 12


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_heads_train_and_are_not_attacked(task, recipe, tmp_path):
    for split in ("train", "validation", "test"):
        rows = sentiment_rows(24, seed=len(split))
        for index, row in enumerate(rows):
            names = ["good"] if row["label"] else []
            row["label"] = [*names, "odd"] if task == "multi_label" else row["label"] + index / 100
        write_rows(tmp_path / f"{split}.jsonl", rows)
    with pytest.raises(ConfigError, match=r"Fix: set evaluation\.attacks: \[\]"):
        run(recipe, tmp_path)
    recipe["evaluation"]["attacks"] = []
    result = run(recipe, tmp_path)
    assert result.report is None
    assert ("clean_accuracy" in result.training.metrics) == (task == "multi_label")
    expected = {"multi_label": "multi_label_classification"}.get(task, task)
    assert result.training.model.config.problem_type == expected


def test_cut_texts_are_mentioned(recipe, tmp_path):
    recipe["data"]["max_length"] = 6
    assert any("more than 6 tokens and are cut" in note for note in run(recipe, tmp_path).notes)


@pytest.mark.parametrize("name", ["sst2-fgm", "sst2-freelb"])
def test_a_shipped_recipe_runs_on_a_tiny_model(name, recipe, tmp_path):
    overrides = [
        f"model.name={tmp_path / 'base'}",
        "model.new_head=true",
        "data.name=null",
        *(f"data.{split}={tmp_path / split}.jsonl" for split in ("train", "validation", "test")),
        "data.text=text",
        "data.max_length=32",
        "training.max_steps=2",
        "training.precision=fp32",
        "evaluation.num_examples=5",
    ]
    result = run_recipe(read_recipe(find_recipe(name), overrides), tmp_path / "run")
    assert result.training.step == 2
    assert sum(result.report.attacks["deepwordbug"].counts.values()) == 5
    assert result.report.embedding["pgd"]["num_examples"] == 5
