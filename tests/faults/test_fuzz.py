"""Every reader, on damaged files: a value or one line, in bounded time and memory."""

from __future__ import annotations

import copy
import json
import logging
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.harness import work_folder
from tests.models import save_tiny_model
from tests.results import made, toy_results
from tests.test_card import write_run
from textadv import checkpoint
from textadv.attacks import Record
from textadv.attacks.records import RecordFile, read_records
from textadv.compare import compare
from textadv.config import read_recipe, shipped_recipes
from textadv.data import DataConfig, load_data
from textadv.details import with_details
from textadv.errors import TextAdvError
from textadv.hub import plan_push
from textadv.models import load_config
from textadv.report import RobustnessReport
from textadv.results import load_results
from textadv.vectors import load_vectors

SECONDS = 20.0
MEGABYTES = 600.0
# The second lane draws many more.
COUNTS = [40, pytest.param(1500, marks=pytest.mark.slow)]
FEW = [15, pytest.param(300, marks=pytest.mark.slow)]


class Content(bytes):
    """Bytes that are short when Hypothesis shows them."""

    def __repr__(self) -> str:
        return f"{bytes(self[:30])!r} of {len(self)}"


NASTY = [
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\x1b[2J",
        b"\r",
        b"\n",
        b"\t",
        b'"',
    ),
    *(b"9" * 5000, b"1e999", b"-1", b"NaN", b"Infinity", b"0x1F", b"1_000", b"1:2:3"),
    *(b"[" * 3000, b"{" * 3000, b'{"a":' * 1500, b"- " * 3000, b"[]", b"{}", b'""', b"null"),
    *(b"&a *a", b"<<: {a: 1}", b"? [a]", b"!!python/object:os.system x", b"2024-99-99", b"~", b"%"),
    *(b"\\ud800", b"../../../etc/passwd", b"/dev/zero", b"=cmd()", b",", b": "),
    Content(b"a" * 100_000),
]
VALUES = [
    *(None, True, False, -1, 0, 1, 2, 10**6, 10**18, 10**30, -(10**30), 0.5, -0.5, 1.5, 1e308),
    *(
        "",
        "a",
        "\x1b[2J",
        "../../etc/passwd",
        "\ud800",
        "a" * 5000,
        [],
        [[]],
        {},
        {"a": {}},
        [None],
    ),
]

places = st.floats(0, 1)
edits = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(1, 255)),
    st.tuples(st.just("cut"), places, st.just(0)),
    st.tuples(st.just("drop"), places, st.integers(1, 200)),
    st.tuples(st.just("repeat"), places, st.integers(1, 200)),
    st.tuples(st.just("splice"), places, st.sampled_from(NASTY)),
)
damage = st.lists(edits, min_size=1, max_size=4)
changes = st.lists(st.tuples(places, st.sampled_from(VALUES)), min_size=1, max_size=2)


def damaged(content: bytes, steps: list[tuple]) -> bytes:
    """Return the bytes after flips, cuts, repetitions and splices."""
    for kind, place, what in steps:
        at = int(place * len(content))
        if kind == "flip" and at < len(content):
            content = content[:at] + bytes([content[at] ^ what]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + what :]
        elif kind == "repeat":
            content = content[:at] + content[at : at + what] * 2 + content[at + what :]
        elif kind == "splice":
            content = content[:at] + what + content[at:]
    return content


def changed(tree: Any, steps: list[tuple]) -> Any:
    """Return a tree of plain data with some of its nodes replaced."""
    tree = copy.deepcopy(tree)
    for place, value in steps:
        nodes = [node for node in _nodes(tree) if node[0] is not None]
        parent, key = nodes[min(int(place * len(nodes)), len(nodes) - 1)]
        parent[key] = copy.deepcopy(value)
    return tree


def _nodes(tree: Any, parent: Any = None, key: Any = None) -> list[tuple]:
    found = [(parent, key)]
    if isinstance(tree, dict | list):
        inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for name, value in inner:
            found += _nodes(value, tree, name)
    return found


def fuzz(count: int, strategy: Any, read: Callable[[Any], object]) -> int:
    """Read damaged input `count` times; return how often it was refused."""
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=count,
        database=None,
        suppress_health_check=[*HealthCheck],
        report_multiple_bugs=False,
    )
    @given(strategy)
    def run(drawn: Any) -> None:
        nonlocal refused
        start = time.monotonic()
        try:
            read(drawn)
        except TextAdvError as error:
            refused += 1
            message = str(error)
            assert message.isprintable(), message
            assert len(message) < 3000, message
        assert time.monotonic() - start < SECONDS

    run()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < MEGABYTES
    return refused


