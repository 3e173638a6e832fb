from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from tests.models import make_tokenizer, sentiment_rows
from tests.oracles import toy
from textadv.attacks import ATTACKS, read_records
from textadv.attacks.examples import make_examples
from textadv.cascade import CASCADES, FROZEN, Ball, Cascade, Stage, evaluate_cascade, get_cascade
from textadv.compare import compare_results
from textadv.errors import ConfigError, DataError, OutputExistsError
from textadv.report import RobustnessReport
from textadv.results import Results, load_results
from textadv.testing import tiny_model
from textadv.victim import ModelVictim

NEAR = {"source": "vectors", "max_candidates": 3, "min_cosine": -1.0, "skip_stopwords": False}
SMALL = Cascade(
    name="small-v1",
    num_examples=60,
    stages=(
        Stage(attack="deepwordbug", track="char", query_budget=40),
        Stage(attack="random-substitution", track="synonym", fields={**NEAR, "num_tries": 4}),
        Stage(attack="random-substitution", alias="other", track="contextual", fields=NEAR),
        Stage(attack="synonym", track="synonym", fields=NEAR),
    ),
    ball=Ball(radii=(0.1, 0.4), reference=0.4, num_steps=2, restarts=1),
)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return {"vectors": str(toy.write_vectors(tmp_path_factory.mktemp("vectors")))}


def run(resources, output_dir=None, **fields):
    return evaluate_cascade(
        toy.victim(), toy.examples(60), SMALL, output_dir, resources=resources, **fields
    )


def by_attack(report):
    found = {}
    for record in report.records:
        found.setdefault(record.attack, {})[record.id] = record
    return found


@pytest.mark.parametrize("name", sorted(CASCADES))
def test_a_version_never_changes(name):
    """A changed default of an attack needs a new version of the cascade."""
    cascade = CASCADES[name]
    assert all(stage.attack in ATTACKS for stage in cascade.stages)
    assert cascade.hash() == FROZEN[name]
    stage = cascade.stages[0]
    other = dataclasses.replace(stage, query_budget=7)
    changed = dataclasses.replace(cascade, stages=(other, *cascade.stages[1:]))
    assert changed.hash() != cascade.hash()
    assert dataclasses.replace(cascade, ball=Ball(num_steps=3)).hash() != cascade.hash()
    located = dataclasses.replace(stage, fields={**stage.fields})
    assert dataclasses.replace(cascade, stages=(located, *cascade.stages[1:])) == cascade


def test_resources_do_not_change_the_hash_of_the_cascade():
    stage = Stage(attack="synonym", track="synonym", fields={"wordnet": "somewhere"})
    other = Stage(attack="synonym", track="synonym", fields={"wordnet": "elsewhere"})
    assert stage.definition == other.definition


def test_survivors_alone_go_on_and_counts_add_up(vectors):
    report = run(vectors)
    records = by_attack(report)
    order = ["random-substitution", "other", "synonym"]
    assert set(records) == {"deepwordbug", *order}
    assert len(records["deepwordbug"]) == len(records[order[0]]) == 60
    decided: set[str] = set()
    for name in order:
        assert set(records[name]) == {r.id for r in report.records} - decided
        decided |= {r.id for r in records[name].values() if r.status in ("flipped", "wrong_before")}
    for name in ("deepwordbug", *order):
        result = report.attacks[name]
        assert sum(result.counts.values()) == 60
        own = Counter(record.status for record in records[name].values())
        assert result.counts["flipped"] == own["flipped"] + result.reasons.get("flipped_earlier", 0)
        tried = own["flipped"] + own["survived"]
        assert result.attack_success_rate == own["flipped"] / tried
    after = [report.attacks[name].accuracy_under_attack for name in order]
    assert after == sorted(after, reverse=True)
    assert after[0] > after[-1]
    headline = report.cascade["headline"]
    assert headline["accuracy"] == after[-1]
    assert headline["tracks"] == ["synonym", "contextual"]
    assert f"({headline['counts']['survived']}/60)" in headline["text"]
    assert "no access to its embeddings" in report.cascade["not_run"]["embedding"]


def test_individual_mode_runs_each_on_all_and_agrees_on_the_union(vectors):
    survivors, individual = run(vectors), run(vectors, mode="individual")
    assert {len(rows) for rows in by_attack(individual).values()} == {60}
    for group in ("words", "char"):
        ours, theirs = (r.cascade["groups"][group] for r in (survivors, individual))
        assert ours["counts"] == theirs["counts"]
    assert survivors.worst_case == individual.worst_case
    for track, found in individual.cascade["tracks"].items():
        assert found["not_tried"] == 0
        bound = survivors.cascade["tracks"][track]
        assert bound["accuracy"] <= found["accuracy"] <= bound["at_most"] + 1e-12
    synonym = survivors.cascade["tracks"]["synonym"]
    assert synonym["at_most"] > synonym["accuracy"]
    alone = individual.attacks["synonym"]
    statuses = Counter(r.status for r in individual.records if r.attack == "synonym")
    assert alone.counts == {name: statuses[name] for name in alone.counts}


def test_a_stopped_run_goes_on_and_ends_the_same(vectors, tmp_path):
    class StopError(Exception):
        pass

    def stop(_, left=[70]):  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise StopError

    with pytest.raises(StopError):
        run(vectors, tmp_path / "a", progress=stop)
    assert len(read_records(tmp_path / "a" / "records.jsonl")) == 70
    seen = []
    resumed = run(vectors, tmp_path / "a", progress=seen.append)
    whole = run(vectors, tmp_path / "b", width=3)
    assert len(seen) == len(whole.records) - 70
    assert resumed == whole
    assert resumed.records == whole.records
    assert RobustnessReport.load(tmp_path / "a") == resumed
    with pytest.raises(OutputExistsError, match="config_hash"):
        run(vectors, tmp_path / "a", mode="individual")
    loaded = load_results(tmp_path / "b")
    assert list(loaded.groups) == ["words", "char"]
    assert loaded.headline == "words"
    assert compare_results(loaded, Results(report=resumed, records=resumed.records)).n == 60


