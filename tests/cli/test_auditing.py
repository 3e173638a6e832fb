"""The audit command: what it prints, writes and refuses, and where it exits."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.models import save_tiny_model, sentiment_rows
from textadv import cli
from textadv.attacks import read_records
from textadv.audit import RULES
from textadv.results import load_results

FAST = "A2,A15,A20,A21,A23,A24,A30"


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A model, its data, and a finished evaluation of it."""
    folder = tmp_path_factory.mktemp("judged")
    save_tiny_model(folder / "model", num_labels=2)
    save_tiny_model(folder / "other", num_labels=2, seed=1)
    write_rows(folder / "data.jsonl", sentiment_rows(40))
    write_rows(folder / "train.jsonl", sentiment_rows(60, seed=9))
    arguments = ["attack", str(folder / "model"), "--data", str(folder / "data.jsonl")]
    arguments += ["--attack", "deepwordbug", "--num-examples", "30"]
    assert cli.main([*arguments, "--output-dir", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def run(judged, tmp_path, monkeypatch):
    """A copy of the evaluation that a test may change."""
    monkeypatch.chdir(judged)
    folder = tmp_path / "run"
    folder.mkdir()
    for file in (judged / "run").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def audit(*arguments):
    return cli.main(["audit", *map(str, arguments)])


def edit_records(run, change):
    records = read_records(run / "records.jsonl")
    lines = [change(record).to_line() for record in records]
    (run / "records.jsonl").write_text("".join(lines))


def test_a_run_is_audited_and_the_verdict_is_everywhere(run, capsys):
    assert audit(run, "--train-data", "train.jsonl", "--quick") in (0, 3)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[1:-1])) <= 80
    for rule in RULES:
        assert f" {rule} " in out
    found = json.loads((run / "audit.json").read_text())
    assert [one["rule"] for one in found["findings"]] == list(RULES)
    assert found["verdict"] in out
    results = load_results(run)
    assert results.report.audit["verdict"] == found["verdict"]
    assert found["records"] == results.digest
    assert f"Audit: **{found['verdict']}**" in (run / "report.md").read_text()
    assert cli.main(["report", str(run)]) == 0
    assert found["verdict"] in (run / "report.html").read_text()


def test_some_rules_alone_are_printed_and_not_written(run, capsys):
    before = (run / "report.json").read_text()
    assert audit(run, "--rules", "A2,A20", "--train-data", "train.jsonl") == 0
    assert "SUPPORTED" in capsys.readouterr().out
    assert not (run / "audit.json").exists()
    assert (run / "report.json").read_text() == before
    assert audit(run, "--rules", "A2,A99") == 2
    assert "unknown rule" in capsys.readouterr().err


def test_json_is_all_that_is_printed(run, capsys):
    assert audit(run, "--rules", FAST, "--train-data", "train.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["rule"] for one in found["findings"]] == FAST.split(",")
    assert found["settings"]["num_examples"] == 200


def test_a_model_is_attacked_first(judged, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(judged)
    out = tmp_path / "out"
    options = ["--train-data", "train.jsonl", "--rules", FAST, "--output-dir", out]
    assert audit("model", "--data", "data.jsonl", *options) == 0
    assert len(read_records(out / "records.jsonl")) == 40
    found = json.loads((out / "audit.json").read_text())
    assert found["model"] == "model"
    assert load_results(out).report.audit["verdict"] == found["verdict"] == "SUPPORTED"
    assert audit("model", "--rules", FAST) == 2
    assert "--data: got none" in capsys.readouterr().err
    assert audit(tmp_path, "--data", "data.jsonl") == 2
    assert "neither report.json nor config.json" in capsys.readouterr().err


def test_the_training_texts_of_a_recipe_are_found(judged, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: {judged / 'model'}}}\n"
        f"data: {{train: {judged / 'data.jsonl'}, test: {judged / 'data.jsonl'}, max_length: 32}}\n"
        "objective: {name: clean}\n"
        "training: {max_steps: 1, batch_size: 8, precision: fp32}\n"
        "evaluation: {attacks: [deepwordbug], num_examples: 10, query_budget: 60}\n"
    )
    assert cli.main(["train", str(recipe), "--output-dir", "run"]) == 0
    capsys.readouterr()
    # The recipe tests on what it trains on.
    assert audit("run", "--rules", "A23", "--json") == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["findings"][0]["figure"].startswith("10 of 10 examples")
    assert "got NOT SUPPORTED: A23" in captured.err
    (tmp_path / "run" / "recipe.yaml").write_text(
        (tmp_path / "run" / "recipe.yaml").read_text().replace("data.jsonl", "gone.jsonl")
    )
    assert audit("run", "--rules", "A23") == 0
    assert "are not read" in capsys.readouterr().out


