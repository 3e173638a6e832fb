"""The audit's own gate: planted flaws are caught by the rule named, honest models do not fail."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.audit.toys import CONFIG, honest, subject
from tests.audit.zoo import FLAWS, HONEST, halves
from tests.results import made
from textadv.attacks.examples import make_examples
from textadv.audit import RULES, AuditReport, Finding, audit, subject_of_run, with_audit
from textadv.audit.thresholds import THRESHOLDS, grade
from textadv.errors import ConfigError, DataError
from textadv.report import RobustnessReport
from textadv.results import Results, load_results

QUICK = [
    *("rounded embeddings", "detached graph", "wrong sign", "no-op attack", "padding only"),
    *("saturated logits", "truncation", "dropout left on", "cached scores of another model"),
    *("logits scaled under a search by probabilities", "no candidates", "constraint accepts all"),
    *("queries not counted", "contaminated test set", "headline is the best case"),
]


@pytest.mark.parametrize("flaw", [f for f in FLAWS if f.name in QUICK], ids=lambda f: f.name)
def test_a_planted_flaw_is_caught_by_its_rule_and_not_by_chance(flaw):
    found = audit(flaw.make(), CONFIG, rules=[flaw.rule]).findings[0]
    assert found.outcome == "FAIL", found.figure
    assert found.advice == RULES[flaw.rule].advice
    clean = audit(honest(), CONFIG, rules=[flaw.rule]).findings[0]
    assert clean.outcome == "PASS", clean.figure


def test_an_honest_model_has_no_failure_and_every_rule_runs():
    found = audit(honest(), CONFIG)
    assert found.named("FAIL") == []
    assert found.named("INCONCLUSIVE") == []
    assert [one.rule for one in found.findings] == list(RULES)
    assert found.verdict == "SUPPORTED WITH FLAGS"  # 120 examples are not 500
    assert found.named("FLAG") == ["A26"]
    assert found.exit_code == 0
    assert str(found).endswith("SUPPORTED WITH FLAGS")
    assert json.loads(json.dumps(found.to_dict()))["verdict"] == "SUPPORTED WITH FLAGS"


def test_the_last_attack_of_a_cascade_is_not_blamed_for_what_the_others_left_it():
    own = honest()
    (name,) = own.attacks
    (bare,) = make_examples(["a ."], [0], ids=["bare"])
    record = dataclasses.replace(
        own.records[0], id="bare", attack="late", status="unresolved", reason="no_candidates"
    )
    late = dataclasses.replace(
        own,
        examples=[*own.examples, bare],
        attacks={name: own.attacks[name], "late": own.attacks[name]},
        records=(*own.records, record),
    )
    found = audit(late, CONFIG, rules=["A16", "A19"])
    assert [one.outcome for one in found.findings] == ["PASS", "PASS"], found


def test_both_halves_of_the_zoo_have_a_flaw_for_every_rule():
    for half in halves():
        assert {flaw.rule for flaw in half} == set(RULES)
    assert len({flaw.name for flaw in FLAWS}) == len(FLAWS)
    assert len(HONEST) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("flaw", FLAWS, ids=lambda f: f.name)
def test_every_flaw_is_caught(flaw):
    found = audit(flaw.make(), CONFIG, rules=[flaw.rule]).findings[0]
    # Probabilities can be converted, so they are a flag.
    assert found.outcome == ("FLAG" if flaw.rule == "A2" else "FAIL"), found.figure


@pytest.mark.slow
@pytest.mark.parametrize("model", HONEST, ids=lambda s: s.name)
def test_no_honest_model_fails(model):
    found = audit(model.make(), CONFIG)
    assert found.named("FAIL") == [], str(found)
    assert found.named("INCONCLUSIVE") == [], str(found)


def finding(outcome):
    return Finding(rule="A1", title="t", outcome=outcome, figure="f", advice="do")


@pytest.mark.parametrize(
    ("outcomes", "verdict", "code"),
    [
        (["PASS", "PASS"], "SUPPORTED", 0),
        (["PASS", "FLAG"], "SUPPORTED WITH FLAGS", 0),
        (["FLAG", "INCONCLUSIVE"], "INCONCLUSIVE", 0),
        (["INCONCLUSIVE", "FLAG", "FAIL"], "NOT SUPPORTED", 3),
        ([], "INCONCLUSIVE", 0),
    ],
)
def test_the_worst_finding_decides(outcomes, verdict, code):
    report = AuditReport(model="m", num_examples=9, findings=tuple(map(finding, outcomes)))
    assert report.verdict == verdict
    assert report.exit_code == code


@pytest.mark.parametrize("rule", sorted(THRESHOLDS))
def test_thresholds_are_ordered_and_graded_at_their_bounds(rule):
    best, worst = THRESHOLDS[rule]
    step = 1e-9 if best <= worst and rule != "A26" else -1e-9
    assert grade(rule, best) == "PASS"
    assert grade(rule, worst) in ("PASS", "FLAG")
    assert grade(rule, worst + 1000 * step) == "FAIL"
    assert grade(rule, worst + 1000 * step, count=2) == "FLAG"


def test_what_a_rule_lacks_makes_it_inconclusive_not_passed():
    bare = dataclasses.replace(honest(), port=None, attacks={}, records=(), report=None)
    found = audit(bare, CONFIG, rules=["A4", "A7", "A11", "A15", "A16", "A17", "A25"])
    assert set(found.named("INCONCLUSIVE")) == {"A4", "A7", "A11", "A15", "A16", "A17", "A25"}
    assert found.verdict == "INCONCLUSIVE"
    unknown = audit(
        dataclasses.replace(honest(), train_texts=None, ratings=None), CONFIG, rules=["A23", "A27"]
    )
    assert [one.outcome for one in unknown.findings] == ["INCONCLUSIVE", "FLAG"]


def test_a_rule_that_breaks_is_inconclusive_and_says_why():
    class Broken:
        def logits(self, texts):
            raise RuntimeError("no \x1b[31m answer")

    broken = dataclasses.replace(honest(), victim=Broken())
    (found,) = audit(broken, CONFIG, rules=["A2"]).findings
    assert found.outcome == "INCONCLUSIVE"
    assert "RuntimeError: no" in found.figure
    assert "\x1b" not in found.figure


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="unknown rule"):
        audit(honest(), CONFIG, rules=["A99"])


def test_a_finished_run_is_audited_from_its_directory(tmp_path):
    own = subject(seed=5)
    own.report.save(tmp_path)
    (tmp_path / "records.jsonl").write_text("".join(record.to_line() for record in own.records))
    again = subject_of_run(tmp_path, own.victim, train_texts=[], ratings=[True] * 60)
    assert again.attacks == own.attacks
    assert {e.id for e in again.examples} == {e.id for e in own.examples}
    found = audit(again, CONFIG, rules=["A15", "A20", "A21", "A24", "A29", "A30"])
    assert found.verdict == "SUPPORTED"
    report = with_audit(load_results(tmp_path), found)
    report.save(tmp_path)
    assert RobustnessReport.load(tmp_path).audit["verdict"] == "SUPPORTED"
    assert "Audit: **SUPPORTED**" in (tmp_path / "report.md").read_text()


def test_an_attack_this_version_lacks_is_refused():
    results = made({"a": ["survived"] * 100})
    attack = dataclasses.replace(results.report.attacks["a"], config={"class": "Gone"})
    report = dataclasses.replace(results.report, attacks={"a": attack})
    with pytest.raises(DataError, match="class 'Gone'"):
        subject_of_run(Results(report=report, records=results.records), honest().victim)
