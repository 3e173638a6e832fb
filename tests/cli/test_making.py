"""`textadv augment`, `textadv counterfit` and `textadv resources`."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

from tests.oracles import toy
from textadv import cli
from textadv.attacks import ATTACKS
from textadv.augment import SOURCES
from textadv.cli.arguments import SOURCES as NAMED
from textadv.cli.arguments import make_parser
from textadv.data import LabelSpace, load_examples
from textadv.resources import KINDS
from textadv.vectors import load_vectors


@pytest.fixture
def here(files, monkeypatch):
    monkeypatch.chdir(files)
    return files


def read(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


ROWS = [
    {"id": 7, "text": "a good film", "label": 1, "tags": ["x", "y"], "split": None},
    {"id": 8, "text": "the of", "label": 0, "tags": [], "split": "dev", "late": 2.5},
    {"id": 9, "text": "a bad, dull plot", "label": 0, "tags": ["z"], "split": "dev"},
]


def write_rows(folder):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_copies_keep_labels_and_every_column(suffix, here, capsys):
    write_rows(here)
    command = ["augment", "rows.jsonl", "--source", "typos", "--copies", "2", "--rate", "0.5"]
    assert cli.main([*command, "--out", f"more.{suffix}"]) == 0
    # No word of the second row may be edited.
    assert f"3 rows, 4 copies: more.{suffix}" in capsys.readouterr().out
    found = read(here / f"more.{suffix}")
    assert [str(row["id"]) for row in found] == ["7", "7-1", "7-2", "8", "9", "9-1", "9-2"]
    originals = {str(row["id"]): row for row in ROWS}
    for row in found:
        name, _, copy = str(row["id"]).partition("-")
        original = originals[name]
        assert (row["text"] == original["text"]) == (not copy)
        assert str(row["label"]) == str(original["label"])
        tags = row["tags"] if suffix in ("jsonl", "parquet") else json.loads(row["tags"])
        assert tags == original["tags"]
        assert row["split"] in (original["split"], "" if suffix in ("csv", "tsv") else None)
        assert str(row["late"] or "") == str(original.get("late", ""))
    # What was written can be read as data, ids and all.
    data = load_examples(f"more.{suffix}", label_space=LabelSpace("single_label", ("no", "yes")))
    assert len(data.splits["examples"]) == 7


def test_the_same_seed_gives_the_same_file_and_another_another(here):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert cli.main(["augment", "data.csv", "--source", "keyboard", "--seed", str(seed),
                         "--only-copies", "--out", f"{name}.csv"]) == 0  # fmt: skip
    a, b, c = ((here / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c
    texts = {row["text"] for row in read(here / "data.csv")}
    assert not texts & {row["text"] for row in read(here / "a.csv")}


def test_settings_of_a_source_and_one_column_of_a_pair(here):
    vectors = toy.write_vectors(here)
    rows = [{"a": "warm film", "b": "dull plot", "label": 1}]
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["augment", "pairs.jsonl", "--text-column", "a,b", "--edit-column", "2",
                     "--source", "vectors", f"vectors.vectors={vectors}", "vectors.min_cosine=-1",
                     "--only-copies", "--out", "out.jsonl"]) == 0  # fmt: skip
    (copy,) = read(here / "out.jsonl")
    assert (copy["a"], copy["label"]) == ("warm film", 1)
    assert copy["b"] != "dull plot"


def test_unlabelled_data_can_be_edited_when_the_text_column_is_named(here):
    (here / "plain.jsonl").write_text(json.dumps({"text": "a good film", "n": 1}) + "\n")
    assert cli.main(["augment", "plain.jsonl", "--source", "typos", "--text-column", "text",
                     "--out", "out.jsonl"]) == 0  # fmt: skip
    assert [row["n"] for row in read(here / "out.jsonl")] == [1, 1]


def test_texts_that_attacks_find_flip_the_model(here, capsys):
    from textadv.victim import ModelVictim

    assert cli.main(["augment", "data.csv", "--attack", "deepwordbug,pruthi", "--model", "model",
                     "--query-budget", "80", "--out", "found.jsonl"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    searches = sum(map(int, re.findall(r"(?:before|flipped|survived|unresolved) (\d+)", out)))
    assert searches == 2 * 40
    found = read(here / "found.jsonl")
    originals = [row["text"] for row in read(here / "data.csv")]
    assert [row["text"] for row in found if row["text"] in originals] == originals
    copies = [row for row in found if row["text"] not in originals]
    assert copies
    assert f"40 rows, {len(copies)} copies" in out
    victim = ModelVictim.load("model")
    predictions = victim.logits([(row["text"],) for row in copies]).argmax(dim=1).tolist()
    assert all(said != int(row["label"]) for said, row in zip(predictions, copies, strict=True))
    assert len({row["text"] for row in found}) == len({*originals, *(r["text"] for r in copies)})


def case(*arguments, name, message):
    return pytest.param(arguments, message, id=name)


AUGMENT = ("augment", "data.csv", "--out", "out.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        case(*AUGMENT, "--source", "typo", name="unknown source", message="did you mean 'typos'"),
        case(*AUGMENT, "--attack", "pwsw", "--model", "model", name="unknown attack",
             message="did you mean 'pwws'"),
        case(*AUGMENT, "--source", "vectors", name="missing resource",
             message="TEXTADV_VECTORS is not set"),
        case(*AUGMENT, "--source", "vectors", "vectors.vectors=none.npy", name="no such file",
             message="none.npy"),
        case(*AUGMENT, "--attack", "deepwordbug", name="no model", message="--model: got nothing"),
        case(*AUGMENT, "--source", "typos", "--model", "model", name="a model for nothing",
             message="--model: got no --attack"),
        case(*AUGMENT, "--source", "typos", "--copies", "0", name="no copies", message="copies 0"),
        case(*AUGMENT, "--source", "typos", "--rate", "2", name="rate", message="rate 2.0"),
        case(*AUGMENT, "--source", "typos", "wordnet.max_candidates=3", name="other settings",
             message="override wordnet"),
        case("augment", "data.csv", "--out", "recipe.yaml", "--source", "typos",
             name="unknown ending", message=".jsonl, .csv, .tsv, .parquet"),
        case("augment", "data.csv", "--out", "data.csv", "--source", "typos", name="existing file",
             message="data.csv: got a file that is there"),
        case("augment", "none.csv", "--out", "out.csv", "--source", "typos", name="no data",
             message="none.csv"),
        case("augment", "empty.csv", "--out", "out.csv", "--source", "typos", name="empty data",
             message="0 rows"),
        case("augment", "number.jsonl", "--out", "out.csv", "--source", "typos", name="no string",
             message="row 0, 'text': got 3"),
        case(*AUGMENT, "--source", "typos", "--text-column", "txt", name="unknown column",
             message="'txt'"),
        case("counterfit", "bad.txt", "--output-dir", "v", *(lists := (
             "--synonyms", "syn.txt", "--antonyms", "ant.txt")), name="bad vectors",
             message="bad.txt line 2"),
        case("counterfit", "none.txt", "--output-dir", "v", *lists, name="no vectors",
             message="none.txt': got no such file, expected a .npy matrix beside words.txt"),
        case("counterfit", "good.txt", "--output-dir", "v", "--synonyms", "none.txt",
             "--antonyms", "ant.txt", name="no list", message="none.txt"),
        case("counterfit", "good.txt", "--output-dir", "v", "--synonyms", "three.txt",
             "--antonyms", "ant.txt", name="bad list", message="three.txt line 1"),
        case("counterfit", "good.txt", "--output-dir", "v", "--synonyms", "syn.txt",
             name="one list", message="--antonyms: got nothing"),
        case("counterfit", "good.txt", "--output-dir", "model", *lists, name="used folder",
             message="a folder that is not empty"),
        case("counterfit", "good.txt", "--output-dir", "data.csv", *lists, name="a file",
             message="got a file"),
        case("counterfit", "good.txt", "--output-dir", "v", *lists, "epoch=3",
             name="unknown setting", message="did you mean 'epochs'"),
        case("counterfit", "good.txt", "--output-dir", "v", *lists, "radius=-1",
             name="bad setting", message="counterfit.radius: got -1"),
        case("counterfit", "good.txt", "--output-dir", "v", "--synonyms", "other.txt",
             "--antonyms", "other.txt", name="no pair", message="no pair with vectors"),
        case("resources", "pwsw", name="resources of an unknown attack",
             message="did you mean 'pwws'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments, message, here, capsys, monkeypatch
):
    monkeypatch.delenv("TEXTADV_VECTORS", raising=False)
    (here / "empty.csv").write_text("text,label\n")
    (here / "number.jsonl").write_text('{"text": 3, "label": 1}\n')
    (here / "bad.txt").write_text("one 1 2\ntwo 1\n")
    (here / "good.txt").write_text("hot 1 0.1\nwarm 0.2 1\ncold 1 0\n")
    (here / "syn.txt").write_text("hot warm\n")
    (here / "ant.txt").write_text("hot cold\n")
    (here / "three.txt").write_text("hot warm cold\n")
    (here / "other.txt").write_text("x y\n")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert cli.main([*arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert after == before


def test_one_kind_of_copies_must_be_asked_for(here, capsys):
    for kinds in ([], ["--source", "typos", "--attack", "pwws"]):
        with pytest.raises(SystemExit) as caught:
            cli.main([*AUGMENT, *kinds])
        assert caught.value.code == 2
    assert tuple(sorted(SOURCES)) == NAMED


def test_counterfit_prints_what_moved_and_writes_vectors_that_attacks_read(here, capsys):
    (here / "v.txt").write_text("hot 1 0.1 0\nwarm 0.2 1 0\ncold 1 0 0\nchair 0 0 1\n")
    (here / "syn.txt").write_text("hot warm\nhot fiery\n")
    (here / "ant.txt").write_text("hot cold\n")
    assert cli.main(["counterfit", "v.txt", "--output-dir", "new", "--synonyms", "syn.txt",
                     "--antonyms", "ant.txt", "epochs=30"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    table, old = load_vectors(str(here / "new")), load_vectors(str(here / "v.txt"))
    assert table.neighbours("hot", 1)[0][0] == "warm"
    figures = re.findall(r"mean cosine ([-\d.]+) -> ([-\d.]+)", out)
    wanted = [
        (old.cosine(*pair), table.cosine(*pair)) for pair in (("hot", "warm"), ("hot", "cold"))
    ]
    np.testing.assert_allclose(np.array(figures, float), wanted, atol=2e-3)
    assert "4 words, 3 of them moved" in out
    assert "synonyms: 1 pair with" in out
    assert "antonyms: 1 pair with" in out
    assert sorted(path.name for path in (here / "new").iterdir()) == ["vectors.npy", "words.txt"]


def test_counterfit_takes_wordnet_when_no_lists_are_given(here, capsys, monkeypatch):
    (here / "nltk" / "corpora" / "wordnet").mkdir(parents=True)
    toy.write_wordnet(here / "nltk" / "corpora" / "wordnet")
    monkeypatch.setenv("NLTK_DATA", str(here / "nltk"))
    toy.write_vectors(here)
    assert cli.main(["counterfit", "vectors.npy", "--output-dir", "new", "epochs=2"]) == 0
    assert re.search(r"synonyms: [1-9]\d* pairs", capsys.readouterr().out)


def test_resources_say_what_is_there_and_how_to_get_the_rest(here, capsys, monkeypatch):
    for kind in KINDS.values():
        monkeypatch.delenv(kind.variable, raising=False)
    monkeypatch.setenv("TEXTADV_VECTORS", str(toy.write_vectors(here)))
    monkeypatch.setenv("NLTK_DATA", str(here / "nowhere"))
    monkeypatch.setenv("HOME", str(here))
    assert cli.main(["resources"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 80
    for kind in KINDS:
        assert re.search(rf"^{kind}  (found|missing)$", out, flags=re.MULTILINE)
    assert "vectors  found" in out
    assert str(here / "vectors.npy") in out
    assert "masked-lm  missing" in out
    assert "TEXTADV_MASKED_LM is not set" in out
    assert "save_pretrained" in out
    assert cli.main(["resources", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["attacks"]) == set(ATTACKS)
    assert found["attacks"]["deepwordbug"] == {"needs": [], "missing": []}
    assert "masked-lm" in found["attacks"]["bert-attack"]["missing"]
    assert {one["kind"] for one in found["resources"]} == set(KINDS)
    (vectors,) = [one for one in found["resources"] if one["kind"] == "vectors"]
    assert vectors["path"] == str(here / "vectors.npy")
    assert len(vectors["content"]) == 16


def test_resources_of_some_attacks(here, capsys, monkeypatch):
    monkeypatch.delenv("TEXTADV_MASKED_LM", raising=False)
    assert cli.main(["resources", "deepwordbug", "bert-attack"]) == 0
    out = capsys.readouterr().out
    assert "masked-lm  missing" in out
    assert "vectors" not in out.split("attacks\n")[0]
    assert re.search(r"ready +deepwordbug$", out, flags=re.MULTILINE)
    assert re.search(r"missing masked-lm +bert-attack$", out, flags=re.MULTILINE)


def test_every_command_has_a_function():
    parsers = next(a for a in make_parser()._actions if a.dest == "command").choices
    assert list(cli.COMMANDS) == list(parsers)
    import importlib

    for command, module in cli.COMMANDS.items():
        assert callable(getattr(importlib.import_module(f"textadv.cli.{module}"), command))
