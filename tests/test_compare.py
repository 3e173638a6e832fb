from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from tests.results import made, statuses, toy_results
from textadv import statistics
from textadv.compare import compare, compare_results
from textadv.errors import ConfigError, DataError
from textadv.results import load_results


def changed(results, **fields):
    return dataclasses.replace(results, report=dataclasses.replace(results.report, **fields))


def test_a_large_difference_has_a_winner_and_the_row_is_the_count_by_hand():
    first = made({"a": statuses(500, flip=0.6)}, model="weak")
    second = made({"a": statuses(500, flip=0.3, seed=1)}, model="strong")
    found = compare_results(first, second)
    row = found.main
    left = [record.status == "survived" for record in first.records]
    right = [record.status == "survived" for record in second.records]
    assert (row.first, row.second) == (sum(left), sum(right))
    assert row.only_first == sum(a and not b for a, b in zip(left, right, strict=True))
    assert row.only_second == sum(b and not a for a, b in zip(left, right, strict=True))
    assert row.p_value == statistics.mcnemar(row.only_first, row.only_second)
    assert row.interval[0] < row.difference < row.interval[1]
    assert row.adjusted == pytest.approx(min(1, 2 * row.p_value))
    assert found.winner() == "strong"
    assert "strong is more accurate under a" in str(found)
    assert found.winner("clean") is None
    assert "examples that both models have right, " in str(found)
    assert "are flipped under a" in str(found)
    assert max(map(len, str(found).splitlines()[:8])) <= 80
    assert json.loads(json.dumps(found.to_dict()))["winner"] == "strong"


def test_a_small_difference_has_no_winner_and_says_what_it_would_take():
    first = made({"a": statuses(300)}, model="one")
    second = made({"a": statuses(300, flip=0.47, seed=1)}, model="two")
    found = compare_results(first, second)
    row = found.main
    assert found.winner() is None
    assert row.needed > 300
    assert "No winner under a" in found.verdict
    assert f"takes about {row.needed:,} examples" in found.verdict
    assert f"can show is {100 * row.smallest:.1f} points" in found.verdict
    share = (row.only_first + row.only_second) / 300
    assert statistics.mcnemar_power(row.needed, row.difference, share) >= 0.8


def test_equal_models_and_small_samples_say_so():
    one = made({"a": statuses(60)})
    found = compare_results(one, one)
    assert found.winner() is None
    assert "A difference of 0 needs no further examples" in found.verdict
    assert "no split would be significant" in found.verdict
    assert "preliminary" in str(found)
    assert found.verdict.startswith("Preliminary, 60 examples: no winner under a")
    assert "both results name the same model" in str(found)
    large = made({"a": statuses(100)})
    assert "preliminary" not in str(compare_results(large, large))


def test_several_attacks_are_rows_and_the_worst_case_is_the_headline():
    first = made({"a": statuses(200), "b": statuses(200, seed=3)})
    found = compare_results(first, first)
    assert [row.name for row in found.rows] == ["clean", "a", "b", "worst case"]
    assert found.headline == "worst case"
    worst = [
        a == b == "survived"
        for a, b in zip(statuses(200), statuses(200, seed=3), strict=True)
    ]  # fmt: skip
    assert found.main.first == sum(worst)


def test_what_cannot_be_paired_is_refused_with_the_difference_named():
    one = made({"a": statuses(100)})
    cascade = {
        "name": "standard-v1",
        "hash": "1",
        "mode": "survivors",
        "groups": {"words": {"attacks": ["a"]}},
        "headline": {"group": "words"},
    }
    other_text = dataclasses.replace(
        one, records=(dataclasses.replace(one.records[0], text=("else",)), *one.records[1:])
    )
    other_label = dataclasses.replace(
        one, records=(dataclasses.replace(one.records[0], label=1), *one.records[1:])
    )
    attack = one.report.attacks["a"]
    for other, match in [
        (made({"a": statuses(99)}), "ids: 1 are in one only, such as 'id-0099'"),
        (other_text, "data: 1 texts differ, such as that of id 'id-0000'"),
        (other_label, "data: 1 labels differ"),
        (changed(one, data_hash="e"), "data: hash d and e"),
        (made({"b": statuses(100)}), "attacks: a, b ran on one model only"),
        (changed(one, cascade=cascade), "one is a cascade, the other is not"),
        (
            changed(one, attacks={"a": dataclasses.replace(attack, config_hash="x")}),
            "settings of 'a': a and x",
        ),
        (
            changed(one, attacks={"a": dataclasses.replace(attack, query_budget=7)}),
            "query budgets: 100 and 7",
        ),
    ]:
        for pair in ((one, other), (other, one)):
            with pytest.raises(DataError, match="compare"):
                compare_results(*pair)
        with pytest.raises(DataError, match=match):
            compare_results(one, other)
    for key, value, match in [
        ("hash", "2", "cascade hash: '1' and '2'"),
        ("mode", "individual", "cascade mode"),
        ("name", "standard-v2", "cascade name: 'standard-v1' and 'standard-v2'"),
    ]:
        with pytest.raises(DataError, match=match):
            compare_results(
                changed(one, cascade=cascade), changed(one, cascade={**cascade, key: value})
            )
    assert compare_results(changed(one, cascade=cascade), changed(one, cascade=cascade)).n == 100
    with pytest.raises(ConfigError, match="alpha"):
        compare_results(one, one, alpha=2)


def test_directories_are_read_and_damaged_ones_refused(tmp_path):
    one = toy_results(n=30)
    folder = tmp_path / "run"
    one.report.save(folder)
    with pytest.raises(DataError, match="records behind"):
        load_results(folder)
    lines = [record.to_line() for record in one.records]
    (folder / "records.jsonl").write_text("".join(lines))
    assert load_results(folder).records == one.records
    assert compare(folder, folder).n == 30
    (folder / "records.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="records of 29 examples"):
        load_results(folder)
    old = json.loads((folder / "report.json").read_text()) | {"schema_version": 99}
    (folder / "report.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match="schema_version 99"):
        load_results(folder)


def test_a_report_of_the_first_version_is_migrated(tmp_path):
    one = toy_results(n=30)
    old = one.report.to_dict() | {"schema_version": 1}
    for name in ("cascade", "audit", "commands"):
        del old[name]
    for attack in old["attacks"].values():
        del attack["quality"]
    (tmp_path / "report.json").write_text(json.dumps(old))
    (tmp_path / "records.jsonl").write_text("".join(record.to_line() for record in one.records))
    assert compare_results(load_results(tmp_path), one).n == 30


def test_one_model_is_rarely_called_different_from_itself():
    """The same model under attacks of other seeds: 40 pairs, and 60 simulated."""
    runs = [toy_results(seed, n=40) for seed in range(10)]
    assert len({tuple(record.status for record in run.records) for run in runs}) > 5
    pairs = list(itertools.combinations(runs, 2))[:40]
    assert sum(compare_results(*pair).winner() is not None for pair in pairs) <= 5
    called = 0
    for number in range(60):
        first = made({"a": statuses(120, seed=2 * number)}, model="one")
        second = made({"a": statuses(120, seed=2 * number + 1)}, model="two")
        called += compare_results(first, second).winner() is not None
    assert called <= 6


def test_a_difference_that_the_correction_takes_away_has_no_winner():
    first = made({"a": ["flipped"] * 10 + ["survived"] * 90}, model="one")
    second = made({"a": ["survived"] * 10 + ["flipped"] * 2 + ["survived"] * 88}, model="two")
    row = compare_results(first, second).main
    assert row.p_value < 0.05 < row.adjusted
    assert compare_results(first, second).winner() is None
