from __future__ import annotations

import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.results import made, statuses, toy_results
from textadv.attacks import Record
from textadv.compare import compare_results
from textadv.details import details, with_details
from textadv.errors import ConfigError, DataError, ResourceError
from textadv.page import build_page, write_report
from textadv.page.data import examples_json, script_json
from textadv.page.plots import line_plot
from textadv.report import RobustnessReport
from textadv.results import Results

HOSTILE = "<script>alert(1)</script>\"onerror='alert(2)' </style>{{7*7}}<!-- ]]> \u202e\u200b&amp;"
AUDIT = {
    "verdict": "SUPPORTED WITH FLAGS",
    "num_examples": 60,
    "findings": [
        {"rule": "A4", "title": "gradients", "outcome": "PASS", "figure": "0/9", "advice": "-"},
        {"rule": "A9", "title": HOSTILE, "outcome": "FLAG", "figure": HOSTILE, "advice": "more"},
    ],
}
EMBEDDING = {
    f"pgd-l2-{radius}": {
        "norm": "l2",
        "epsilon": radius,
        "num_steps": 5,
        "accuracy": accuracy,
        "interval": [0.0, 1.0],
        "num_examples": 100,
        "mean_token_norm": 1.1,
    }
    for radius, accuracy in ((0.1, 0.8), (0.4, 0.3))
}


def results(**fields):
    options = {"audit": AUDIT, "embedding": EMBEDDING, "commands": ("textadv evaluate m",)}
    return made({"a": statuses(100), "b": statuses(100, seed=2)}, **{**options, **fields})


def hostile():
    one = results(model=HOSTILE, data=HOSTILE, commands=(HOSTILE,), versions={HOSTILE: HOSTILE})
    records = [
        dataclasses.replace(
            record,
            id=HOSTILE + record.id,
            text=(HOSTILE,),
            adversarial_text=(HOSTILE + " x",) if record.adversarial_text else None,
            reason=HOSTILE,
        )
        for record in one.records
    ]
    return Results(report=one.report, records=records, source="x")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_figures_of_the_page_the_markdown_and_the_json_agree(tmp_path):
    one = results()
    one.report.save(tmp_path)
    (tmp_path / "records.jsonl").write_text("".join(record.to_line() for record in one.records))
    (tmp_path / "model").mkdir()
    names = {"id2label": {"0": "bad", "1": "good"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(names))
    files = write_report([tmp_path])
    page, markdown = files.html.read_text(), files.markdown.read_text()
    stored = RobustnessReport.load(files.json)
    assert stored == files.report
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    standing = sum(status == "survived" for status in one.statuses("worst case").values())
    figure = f"{standing:.1f}"
    assert f"{figure} %" in text
    assert f"{standing} of 100, 95 % interval" in text
    assert f"{figure} % ({standing}/100)" in markdown
    for name, result in stored.attacks.items():
        percent = f"{100 * result.accuracy_under_attack:.1f} %"
        counts = result.counts
        assert percent in text
        assert f"| {name} | {percent}" in markdown
        line = f"{counts['flipped']} / {counts['survived']} / {counts['unresolved']}"
        assert line in text
        assert line in markdown
    for row in stored.details["classes"]:
        share = f"{100 * row['standing'] / row['num_examples']:.1f} %"
        assert share in text
        assert share in markdown
    assert "bad" in text
    assert "good" in text
    assert "SUPPORTED WITH FLAGS" in text
    assert "SUPPORTED WITH FLAGS" in markdown
    assert "textadv evaluate m" in text
    assert "textadv evaluate m" in markdown


def test_details_are_the_counts_by_hand():
    one = results()
    found = details(one)
    assert found["group"] == "worst case"
    worst = one.statuses("worst case")
    for row in found["classes"]:
        own = [name for name, label in one.labels.items() if label == row["label"]]
        assert row["num_examples"] == len(own) == 50
        assert row["standing"] == sum(worst[name] == "survived" for name in own)
    matrix = found["confusion"]["under_attack"]
    assert sum(map(sum, matrix)) == 100
    assert sum(matrix[label][label] for label in (0, 1)) == list(worst.values()).count("survived")
    clean = found["confusion"]["clean"]
    assert sum(clean[label][label] for label in (0, 1)) == sum(one.right.values())
    for name, points in found["query_curves"].items():
        assert points[-1][1] == one.report.attacks[name].counts["survived"]


def test_flips_without_a_text_are_counted_as_unknown():
    one = made({"a": ["flipped", "survived", "wrong_before"]})
    bare = dataclasses.replace(one.records[0], adversarial_prediction=None, adversarial_text=None)
    found = details(Results(report=one.report, records=(bare, *one.records[1:])))
    assert found["confusion"]["unknown"] == 1
    assert sum(map(sum, found["confusion"]["under_attack"])) == 2


def test_hostile_texts_stay_texts():
    page = build_page([hostile(), results()])
    found = Tags(page)
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "records"}, {}]
    assert "alert(1)</script>" not in page
    for tag, attributes in found.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or value == "data:,", (tag, value)
    assert "49" not in re.findall(r"\{\{7\*7\}\}|49(?=<!--)", page)
    assert "\u202e" not in page
    assert "\u200b" not in page
    data = page.split('id="records">')[1].split("</script>")[0]
    assert json.loads(data)["examples"][0][3] == [HOSTILE]


