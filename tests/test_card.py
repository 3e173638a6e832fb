from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.results import toy_results
from textadv.card import escape, render_card
from textadv.errors import DataError, TextAdvError
from textadv.metrics import wilson_interval

RECIPE = {
    "model": {"name": "distilbert-base-uncased", "revision": None},
    "data": {"name": "owner/news", "config": "small", "text": ["text"], "max_length": 128},
    "objective": {
        "name": "adversarial",
        "lambda_adv": 1.0,
        "perturbation": {"name": "pgd", "norm": "l2", "epsilon": 0.3, "num_steps": 3},
    },
    "training": {"learning_rate": 5e-05, "epochs": 2.0, "batch_size": 32, "seed": 7},
    "evaluation": {"attacks": ["deepwordbug"]},
    "hub": {
        "repo": "owner/news-model",
        "private": False,
        "license": "apache-2.0",
        "language": ["en"],
    },
}
REPORT = {
    "schema_version": 1,
    "model": "run/model",
    "data": "owner/news, test",
    "num_examples": 200,
    "seed": 3,
    "clean_accuracy": 0.9,
    "clean_interval": [0.85, 0.93],
    "attacks": {
        "deepwordbug": {
            "accuracy_under_attack": 0.255,
            "attack_success_rate": 0.7,
            "interval": [0.2, 0.32],
            "mean_queries": 41.26,
            "query_budget": 500,
            "counts": {"wrong_before": 20, "flipped": 127, "survived": 51, "unresolved": 2},
            "config": {},
            "config_hash": "abc123",
        }
    },
    "embedding": [
        {
            **{"name": "pgd", "norm": "l2", "scope": "sequence", "epsilon": 0.3, "num_steps": 20},
            **{
                "accuracy": 0.41,
                "interval": [0.3, 0.5],
                "num_examples": 100,
                "mean_token_norm": 1.25,
            },
        }
    ],
}
CONFIG = {"id2label": {"0": "sport", "1": "world"}, "problem_type": "single_label_classification"}
ENV = {
    "python": "3.11.9",
    "device": "x86_64 CPU",
    "versions": {"textadv": "0.1.0", "torch": "2.10"},
}