def test_other_data_are_refused_by_name(run, judged, tmp_path, capsys):
    assert audit(run, "--data", "data.jsonl", "--rules", "A2") == 0
    rows = sentiment_rows(40)
    for name, changed, words in [
        ("more", sentiment_rows(40, seed=3), "ids are not in it, such as"),
        ("labels", [{**row, "label": 1 - row["label"]} for row in rows], "labels differ, such as"),
    ]:
        write_rows(tmp_path / f"{name}.jsonl", changed)
        capsys.readouterr()
        assert audit(run, "--data", tmp_path / f"{name}.jsonl", "--rules", "A2") == 2
        error = capsys.readouterr().err
        assert "other data than the records" in error
        assert words in error


def test_another_model_is_found_out(run, capsys):
    assert audit(run, "--model", "other", "--rules", "A21,A30") == 3
    assert "NOT SUPPORTED: A21" in capsys.readouterr().err


def test_a_model_that_is_gone_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    report = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps(report | {"model": "gone/model"}))
    assert audit(run, "--rules", "A2") == 2
    assert "Fix: name it with --model" in capsys.readouterr().err


def test_edited_records_are_found_out(run, capsys):
    def soften(record):
        if record.status != "flipped":
            return record
        return dataclasses.replace(record, status="survived", adversarial_text=None)

    edit_records(run, soften)
    assert audit(run, "--rules", "A15") == 3
    assert "NOT SUPPORTED: A15" in capsys.readouterr().err
    edit_records(run, lambda record: dataclasses.replace(record, text=("another text",)))
    assert audit(run, "--data", "data.jsonl", "--rules", "A2") == 2
    assert "30 texts differ" in capsys.readouterr().err


def test_missing_and_damaged_records_are_refused(run, capsys):
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    for content, words in [
        ("".join(lines[1:]), "records of 29 examples"),
        ("".join(lines[1:]) + "{}\n", "line 30"),
        ("", "no records"),
        (None, "the records behind"),
    ]:
        (run / "records.jsonl").unlink()
        if content is not None:
            (run / "records.jsonl").write_text(content)
        else:
            (run / "records.jsonl").mkdir()
        assert audit(run, "--rules", "A2") == 2
        assert words in capsys.readouterr().err
        if content is None:
            (run / "records.jsonl").rmdir()


def test_ratings_are_read_and_wrong_ones_refused(run, tmp_path, capsys):
    ratings = tmp_path / "ratings.jsonl"
    ratings.write_text('{"valid": true}\n' * 50)
    assert audit(run, "--ratings", ratings, "--rules", "A27", "--json") == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["outcome"] == "PASS"
    ratings.write_text('{"valid": true}\n{"valid": "yes"}\n')
    assert audit(run, "--ratings", ratings, "--rules", "A27") == 2
    assert "line 2" in capsys.readouterr().err


def test_an_audit_of_records_that_changed_is_left_out(run, caplog):
    assert audit(run, "--train-data", "train.jsonl", "--quick") in (0, 3)
    assert load_results(run).report.audit is not None
    edit_records(run, lambda record: dataclasses.replace(record, num_queries=1))
    assert load_results(run).report.audit is None
    assert "records have changed" in caplog.text
