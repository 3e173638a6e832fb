from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from textadv.errors import DataError
from textadv.report import AttackResult, RobustnessReport

COUNTS = {"wrong_before": 20, "flipped": 139, "survived": 40, "unresolved": 1}


def report(n: int = 200) -> RobustnessReport:
    return RobustnessReport(
        model="bert <script>|`x`",
        data="sst2",
        num_examples=n,
        seed=3,
        clean_accuracy=0.9,
        clean_interval=(0.85, 0.93),
        attacks={
            "deepwordbug": AttackResult(
                accuracy_under_attack=0.2,
                interval=(0.15, 0.26),
                attack_success_rate=0.777,
                mean_queries=31.25,
                median_queries=28.0,
                query_budget=2000,
                counts=COUNTS,
                reasons={"no_candidates": 1},
                modified_word_rate=0.125,
                config={"class": "DeepWordBug", "max_distance": 30},
                config_hash="abc",
            )
        },
        worst_case={
            "accuracy": 0.2,
            "interval": (0.15, 0.26),
            "counts": COUNTS,
            "attacks": ["a", "b"],
        },
        embedding={
            "pgd": {
                "norm": "l2",
                "epsilon": 0.5,
                "num_steps": 5,
                "accuracy": 0.4,
                "interval": [0.3, 0.5],
            }
        },
        versions={"textadv": "0.1.0"},
        records=("not", "stored"),
    )


def test_json_round_trip_through_a_file(tmp_path: Path) -> None:
    made = report()
    made.save(tmp_path / "run")
    for path in (tmp_path / "run", tmp_path / "run" / "report.json"):
        assert RobustnessReport.load(path).to_dict() == made.to_dict()
    assert RobustnessReport.load(tmp_path / "run").attacks == made.attacks
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "report.json",
        "report.md",
    ]
    values = json.loads((tmp_path / "run" / "report.json").read_text())
    assert values["schema_version"] == 2
    assert "records" not in values
    assert set(values["attacks"]["deepwordbug"]) >= {
        *("accuracy_under_attack", "attack_success_rate", "interval", "mean_queries", "config"),
        *("median_queries", "query_budget", "counts", "config_hash"),
    }


def test_markdown_shows_figures_with_counts_and_intervals() -> None:
    text = report().to_markdown()
    assert "Clean accuracy: 90.0 % (180/200) [85.0, 93.0]" in text
    assert "20.0 % (40/200) [15.0, 26.0] | 77.7 % | 31.2 / 28.0 | 2000 | 20 / 139 / 40 / 1" in text
    assert "Worst case per example over a, b: 20.0 % (40/200)" in text
    assert "| pgd | l2 | 0.5 | 5 | 40.0 % [30.0, 50.0] |" in text
    assert "1 x no\\_candidates (deepwordbug)" in text
    assert "preliminary" not in text
    assert "preliminary" in report(99).to_markdown()
    assert "<script>" not in text


def test_an_empty_report_is_readable() -> None:
    empty = RobustnessReport(
        model="m", data="", num_examples=0, seed=0, clean_accuracy=0.0, clean_interval=(0.0, 1.0)
    )
    assert "0/0" in empty.to_markdown()
    assert RobustnessReport.from_dict(empty.to_dict()) == empty


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    values = report().to_dict()
    for change in (
        {"schema_version": 99},
        {"extra": 1},
        {"clean_interval": [1]},
        {"attacks": {"a": {}}},
    ):
        with pytest.raises(DataError, match="report"):
            RobustnessReport.from_dict({**values, **change})
    for content in ("", "[]", "{"):
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(DataError, match=r"report\.json"):
            RobustnessReport.load(tmp_path)
    with pytest.raises(DataError):
        RobustnessReport.load(tmp_path / "none.json")


def test_records_do_not_take_part_in_equality() -> None:
    assert dataclasses.replace(report(), records=()) == report()