@pytest.fixture(autouse=True)
def _no_warnings(caplog) -> None:
    """Keep thousands of warnings about damage out of the report of a failure."""
    caplog.set_level(logging.ERROR)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with work_folder() as folder:
        yield folder


@pytest.mark.parametrize("count", COUNTS)
def test_recipes(count, place):
    path, shipped = place / "recipe.yaml", shipped_recipes()
    content = shipped["sst2-pgd"].read_bytes()
    tree = yaml.safe_load(content)

    def damage_bytes(steps: list[tuple]) -> None:
        path.write_bytes(damaged(content, steps))
        read_recipe(path)

    def change_values(steps: list[tuple]) -> None:
        path.write_text(yaml.safe_dump(changed(tree, steps)))
        read_recipe(path)

    assert fuzz(count, damage, damage_bytes) > 0
    assert fuzz(count, changes, change_values) > 0


@pytest.mark.parametrize("count", COUNTS)
def test_overrides(count, place):
    recipe = shipped_recipes()["sst2-pgd"]
    words = st.sampled_from(["training.seed", "data.text", "evaluation.attacks", "a.b", "hub"])
    pairs = st.tuples(words, st.sampled_from(NASTY) | st.binary(max_size=30))
    fuzz(count, pairs, lambda pair: read_recipe(recipe, [f"{pair[0]}={pair[1].decode('latin-1')}"]))


def table_bytes(ending: str, folder: Path) -> bytes:
    rows = [{"id": f"i{n}", "text": f"text «{n}»", "label": n % 3} for n in range(12)]
    path = folder / f"good.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path, compression="none")
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        mark = "," if ending == "csv" else "\t"
        lines = [mark.join(map(str, row.values())) for row in rows]
        path.write_text("\n".join([mark.join(rows[0]), *lines]) + "\n")
    return path.read_bytes()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_data(ending, count, place):
    content, path = table_bytes(ending, place), place / f"bad.{ending}"

    def read(steps: list[tuple]) -> None:
        path.write_bytes(damaged(content, steps))
        load_data(DataConfig(train=path.name), base_dir=place)

    assert fuzz(count, damage, read) > 0


@pytest.mark.parametrize("count", COUNTS)
def test_values_of_json_lines(count, place):
    path = place / "values.jsonl"
    rows = [{"id": f"i{n}", "text": f"text {n}", "label": [n % 2, 1]} for n in range(4)]

    def read(steps: list[tuple]) -> None:
        lines = [json.dumps(row) for row in changed(rows, steps)]
        path.write_text("\n".join(lines) + "\n")
        load_data(DataConfig(train=path.name), base_dir=place)

    assert fuzz(count, changes, read) > 0


def evaluation(folder: Path) -> Path:
    """Write an evaluation with every part a report can have."""
    folder.mkdir(exist_ok=True)
    outcomes = ["flipped", "survived", "wrong_before", "survived", "unresolved", "survived"]
    results = made({"deepwordbug": outcomes, "synonym": outcomes[::-1]})
    figure = {"accuracy": 0.5, "interval": [0.2, 0.8]}
    counts = {"wrong_before": 2, "flipped": 2, "survived": 1, "unresolved": 1}
    report = with_details(results)
    report = RobustnessReport.from_dict(
        report.to_dict()
        | {
            "embedding": {"pgd": {**figure, "norm": "l2", "epsilon": 0.3, "num_steps": 3}},
            "audit": {
                "verdict": "SUPPORTED",
                "num_examples": 6,
                "findings": [
                    {"rule": "A1", "title": "t", "outcome": "PASS", "figure": "f", "advice": "a"}
                ],
            },
            "cascade": {
                **{"name": "quick-v1", "hash": "h", "mode": "survivors"},
                "groups": {
                    "words": {
                        "attacks": ["deepwordbug", "synonym"],
                        **{**figure, "accuracy": 1 / 6},
                        "counts": counts,
                    }
                },
                "tracks": {
                    "character": {
                        **{"attacks": ["deepwordbug"], **figure, "counts": counts},
                        **{"not_tried": 0, "at_most": 0.5},
                    }
                },
                "headline": {
                    **{"group": "words", "tracks": ["character"], "text": "some survive"},
                    **{"attacks": ["deepwordbug", "synonym"], "all_tracks": ["character", "w"]},
                    **{**figure, "accuracy": 1 / 6, "counts": counts},
                },
                "not_run": {"clare": "no model"},
            },
        }
    )
    report.save(folder)
    lines = [record.to_line() for record in results.records]
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