def write_run(folder: Path, report: dict | None = REPORT, **recipe: dict) -> Path:
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **recipe}), encoding="utf-8")
    (folder / "model" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "env.json").write_text(json.dumps(ENV), encoding="utf-8")
    rows = [{"step": 10, "seconds": 6.0, "loss": 0.5}, {"step": 1234, "seconds": 90.0, "loss": 0.1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if report is not None:
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def body(card: str) -> str:
    return card.partition("\n---\n")[2]


def test_figures_are_printed_with_count_interval_budget_and_seed(tmp_path):
    text = body(render_card(write_run(tmp_path)))
    low, high = wilson_interval(51, 200)
    row = next(line for line in text.splitlines() if line.startswith("| under `deepwordbug`"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "under `deepwordbug`",
        f"25.5 % \\[{100 * low:.1f}, {100 * high:.1f}\\]",
        "51/200",
        "127/178",
        "2",
        "500",
        "41.3",
        "`abc123`",
    ]
    assert "n = 200 examples, seed 3" in text
    assert re.search(r"\| clean \| 90\.0 % \\\[85\.1, 93\.4\\\] \| 180/200 \|", text)
    assert re.search(
        r"\| `pgd` \| `l2` \| `sequence` \| 0\.3 \| 1\.25 \| 20 \| 41\.0 % .* \| 41/100 \|", text
    )


def test_it_says_how_it_was_trained_loaded_and_repeated(tmp_path):
    text = body(render_card(write_run(tmp_path)))
    assert text.startswith("\n# news-model\n\n`distilbert-base-uncased` fine-tuned for text")
    assert "Labels: 0 = `sport`, 1 = `world`." in text
    assert "1,234 optimizer steps in 1.5 minutes." in text
    assert "learning_rate: 5.0e-05" in text
    assert "epsilon: 0.3" in text
    assert 'pipeline("text-classification", model="owner/news-model")' in text
    assert "pip install textadv==0.1.0\n# recipe.yaml is in this repository; it names" in text
    assert "measures what its evaluation block says\ntextadv train recipe.yaml --output" in text
    assert "textadv attack" not in text
    assert "2 searches ended without a result" in text
    assert "\n\n\n" not in text


def test_a_report_from_another_folder_is_repeated_by_its_own_command(tmp_path):
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other")
    text = body(render_card(run, report_dir=other))
    assert "evaluation block" not in text
    assert (
        "textadv attack run/model --data 'owner/news, test' --attack deepwordbug "
        "--num-examples 200 --seed 3 --query-budget 500 --output-dir attack" in text
    )


def test_metadata_is_a_model_index_with_the_attacks_arguments(tmp_path):
    data = ModelCard(render_card(write_run(tmp_path))).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert (data.license, data.base_model) == ("apache-2.0", "distilbert-base-uncased")
    assert (data.datasets, data.language) == (["owner/news"], ["en"])
    assert data.tags == ["textadv", "adversarial-training"]
    clean, attack, perturbation = data.eval_results
    assert (clean.metric_type, clean.metric_value) == ("accuracy", 0.9)
    assert (attack.metric_type, attack.metric_value) == ("accuracy_under_attack", 0.255)
    assert attack.metric_name == "Accuracy under attack (deepwordbug)"
    assert (attack.dataset_type, attack.dataset_config) == ("owner/news", "small")
    low, high = wilson_interval(51, 200)
    assert attack.metric_args == {
        **{"attack": "deepwordbug", "query_budget": 500, "seed": 3},
        **{"num_examples": 200, "num_correct": 51, "interval_95": [round(low, 4), round(high, 4)]},
    }
    assert perturbation.metric_type == "accuracy_under_perturbation"
    assert perturbation.metric_args["epsilon"] == 0.3


def test_the_same_files_give_the_same_card(tmp_path):
    assert render_card(write_run(tmp_path / "a")) == render_card(write_run(tmp_path / "b"))


def test_only_what_was_measured_is_claimed(tmp_path):
    card = render_card(write_run(tmp_path, report=None, hub={}))
    assert "no claim about accuracy" in card
    assert "%" not in card
    assert "textadv attack" not in card
    assert ModelCard(card).data.eval_results is None
    partial = {"num_examples": 50, "clean_accuracy": 0.5, "data": "d"}
    card = body(render_card(write_run(tmp_path, report=partial)))
    assert "Preliminary: fewer than 100 examples." in card
    assert "25/50" in card
    assert "No attack on texts was run" in card
    assert "under `" not in card


@pytest.mark.parametrize("report", [REPORT, None])
def test_no_bare_percentage_and_no_bare_claim(tmp_path, report):
    card = render_card(write_run(tmp_path, report=report))
    for line in card.replace("95 % Wilson", "").splitlines():
        if "%" in line:
            assert re.search(r"[\d.]+ % \\\[[\d.]+, [\d.]+\\\] \| \d+/\d+", line), line
    assert "robust" not in card.lower()


def test_a_plain_recipe_gets_no_adversarial_tag_and_paths_stay_private(tmp_path):
    run = write_run(
        tmp_path,
        report={**REPORT, "data": "/home/someone/secret/test.csv"},
        model={"name": "/home/someone/models/base"},
        data={"train": "../../secret/train.csv", "text": ["a", "b"]},
        objective={"name": "clean"},
    )
    card = render_card(run, repo_id="me/it")
    metadata, text = card.split("\n---\n", 1)
    data = ModelCard(card).data
    assert (data.tags, data.base_model, data.datasets) == (["textadv"], None, None)
    assert data.eval_results[0].dataset_type == "custom"
    assert "/home/someone" not in metadata
    assert "`base` fine-tuned for text classification on `train.csv`" in text
    assert '{"text": "First text.", "text_pair": "Second text."}' in text
    assert 'model="me/it"' in text


def test_a_folder_is_not_called_a_hub_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", model={"name": "models/base"})
    assert ModelCard(render_card(run)).data.base_model == "models/base"
    (tmp_path / "models" / "base").mkdir(parents=True)
    assert ModelCard(render_card(run)).data.base_model is None


def test_yaml_of_a_run_is_never_executed(tmp_path):
    canary = tmp_path / "canary"
    run = write_run(tmp_path / "run")
    (run / "recipe.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{canary}']")
    with pytest.raises(TextAdvError, match=r"recipe\.yaml: .*expected plain YAML"):
        render_card(run)
    assert not canary.exists()


HOSTILE = "x`y``|<img src=x onerror=alert(1)>\n---\n# [l](http://e.x) {{7*7}} \u202e\x1b[1m"


def test_hostile_names_stay_names(tmp_path):
    report = json.loads(json.dumps(REPORT))
    report["data"] = HOSTILE
    report["attacks"][HOSTILE] = report["attacks"]["deepwordbug"]
    report["embedding"][0]["name"] = HOSTILE
    recipe = {"data": {"name": HOSTILE}, "model": {"name": HOSTILE}, "hub": {"repo": HOSTILE}}
    plain = body(render_card(write_run(tmp_path / "plain")))
    run = write_run(tmp_path / "run", report=report, **recipe)
    config = {"id2label": {"0": HOSTILE, "1": "b"}}
    (run / "model" / "config.json").write_text(json.dumps(config))
    card = render_card(run)
    data = ModelCard(card).data
    assert data.base_model is None
    assert data.eval_results[0].dataset_name == escape.visible(HOSTILE)
    text = body(card)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[1:] == [line for line in plain.splitlines() if line.startswith("#")][1:]
    assert "\u202e" not in card
    assert "\x1b" not in card
    assert "49" not in re.sub(r"\d+\.\d+", "", text)
    table = [line for line in text.splitlines() if line.startswith("| under")]
    assert len(table) == 2
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [9, 9]
    outside_code = re.sub(r"(?s)(`{3,})\w*\n.*?\n\1", "", text)
    outside_code = re.sub(r"(?s)(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", outside_code)
    assert "<" not in outside_code
    assert not re.search(r"(?<!\\)\[l", outside_code)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "`a`"), ("`a", "`` `a ``"), ("a``b", "```a``b```"), ("a\nb", r"`a\nb`"), ("", "` `")],
)
def test_code_spans_close_where_they_should(value, expected):
    assert escape.code(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("my-model v1.0", "my-model v1.0"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[a](http://b) www.c", r"\[a\]\(http\://b\) www\.c"),
        ("*_`\\", "\\*\\_\\`\\\\"),
    ],
)
def test_running_text_holds_no_markup(value, expected):
    assert escape.text(value) == expected


def test_fences_are_longer_than_what_they_hold():
    assert escape.fenced("a\n```\nb", "x") == "````x\na\n```\nb\n````"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean_accuracy": 0.9013}, r"clean_accuracy: got 0.9013 of 200 examples"),
        ({"clean_accuracy": 1.5}, r"clean_accuracy"),
        ({"num_examples": 0}, r"0 examples"),
        ({"num_examples": "many"}, r"report.json: got .ValueError"),
        ({"attacks": ["a"]}, r"report.json: got .AttributeError"),
        (
            {"attacks": {"a": {"accuracy_under_attack": 0.5, "counts": {"survived": 99}}}},
            r"attacks.a",
        ),
        (
            {"attacks": {"a": {"accuracy_under_attack": 0.5, "counts": {"survived": 100}}}},
            r"200 in all",
        ),
        ({"embedding": [{"name": "pgd"}]}, r"KeyError"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        render_card(write_run(tmp_path, report={**REPORT, **change}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recipe.yaml", None, "recipe.yaml: got no such file"),
        ("recipe.yaml", "- a", "recipe.yaml: got list, expected a mapping"),
        ("recipe.yaml", "a: [", "recipe.yaml: line 1: got "),
        ("report.json", '{"a"', "report.json: got "),
        ("report.json", b"\xff", "report.json: got "),
        ("metrics.jsonl", '{"step": 1}\n{"st', "metrics.jsonl, last line: got "),
        ("model/config.json", None, "config.json: got no such file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = write_run(tmp_path) / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TextAdvError, match=message) as caught:
        render_card(tmp_path)
    assert "\n" not in str(caught.value)


AUDIT = {
    "verdict": "SUPPORTED WITH FLAGS",
    "num_examples": 60,
    "findings": [
        {"rule": rule, "title": title, "outcome": outcome, "figure": figure, "advice": "more"}
        for rule, title, outcome, figure in (
            ("A1", "the model", "PASS", "fine"),
            ("A26", "the sample", "FLAG", "200 <b> examples"),
        )
    ],
}


def test_the_audit_is_in_the_card_with_what_did_not_pass(tmp_path):
    without = body(render_card(write_run(tmp_path)))
    assert "No audit tried to show" in without
    assert "No person checked" in without
    text = body(render_card(write_run(tmp_path, {**REPORT, "audit": AUDIT})))
    assert "2 checks that could have shown these figures wrong, on 60 examples" in text
    assert "**SUPPORTED WITH FLAGS**" in text
    assert "- FLAG A26, the sample: 200 " in text
    assert "<b>" not in text
    assert "A1," not in text
    assert "No audit tried" not in text
    refuted = {**AUDIT, "verdict": "NOT SUPPORTED"}
    text = body(render_card(write_run(tmp_path, {**REPORT, "audit": refuted})))
    assert "The audit refutes these figures" in text
    with pytest.raises(DataError, match="verdict"):
        render_card(write_run(tmp_path, {**REPORT, "audit": {**AUDIT, "verdict": "FINE"}}))


def test_an_audit_of_other_records_is_not_published(tmp_path):
    results = toy_results(n=30)
    audit = {**AUDIT, "records": results.digest}
    write_run(tmp_path, dataclasses.replace(results.report, audit=audit).to_dict())
    lines = [record.to_line() for record in results.records]
    (tmp_path / "records.jsonl").write_text("".join(lines))
    assert "**SUPPORTED WITH FLAGS**" in render_card(tmp_path)
    other = dataclasses.replace(results.records[0], num_queries=999).to_line()
    (tmp_path / "records.jsonl").write_text("".join([other, *lines[1:]]))
    assert "No audit tried" in render_card(tmp_path)
