"""`textadv attack`: many texts or one, every kind of model, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.models import BLAME, PRAISE, make_tokenizer, save_tiny_model, sentiment_rows
from tests.oracles import toy
from textadv import cli
from textadv.attacks import read_records
from textadv.classifier import ModelVictim
from textadv.cli.showing import show_results
from textadv.single import attack_one
from textadv.testing import tiny_model

ROOT = Path(__file__).parent.parent.parent


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_named(folder, names, **config):
    """Write a model whose classes have names."""
    save_tiny_model(folder, num_labels=len(names), **config)
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored["id2label"] = {str(at): name for at, name in enumerate(names)}
    stored["label2id"] = {name: at for at, name in enumerate(names)}
    path.write_text(json.dumps(stored))


@pytest.fixture
def here(files, monkeypatch):
    monkeypatch.chdir(files)
    return files


def run(*arguments):
    return cli.main(["attack", *map(str, arguments)])


def test_several_attacks_are_one_table_with_a_worst_case(here, capsys):
    names = "deepwordbug,pruthi,imperceptible-homoglyph"
    assert run("model", "--data", "data.csv", "--attack", names, "--max-queries", 20,
               "--num-examples", 10, "--output-dir", "out") == 0  # fmt: skip
    out = capsys.readouterr().out
    for row in [*names.split(","), "clean", "worst case"]:
        assert any(line.strip().startswith(row) for line in out.splitlines()), row
    records = read_records("out/records.jsonl")
    assert len(records) == 30
    assert max(record.num_queries for record in records) <= 20
    # The records of a finished run are in the order of the texts, whatever ended first.
    keys = [(record.id, record.attack) for record in records]
    assert keys == sorted(keys, key=lambda key: ([k[0] for k in keys].index(key[0]), key[1]))
    spent = sum(record.reason == "budget" for record in records)
    assert ("queries were used up" in out) == (spent > 0)


def test_one_label_of_a_multi_label_model(here, capsys):
    save_named(here / "multi", ["toxic", "spam"], problem_type="multi_label_classification")
    rows = sentiment_rows(12)
    write_jsonl(
        here / "lists.jsonl", [{**r, "label": ["spam"] if r["label"] else []} for r in rows]
    )
    write_jsonl(here / "vectors.jsonl", [{**r, "label": [1, r["label"]]} for r in rows])
    write_jsonl(here / "column.jsonl", [{"text": r["text"], "spam": r["label"]} for r in rows])
    found = []
    for name, options in (("lists", []), ("vectors", []), ("column", ["--label-column", "spam"])):
        assert run("multi", "--label-name", "spam", "--data", f"{name}.jsonl", *options,
                   "--attack", "deepwordbug", "--output-dir", name) == 0  # fmt: skip
        found.append((here / name / "records.jsonl").read_text())
    assert found[0] == found[1] == found[2]
    records = read_records(here / "lists" / "records.jsonl")
    assert [record.label for record in records] == [row["label"] for row in rows]
    report = json.loads((here / "lists" / "report.json").read_text())
    assert report["model"] == "multi, label spam"
    capsys.readouterr()
    assert run("multi", "--label-name", "spam", "--attack", "deepwordbug",
               "--example", "a good film", "--label", "spam") == 0  # fmt: skip
    assert "label: spam" in capsys.readouterr().out


def test_pairs_and_the_one_column_that_may_be_edited(here):
    rows = [{"premise": r["text"], "hypothesis": "good film", "label": r["label"]}
            for r in sentiment_rows(12)]  # fmt: skip
    write_jsonl(here / "pairs.jsonl", rows)
    edited = {}
    for column in (1, 2):
        assert run("model", "--data", "pairs.jsonl", "--attack", "pruthi", "--edit-column", column,
                   "--output-dir", f"out{column}") == 0  # fmt: skip
        records = read_records(f"out{column}/records.jsonl")
        found = [(r.text, r.adversarial_text) for r in records if r.adversarial_text]
        edited[column] = len(found)
        for before, after in found:
            assert before[2 - column] == after[2 - column]
            assert before[column - 1] != after[column - 1]
    assert sum(edited.values()) > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_scores_are_float32_and_records_of_each_stay_apart(dtype, here, capsys):
    options = ["--data", "data.csv", "--attack", "deepwordbug", "--num-examples", 4]
    assert run("model", *options, "--dtype", dtype, "--output-dir", "half") == 0
    victim = ModelVictim.load("model", dtype=dtype)
    assert next(victim.model.parameters()).dtype == getattr(torch, dtype)
    assert victim.logits([("a good film",)]).dtype == torch.float32
    capsys.readouterr()
    assert run("model", *options, "--output-dir", "half") == 2
    assert "records of another run (different model)" in capsys.readouterr().err


def test_words_behind_the_cut_are_counted_and_left_alone(here, capsys):
    text = "good film is a very bad plot " * 12
    write_jsonl(here / "long.jsonl", [{"text": text.strip(), "label": k} for k in (0, 1)])
    assert run("model", "--data", "long.jsonl", "--max-length", 10, "--attack", "deepwordbug",
               "--output-dir", "out") == 0  # fmt: skip
    unread = [record.num_unread_words for record in read_records("out/records.jsonl")]
    assert unread == [84 - 8, 84 - 8]
    assert "2 of 2 texts are longer than the model reads: 152 words" in capsys.readouterr().out
    assert run("model", "--max-length", 10, "--attack", "pruthi", "--example", text) == 0
    assert "76 of 84 words are behind the longest input" in capsys.readouterr().out


def test_one_text_shows_what_each_attack_changed(here, capsys):
    before = set(here.rglob("*"))
    assert run("model", "--attacks", "deepwordbug,pruthi", "--example", "a good film") == 0
    out = capsys.readouterr().out
    said = next(line for line in out.splitlines() if line.startswith("the model says"))
    assert "LABEL_" in said
    assert {line.split()[0] for line in out.splitlines() if line[:1].isalpha()} == {
        "the", "deepwordbug", "pruthi"}  # fmt: skip
    other = "LABEL_0" if "says LABEL_1" in said else "LABEL_1"
    assert (
        run("model", "--attack", "deepwordbug", "--example", "a good film", "--label", other) == 0
    )
    assert "wrong before any attack, 1 query" in capsys.readouterr().out
    assert set(here.rglob("*")) == before


def shown(results, names=(), **options):
    console = Console(file=io.StringIO(), width=200, **options)
    show_results(console, results, names)
    return console.file.getvalue()


def test_a_diff_is_coloured_where_there_is_colour_and_marked_where_there_is_not():
    def scores(texts):
        return [[2.0 * ("good" in text) - 1.0, 0.0] for text in texts]

    results = attack_one(scores, "a good film", attacks=["imperceptible-invisible"])
    plain = shown(results, ["fine", "poor"])
    assert "the model says fine (73.1%); label: fine" in plain
    assert re.search(r"flipped to poor \(73.1%\): [12] of 3 words changed, \d+ queries\n", plain)
    assert "[-good-]{+" in plain
    assert "<U+200" in plain
    assert "\u200b" not in plain
    coloured = shown(results, force_terminal=True, color_system="truecolor")
    assert "\x1b[9;31mgood" in coloured  # struck through, in red
    assert "[-" not in coloured
    dull = shown(results, force_terminal=True, color_system="truecolor", no_color=True)
    assert "[-good-]{+" in dull


def test_a_lookalike_is_told_from_the_letter():
    def scores(texts):
        return [[2.0 * ("good" in text) - 1.0, 0.0] for text in texts]

    (found,) = attack_one(scores, "good", attacks=["imperceptible-homoglyph"])
    assert "[-good-]{+" in shown([found])
    assert " U+" in shown([found])


def test_every_ending_is_said_in_words():
    def said(text, attack, label=None, **options):
        return shown(attack_one(toy.scores, text, label, [attack], **options))

    assert "unresolved: no word has a candidate" in said("the of and", "deepwordbug")
    assert "survived: all queries are used up, 2 queries" in said(
        "the film the plot", "pruthi", query_budget=2
    )
    assert "reduced, still" in said("film plot actor scene the", "input-reduction")


def case(*arguments, name, message):
    return pytest.param(arguments, message, id=name)


DATA = ("--data", "data.csv", "--attack", "deepwordbug", "--output-dir", "o")
EXAMPLE = ("--attack", "deepwordbug", "--example", "a good film")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        case("one", *DATA, name="one label", message="2 labels or more"),
        case("model", "--data", "seven.csv", *DATA[2:], name="labels that do not fit",
             message="label 7"),
        case("nli", *DATA, name="pair model", message="single texts for a model of pairs"),
        case("nli", *EXAMPLE, name="pair model, one text", message="expected pairs"),
        case("model", "--data", "empty.csv", *DATA[2:], name="empty file", message="0 rows"),
        case("model", "--data", "header.csv", *DATA[2:], name="no rows", message="0 rows"),
        case("model", *DATA[:2], "--attack", "deepwordbgu", *DATA[4:], name="unknown attack",
             message="did you mean 'deepwordbug'"),
        case("model", "--attack", "prwws", "--example", "x", name="unknown attack on one text",
             message="did you mean 'pwws'"),
        case("model", *DATA[:2], "--attack", "synonym", "synonym.source=vectors",
             "synonym.vectors=bad.txt", *DATA[4:], name="bad vectors",
             message="attack synonym: vectors bad.txt line 2"),
        case("model", *DATA[:2], "--attack", "synonym", "synonym.source=vectors",
             "synonym.vectors=none.npy", *DATA[4:], name="no vectors", message="none.npy"),
        case("model", *DATA[:2], "--attack", "deepwordbug,synonym", "synonym.source=vectors",
             *DATA[4:], name="missing resource",
             message="attack synonym: vectors: got no path given, TEXTADV_VECTORS is not set"),
        case("model", "--attack", "synonym", "synonym.source=vectors", "--example", "x",
             name="missing resource, one text", message="attack synonym: vectors"),
        case("model", *DATA[:4], "--output-dir", "recipe.yaml", name="a file as directory",
             message="expected a directory"),
        case("model", *DATA[:4], "--output-dir", "model", name="used directory",
             message="expected a new or empty directory"),
        case("model", *DATA[2:], name="no data", message="--data: got nothing"),
        case("model", *DATA[:4], name="no directory", message="--output-dir: got nothing"),
        case("model", *EXAMPLE[:2], "--example", " ", name="empty text",
             message="a text that is not empty"),
        case("model", *EXAMPLE, "--label", "happy", name="unknown label", message="'happy'"),
        case("model", *EXAMPLE, "--label", "9", name="label out of range", message="got 9"),
        case("model", *DATA, "--label-name", "spam", name="label of a single-label model",
             message="leave it out"),
        case("multi", *DATA, name="multi-label without a label",
             message="expected the label to attack: toxic, spam"),
        case("multi", *DATA, "--label-name", "toxik", name="unknown multi-label",
             message="did you mean 'toxic'"),
        case("model", *DATA, "--edit-column", "2", name="second column of one",
             message="2 of 1 text column"),
        case("model", *DATA, "--query-budget", "0", name="no queries", message=">= 1"),
        case("model", *DATA, "--timeout", "0", name="no time", message="> 0"),
        case("multi", *DATA, "--label-name", "spam", "--perturbation", "pgd",
             name="perturbations of one label", message="text attacks alone"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_the_first_query(
    arguments, message, here, capsys, monkeypatch
):
    save_tiny_model(here / "one", num_labels=1)
    save_named(here / "nli", ["entailment", "neutral", "contradiction"])
    save_named(here / "multi", ["toxic", "spam"], problem_type="multi_label_classification")
    (here / "seven.csv").write_text("text,label\na film,0\na plot,7\n")
    (here / "empty.csv").write_text("")
    (here / "header.csv").write_text("text,label\n")
    (here / "bad.txt").write_text("one 1 2\ntwo 1\n")
    monkeypatch.delenv("TEXTADV_VECTORS", raising=False)
    if "multi" in arguments:
        write_jsonl(here / "data.jsonl", [{"text": "a film", "label": [0, 1]}] * 3)
        arguments = ["data.jsonl" if word == "data.csv" else word for word in arguments]

    def asked(*_):
        raise AssertionError("the model was asked")

    if "--label" not in arguments:
        monkeypatch.setattr(ModelVictim, "_forward", asked)
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert run(*arguments) == 2
    # Transformers was imported before the command line could quieten it.
    err = re.sub(r"\rLoading weights.*\n", "", capsys.readouterr().err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert after == before


def test_a_cascade_is_not_shared_between_processes(here, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["evaluate", "model", "--data", "data.csv", "--output-dir", "o"]) == 2
    assert "got 2 processes" in capsys.readouterr().err


def save_slow_run(folder: Path) -> list[str]:
    """Write a model and data on which an attack takes some seconds, and return the command."""
    model = tiny_model("bert", num_labels=2, hidden_size=64, num_hidden_layers=3)
    model.save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    words = f"{PRAISE} {BLAME}".split()
    rows = [
        {"text": f"{row['text']} {words[at % 10]} {at}", "label": row["label"]}
        for at, row in enumerate(sentiment_rows(400))
    ]
    write_jsonl(folder / "data.jsonl", rows)
    command = [sys.executable, "-m", "textadv", "attack", "model", "--data", "data.jsonl"]
    return [*command, "--attack", "deepwordbug-all,pruthi", "--query-budget", "60"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_records(tmp_path):
    command = save_slow_run(tmp_path)
    whole = [*command, "--output-dir", "whole"]
    subprocess.run(whole, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    records = tmp_path / "killed" / "records.jsonl"
    lines = 0
    for _ in range(2):
        started = subprocess.Popen(
            [*command, "--output-dir", "killed"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            reached = lines + 100
            while lines < reached and started.poll() is None:
                time.sleep(0.02)
                lines = records.read_bytes().count(b"\n") if records.exists() else 0
        finally:
            started.send_signal(signal.SIGKILL)
            started.wait()
        assert started.returncode == -signal.SIGKILL
        assert reached <= lines < 800
    done = subprocess.run(
        [*command, "--output-dir", "killed"],
        cwd=tmp_path,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "n = 400" in done.stdout
    for name in ("records.jsonl", "report.json"):
        left, right = (tmp_path / run / name for run in ("whole", "killed"))
        assert left.read_bytes() == right.read_bytes(), name


@pytest.mark.slow
def test_any_number_of_processes_leaves_the_same_files(tmp_path):
    command = [*save_slow_run(tmp_path), "--num-examples", "120"]
    for count in (1, 2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        started = []
        for rank in range(count):
            launch = {
                "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank),
            }  # fmt: skip
            started.append(
                subprocess.Popen(
                    [*command, "--output-dir", f"out{count}"],
                    cwd=tmp_path,
                    env=environment(**(launch if count > 1 else {})),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        said = [process.communicate(timeout=240) for process in started]
        assert [process.returncode for process in started] == [0] * count, said
        assert "n = 120" in said[0][0]
        assert all(out == "" for out, _ in said[1:])
    names = ["records.jsonl", "records.jsonl.header.json", "report.json", "report.md"]
    for count in (1, 2, 4):
        folder = tmp_path / f"out{count}"
        assert sorted(path.name for path in folder.iterdir()) == names
        for name in names:
            assert (folder / name).read_bytes() == (tmp_path / "out1" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a pseudo-terminal")
def test_on_a_terminal_a_live_table_is_drawn_and_a_diff_has_colours(tmp_path):
    command = save_slow_run(tmp_path)
    for options, wanted in (
        (["--num-examples", "60", "--output-dir", "out"], ["queries", "worst case", "\x1b["]),
        (["--example", "a good film good plot"], ["the model says"]),
    ):
        main, other = pty.openpty()
        started = subprocess.Popen(
            [*command, *options],
            cwd=tmp_path,
            env=environment(TERM="xterm-256color", COLUMNS="80", LINES="30"),
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        drawn = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:
                break
            if not part:
                break
            drawn += part
        os.close(main)
        assert started.wait() == 0, drawn[-2000:]
        text = drawn.decode("utf-8", "replace")
        for piece in wanted:
            assert piece in text
        assert "Traceback" not in text