def judged(folder: Path) -> None:
    """Read an evaluation and make everything of it but the plots."""
    results = load_results(folder)
    with_details(results).to_markdown()
    results.report.to_markdown()
    compare(folder, folder)


@pytest.mark.parametrize("count", FEW)
def test_reports(count, place):
    folder = evaluation(place / "reports")
    judged(folder)
    path = folder / "report.json"
    content, tree = path.read_bytes(), json.loads(path.read_text())

    def damage_bytes(steps: list[tuple]) -> None:
        path.write_bytes(damaged(content, steps))
        judged(folder)

    def change_values(steps: list[tuple]) -> None:
        path.write_text(json.dumps(changed(tree, steps)))
        judged(folder)

    assert fuzz(count, damage, damage_bytes) > 0
    assert fuzz(4 * count, changes, change_values) > 0


@pytest.mark.parametrize("count", FEW)
def test_records_of_a_report(count, place):
    folder = evaluation(place / "records")
    path = folder / "records.jsonl"
    content = path.read_bytes()
    rows = [json.loads(line) for line in content.splitlines()]

    def damage_bytes(steps: list[tuple]) -> None:
        path.write_bytes(damaged(content, steps))
        judged(folder)

    def change_values(steps: list[tuple]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in changed(rows, steps)))
        judged(folder)

    assert fuzz(count, damage, damage_bytes) > 0
    assert fuzz(4 * count, changes, change_values) > 0


@pytest.mark.parametrize("count", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_pages(count, place):
    from textadv.page import write_report

    folder = evaluation(place / "pages")
    contents = {name: (folder / name).read_bytes() for name in ("report.json", "records.jsonl")}
    tree = json.loads(contents["report.json"])

    def read(steps: list[tuple]) -> None:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / "report.json").write_text(json.dumps(changed(tree, steps)))
        write_report([folder])

    fuzz(count, changes, read)


@pytest.mark.parametrize("count", COUNTS)
def test_taking_up_records(count, place):
    folder = place / "taken"
    path, header = folder / "records.jsonl", {"config_hash": "a", "data_hash": "b"}
    record = Record(id="i", attack="a", status="survived", label=0, text=("a text",))
    with RecordFile(path, header) as file:
        file.append(record)
    beside = path.with_name("records.jsonl.header.json")
    contents = {name: name.read_bytes() for name in (path, beside)}

    def read(drawn: tuple) -> None:
        which, steps = drawn
        for name, content in contents.items():
            name.write_bytes(content)
        target = list(contents)[which]
        target.write_bytes(damaged(contents[target], steps))
        before = target.read_bytes()
        try:
            with RecordFile(path, header) as file:
                file.append(record)
        except TextAdvError:
            assert target.read_bytes() == before
            raise
        assert record.key in {one.key for one in read_records(path)}

    assert fuzz(count, st.tuples(st.integers(0, 1), damage), read) > 0


@pytest.mark.parametrize("count", COUNTS)
def test_checkpoints(count, place):
    parent = place / "checkpoints"

    def write(folder: Path) -> None:
        checkpoint.save_tensors({"w": torch.arange(4.0)}, folder / "model.safetensors")
        checkpoint.write_text(folder / "state.json", '{"state": {}}')

    def read(drawn: tuple) -> None:
        name, steps = drawn
        for left in parent.glob("*"):
            for file in left.iterdir():
                file.unlink()
            left.rmdir()
        for step in ("step-1", "step-2"):
            checkpoint.save(parent / step, write)
        file = parent / "step-2" / name
        before = file.read_bytes()
        file.write_bytes(damaged(before, steps))
        found = checkpoint.latest(parent)
        # What is damaged is never taken, and the one before always is.
        assert found == parent / ("step-2" if file.exists() and file.read_bytes() == before
                                  else "step-1")  # fmt: skip

    names = st.sampled_from(["manifest.json", "model.safetensors", "state.json"])
    fuzz(count, st.tuples(names, damage), read)


@pytest.mark.parametrize("count", COUNTS)
def test_manifests_with_other_values(count, place):
    """A manifest that is whole by its own hash is still only taken for what is there."""
    folder = place / "manifests" / "step-1"
    secret = place / "secret.txt"
    secret.write_text("outside")

    def read(steps: list[tuple]) -> None:
        checkpoint.save(folder, lambda f: checkpoint.write_text(f / "state.json", "{}"))
        good = json.loads((folder / "manifest.json").read_text())["files"]
        entries = changed({"files": good}, steps)["files"]
        (folder / "manifest.json").write_text(checkpoint._manifest(entries))
        assert checkpoint.latest(folder.parent) in (None, folder)

    fuzz(count, changes, read)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["text", "npy", "words"])