def test_the_policy_allows_this_script_and_style_alone():
    import base64
    import hashlib

    page = build_page([results()])
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    script = re.findall(r"<script>(.*?)</script>", page, re.S)[0]
    for kind, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@given(st.text(max_size=60))
def test_json_in_a_script_is_inert_and_exact(text):
    encoded = script_json({"a": text})
    assert not set("<>&") & set(encoded)
    assert encoded.isascii()
    assert json.loads(encoded) == {"a": text}


def test_examples_hold_every_record_and_both_texts():
    one = toy_results(n=20)
    data = json.loads(examples_json(one, {0: "zero"}))
    assert len(data["records"]) == 20
    assert data["labels"] == ["zero", "1", "2"]
    for row, record in zip(data["records"], one.records, strict=True):
        assert data["examples"][row[0]][0] == record.id
        codes, parts = row[7][::2], row[7][1::2]
        pairs = list(zip(codes, parts, strict=True))
        if record.adversarial_text is None:
            assert row[7] == []
        else:
            assert "".join(p for c, p in pairs if c != 2) == record.text[0]
            assert "".join(p for c, p in pairs if c != 1) == record.adversarial_text[0]


def test_columns_of_a_pair_are_kept_apart():
    record = Record(
        id="x", attack="a", status="flipped", label=0, prediction=0,
        text=("one", "two"), adversarial_text=("one", "2"), adversarial_prediction=1,
    )  # fmt: skip
    report = made({"a": ["flipped"]}).report
    data = json.loads(examples_json(Results(report=report, records=(record,)), {}))
    assert data["records"][0][7] == [0, "one", 3, "", 1, "two", 2, "2"]


def test_several_runs_are_compared_and_what_cannot_be_says_why():
    first, second = results(model="one"), results(model="two")
    other = made({"a": statuses(90)}, model="three")
    page = html.unescape(build_page([first, second, other])).replace("\u00a0", " ")
    found = dataclasses.replace(compare_results(first, second), first="A", second="B")
    assert f"A and B: {found.verdict}" in page
    assert "A and C are not compared: compare: got two evaluations with different ids" in page
    assert page.count('class="plot"') == 3
    assert "Over" not in re.findall(r"<h3>(Over)", page)


def test_runs_of_one_model_with_several_seeds_have_mean_range_and_worst_case():
    runs = [toy_results(seed, n=40) for seed in range(3)]
    page = html.unescape(build_page(runs)).replace("\u00a0", " ")
    assert "Over 3 runs of one model" in page
    accuracies = [100 * run.report.attacks["deepwordbug"].accuracy_under_attack for run in runs]
    span = f"mean {sum(accuracies) / 3:.1f} %, {min(accuracies):.1f} to {max(accuracies):.1f} %"
    assert span in page
    broken = {r.id for run in runs for r in run.records if r.status != "survived"}
    assert f"worst case over the runs {100 * (40 - len(broken)) / 40:.1f} %" in page


def test_few_examples_are_preliminary_and_an_empty_attack_list_is_fine():
    assert "preliminary: fewer than 100 examples" in build_page([made({"a": statuses(99)})])
    page = build_page([results()])
    assert "preliminary" not in page
    report = dataclasses.replace(results().report, attacks={}, embedding={}, audit=None)
    bare = Results(report=report, records=results().records)
    page = build_page([bare])
    assert "No text attack was run." in page
    assert "NOT AUDITED" in page


def test_a_report_is_the_same_twice_and_needs_matplotlib(monkeypatch):
    one = results()
    assert build_page([one]) == build_page([one])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"textadv\[report\]"):
        build_page([one])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"report\.json"):
        write_report([tmp_path])
    with pytest.raises(ConfigError, match="no run"):
        write_report([])


def test_plots_carry_no_style_and_their_own_ids():
    plot = line_plot([[(1, 5, 10), (9, 2, 10)]], label="l <b>", xlabel="$x <", prefix="p")
    assert "style" not in plot
    assert "<b>" not in plot
    ids = re.findall(r'id="([^"]+)"', plot)
    assert ids
    assert all(name.startswith("p-") for name in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', plot)) <= set(ids)


def test_with_details_keeps_the_rest():
    one = results()
    report = with_details(one)
    assert report.attacks["a"].quality == {"edit_distance": 1.0}
    assert dataclasses.replace(report, details=None, attacks=one.report.attacks) == one.report
    assert RobustnessReport.from_dict(report.to_dict()) == report