def test_what_lacks_a_resource_is_not_run_and_the_headline_says_so(monkeypatch, tmp_path):
    for name in ("NLTK_DATA", "TEXTADV_VECTORS", "TEXTADV_MASKED_LM", "TEXTADV_ENCODER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("textadv.resources._package_model", lambda package: None)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    report = evaluate_cascade(toy.victim(), toy.examples(20), "standard-v1", num_examples=20)
    assert {"textfooler", "pwws", "bae-r", "bert-attack"} <= set(report.cascade["not_run"])
    assert "vectors" in report.cascade["not_run"]["textfooler"]
    headline = report.cascade["headline"]
    assert headline["group"] == "char"
    assert "the track char" in headline["text"]
    assert list(report.cascade["tracks"]) == ["char", "unicode"]


def test_a_track_that_is_missing_is_named(vectors):
    report = run(vectors, tracks=["synonym"])
    assert "the track synonym" in report.cascade["headline"]["text"]
    assert "Not covered: the track contextual." in report.cascade["headline"]["text"]
    assert report.cascade["not_run"]["deepwordbug"] == "its track was not asked for"
    assert report.cascade["hash"] == run(vectors).cascade["hash"]


def test_bad_cascades_are_one_clear_line():
    with pytest.raises(ConfigError, match="did you mean 'standard-v1'"):
        get_cascade("standart-v1")
    assert get_cascade("quick").name == "quick-v1"
    for fields, match in [
        ({"mode": "all"}, "'survivors' or 'individual'"),
        ({"tracks": ["chr"]}, "did you mean 'char'"),
        ({"tracks": ["embedding"]}, "no access to its embeddings"),
    ]:
        with pytest.raises(ConfigError, match=match):
            run(None, **fields)
    with pytest.raises(DataError, match="none"):
        evaluate_cascade(toy.victim(), [], SMALL)


@pytest.fixture(scope="module")
def tiny():
    rows = sentiment_rows(16)
    model = tiny_model("bert", num_labels=2)
    victim = ModelVictim(model, make_tokenizer())
    texts = [row["text"] for row in rows]
    labels = victim.logits([(text,) for text in texts]).argmax(1).tolist()
    labels[3] = 1 - labels[3]
    return victim, make_examples(texts, labels)


def test_the_embedding_track_falls_with_the_radius_and_is_recorded(tiny, tmp_path):
    victim, examples = tiny
    cascade = dataclasses.replace(
        SMALL, ball=Ball(radii=(0.01, 0.4, 9.0), reference=0.4, num_steps=5)
    )
    report = evaluate_cascade(victim, examples, cascade, tmp_path, tracks=["char", "embedding"])
    rows = list(report.embedding.values())
    accuracy = [row["accuracy"] for row in rows]
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] > accuracy[-1]
    assert rows[1]["epsilon"] == pytest.approx(0.4 * rows[1]["mean_token_norm"], abs=1e-3)
    assert report.cascade["tracks"]["embedding"]["attacks"] == ["pgd-l2-0.4"]
    assert report.cascade["tracks"]["embedding"]["accuracy"] == accuracy[1]
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["embedding"]["pgd-l2-9"]["relative_epsilon"] == 9.0
    again = evaluate_cascade(victim, examples, cascade, tmp_path, tracks=["char", "embedding"])
    assert again == report
    assert load_results(tmp_path).groups["embedding"] == ("pgd-l2-0.4",)


def test_the_command_that_repeats_a_run_is_in_its_report(tiny, tmp_path):
    victim, examples = tiny
    (tmp_path / "my data.jsonl").write_text("")
    names = {"model": str(tmp_path), "data": str(tmp_path / "my data.jsonl")}
    options = {"num_examples": 3, "seed": 4, **names}
    (command,) = evaluate_cascade(victim, examples, "quick-v1", **options).commands
    assert command == (
        f"textadv evaluate {tmp_path} --data '{tmp_path}/my data.jsonl' --cascade quick-v1 "
        f"--num-examples 3 --seed 4 --max-length {victim.max_length}"
    )
    stated = evaluate_cascade(victim, examples, "quick-v1", commands=["make"], **options)
    assert stated.commands == ("make",)
    for other in ({"model": "some/hub-model"}, {"tracks": ["char"]}):
        assert evaluate_cascade(victim, examples, "quick-v1", **{**options, **other}).commands == ()


def test_an_interrupted_embedding_track_goes_on_where_it_was_stopped(tiny, tmp_path):
    victim, examples = tiny
    cascade = dataclasses.replace(SMALL, ball=Ball(radii=(0.01, 0.4), reference=0.4, num_steps=2))
    options = {"tracks": ["embedding"], "seed": 3}
    whole = evaluate_cascade(victim, examples, cascade, tmp_path / "whole", **options)
    lines = (tmp_path / "whole" / "records.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 2 * len(examples)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "records.jsonl").write_text("".join(lines[:3]))
    header = "records.jsonl.header.json"
    (tmp_path / "part" / header).write_bytes((tmp_path / "whole" / header).read_bytes())
    again = evaluate_cascade(victim, examples, cascade, tmp_path / "part", **options)
    assert again == whole
    assert sorted((tmp_path / "part" / "records.jsonl").read_text().splitlines()) == sorted(
        line.strip() for line in lines
    )