def test_vectors(kind, count, place):
    folder = place / f"vectors-{kind}"
    folder.mkdir(exist_ok=True)
    matrix, words = np.arange(12, dtype=np.float32).reshape(4, 3), ["good", "bad", "fine", "dull"]
    np.save(folder / "v.npy", matrix)
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    rows = [f"{w} " + " ".join(map(str, row)) for w, row in zip(words, matrix, strict=True)]
    (folder / "v.vec").write_text("\n".join(["4 3", *rows]) + "\n")
    target = folder / {"text": "v.vec", "npy": "v.npy", "words": "words.txt"}[kind]
    source = str(target if kind == "text" else folder / "v.npy")
    content = target.read_bytes()

    def read(steps: list[tuple]) -> None:
        load_vectors.cache_clear()
        target.write_bytes(damaged(content, steps))
        found = load_vectors(source)
        found.neighbours(found.words[0], 2)

    assert fuzz(count, damage, read) > 0


@pytest.mark.parametrize("count", FEW)
def test_runs_that_are_published(count, place):
    run = write_run(place / "run")
    save_tiny_model(run / "model", num_labels=2)
    names = ["recipe.yaml", "report.json", "env.json", "metrics.jsonl", "model/config.json"]
    contents = {name: (run / name).read_bytes() for name in names}
    plan_push(run, "owner/name")

    def restore() -> None:
        for name, content in contents.items():
            (run / name).write_bytes(content)

    def damage_bytes(drawn: tuple) -> None:
        name, steps = drawn
        restore()
        (run / name).write_bytes(damaged(contents[name], steps))
        plan_push(run, "owner/name")

    def change_values(drawn: tuple) -> None:
        name, steps = drawn
        restore()
        load = yaml.safe_load if name.endswith("yaml") else json.loads
        text = contents[name].decode().splitlines()[-1] if "jsonl" in name else contents[name]
        (run / name).write_text(json.dumps(changed(load(text), steps)))
        plan_push(run, "owner/name")

    which = st.sampled_from(names)
    assert fuzz(count, st.tuples(which, damage), damage_bytes) > 0
    assert fuzz(4 * count, st.tuples(which, changes), change_values) > 0


@pytest.mark.parametrize("count", FEW)
def test_model_configs(count, place):
    folder = save_tiny_model(place / "model")
    path = folder / "config.json"
    content, tree = path.read_bytes(), json.loads(path.read_text())

    def damage_bytes(steps: list[tuple]) -> None:
        path.write_bytes(damaged(content, steps))
        load_config(str(folder))

    def change_values(steps: list[tuple]) -> None:
        path.write_text(json.dumps(changed(tree, steps)))
        load_config(str(folder))

    assert fuzz(count, damage, damage_bytes) > 0
    fuzz(count, changes, change_values)


def test_the_fuzzer_sees_a_traceback_and_a_flood(place):
    with pytest.raises(KeyError):
        fuzz(5, changes, lambda steps: {}["missing"])
    with pytest.raises(AssertionError):
        fuzz(5, changes, lambda steps: _raise(TextAdvError("x" * 500, fix="y" * 4000)))


def _raise(error: Exception) -> None:
    raise error


def test_a_toy_evaluation_can_be_judged(place):
    """What is fuzzed is what an evaluation writes."""
    results = toy_results(n=6)
    results.report.save(place / "toy")
    lines = [record.to_line() for record in results.records]
    (place / "toy" / "records.jsonl").write_text("".join(lines))
    judged(place / "toy")


def test_half_characters_are_shown_escaped(place):
    """In names that the page and the report take over from a file of someone else."""
    from textadv.page import write_report

    folder, half = evaluation(place / "halves"), "\ud800 half"
    tree = json.loads((folder / "report.json").read_text())
    tree |= dict.fromkeys(("model", "data", "data_hash"), half)
    tree |= {"versions": {half: half}, "commands": [half]}
    cascade = tree["cascade"]
    cascade |= {"name": half, "hash": half, "not_run": {half: half}}
    cascade["tracks"] = {half: cascade["tracks"]["character"]}
    (folder / "report.json").write_text(json.dumps(tree))
    files = write_report([folder])
    for file in (files.html, files.markdown):
        assert file.read_text(encoding="utf-8").count("\\ud800 half") >= 8
