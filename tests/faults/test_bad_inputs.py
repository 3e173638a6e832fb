"""Fifty bad inputs: each ends in one clear line, before anything is loaded, written or changed."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.models import save_tiny_model
from textadv import cli
from textadv.data import DataConfig, load_data
from textadv.testing import tiny_model

CSV = "text,label\na good film,1\na bad plot,0\na fine scene,1\na dull actor,0\n"
RECIPE = """
model: {name: model}
data: {train: good.csv, validation: good.csv, max_length: 32}
objective: {name: adversarial, perturbation: {name: fgm, epsilon: 0.3}}
training: {epochs: 1, batch_size: 32, precision: fp32}
evaluation: {attacks: [deepwordbug], num_examples: 2, query_budget: 20}
"""
TRAIN = "train recipe.yaml --output-dir run"
BAD = f"{TRAIN} data.train=bad.csv"
BADL = f"{TRAIN} data.train=bad.jsonl"
CHECK = "check bad.yaml"
ATTACK = "attack model --attack deepwordbug --num-examples 3 --output-dir out --data"

Build = Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """One bad input: how it is made, what is run, and what the line must say."""

    number: int
    name: str
    command: str
    words: tuple[str, ...]
    build: Build = lambda folder: None
    exit: int = 2
    reads_weights: bool = False


def csv(text: str, name: str = "bad.csv") -> Build:
    return lambda folder: (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))


def raw(content: bytes, name: str = "bad.csv") -> Build:
    return lambda folder: (folder / name).write_bytes(content)


def rows(*values: object, name: str = "bad.jsonl") -> Build:
    lines = [json.dumps(value) + "\n" for value in values]
    return lambda folder: (folder / name).write_text("".join(lines))


def labels(*values: object) -> Build:
    return rows(*({"text": f"text {n}", "label": label} for n, label in enumerate(values)))


def recipe(**blocks: str) -> Build:
    """Write a recipe, checked on its own, with some blocks replaced."""
    lines = {line.split(":")[0]: line for line in RECIPE.strip().splitlines()} | {
        name: f"{name}: {block}" for name, block in blocks.items()
    }
    return lambda folder: (folder / "bad.yaml").write_text("\n".join(lines.values()) + "\n")


def model(**config: object) -> Build:
    return lambda folder: save_tiny_model(folder / "other", **config)


def both(*builds: Build) -> Build:
    return lambda folder: [build(folder) for build in builds]


def huge(folder: Path) -> None:
    with (folder / "bad.csv").open("wb") as file:
        file.write(b"text,label\nshort,0\n")
        for _ in range(100):
            file.write(b"word " * 200_000)
        file.write(b",1\n")


def pickled(folder: Path) -> None:
    save_tiny_model(folder / "other")
    (folder / "other" / "model.safetensors").rename(folder / "other" / "pytorch_model.bin")


def with_nan(folder: Path) -> None:
    network = tiny_model("bert", num_labels=2)
    with torch.no_grad():
        network.classifier.weight[0, 0] = torch.nan
    save_tiny_model(folder / "other", num_labels=2)
    network.save_pretrained(folder / "other")


def without_pad(folder: Path) -> None:
    """Write a decoder whose tokenizer has no pad token and states no longest input."""
    save_tiny_model(folder / "other", "gpt2", num_labels=2, pad_token_id=None)
    path = folder / "other" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("pad_token")
    settings["model_max_length"] = int(1e30)
    path.write_text(json.dumps(settings))


def finished_run(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "recipe.yaml").write_text("model: {name: other}\n")


def bomb(folder: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (folder / "bad.yaml").write_text("a0: &a0 [x]\n" + "\n".join(levels) + "\n")


NAMED = "text,label\na good film,pos\na bad plot,neg\na fine scene,pos\na dull actor,neg\n"
CHINESE = "text,label\n很好的电影,1\n很坏的电影,0\n好看的场景,1\n"
ROWS = [
    Row(1, "text column missing", f"{BAD} data.text=sentense",
        ("no column 'sentense'", "one of sentence, label", "--text-column", "'sentence'?"),
        csv(CSV.replace("text", "sentence"))),
    Row(1, "text column missing, attack", f"{ATTACK} good.csv --text-column txt",
        ("good.csv", "no column 'txt'", "text, label", "--text-column")),
    Row(2, "label column missing", BAD,
        ("label column", "text, gold", "data.label (--label-column)"),
        csv(CSV.replace("label", "gold"))),
    Row(2, "label column named target", f"{CHECK} --no-data", ("ok",),
        both(csv(CSV.replace("label", "target")), recipe()), 0),
    Row(2, "label column named target, found", "check bad.yaml", ("guessed", "label from 'target'"),
        both(csv(CSV.replace("label", "target")), recipe(data="{train: bad.csv}")), 0),
    Row(3, "empty file", BAD, ("bad.csv", "0 rows (an empty file)", "a header and rows"), csv("")),
    Row(4, "header only", BAD, ("bad.csv", "0 rows below the columns 'text, label'"),
        csv("text,label\n")),
    Row(5, "empty text", BAD, ("row 2, 4", "an empty text in 2 rows", "drop_empty"),
        csv("text,label\na,0\n,1\nb,1\n,0\n")),
    Row(5, "empty text, attack", f"{ATTACK} bad.csv", ("row 2", "--drop-empty"),
        csv("text,label\na,0\n,1\n")),
    Row(5, "empty text, dropped", f"{ATTACK} bad.csv --drop-empty",
        ("dropped 1 rows with an empty text",), csv("text,label\na film,0\n,1\n"), 0, True),
    Row(6, "spaces and zero-width only", BAD, ("row 1, 2", "an empty text in 2 rows"),
        csv("text,label\n  \t,0\n\u200b\ufeff,1\nb,1\n")),
    Row(7, "null text", BADL, ("row 2, column 'text'", "got nothing (null)", "expected text"),
        rows({"text": "None", "label": 0}, {"text": None, "label": 1})),
    Row(7, "NaN text", BADL, ("row 2, column 'text'", "got float nan"),
        rows({"text": "nan", "label": 0}, {"text": float("nan"), "label": 1})),
    Row(8, "NA, null, nan, None as text", CHECK, ("train 4", "2 labels"),
        both(csv("text,label\nNA,0\nnull,1\nnan,0\nNone,1\n"), recipe(data="{train: bad.csv}")), 0),
    Row(9, "007, 1e5, true as text", CHECK, ("train 3", "2 labels"),
        both(csv("text,label\n007,0\n1e5,1\ntrue,0\n"), recipe(data="{train: bad.csv}")), 0),
    Row(10, "a list as text", BADL, ("row 2, column 'text'", "got list ['a', 'b']"),
        rows({"text": "a", "label": 0}, {"text": ["a", "b"], "label": 1})),
    Row(11, "mixed strings and integers", BADL, ("row 3, column 'text'", "got int 7"),
        rows({"text": "a", "label": 0}, {"text": "b", "label": 1}, {"text": 7, "label": 1})),
    Row(12, "label -1", BADL, ("row 3", "label -1 (-1 often means unlabelled)", "labels >= 0"),
        labels(0, 1, -1)),
    Row(12, "label = num_labels", f"{ATTACK} bad.jsonl", ("row 3", "label 2", "an integer 0..1"),
        labels(0, 1, 2)),
    Row(13, "label -100", BADL, ("row 2", "label -100 (which the loss would ignore)"),
        labels(0, -100, 1)),
    Row(14, "label 1.0", CHECK, ("whole numbers such as 1.0 taken as integers", "2 labels"),
        both(labels(0.0, 1.0, 1.0), recipe(data="{train: bad.jsonl}")), 0),
    Row(15, "label 1.5", BAD, ("different kinds", "1 float, 3 int", "1.5"),
        csv("text,label\na,0\nb,1\nc,1.5\nd,1\n")),
    Row(15, "label NaN", BADL, ("row 2", "label nan", "a finite number"),
        labels(0, float("nan"), 1)),
    Row(15, "label nan in CSV", BAD, ("different kinds", "2 int, 1 name"),
        csv("text,label\na,0\nb,nan\nc,1\n")),
    Row(16, "string labels", CHECK, ("labels mapped to ids: {0: 'neg', 1: 'pos'}", "data.labels"),
        both(csv(NAMED), recipe(data="{train: bad.csv}")), 0),
    Row(16, "string labels without a map", f"{ATTACK} bad.csv",
        ("row 1", "label 'pos'", "labels found: ['neg', 'pos']", "--label-map 'neg=0,pos=1'"),
        csv(NAMED)),
    Row(16, "string labels with a map", f"{ATTACK} bad.csv --label-map neg=0,pos=1",
        ("deepwordbug",), csv(NAMED), 0, True),
    Row(16, "a map that does not fit", f"{ATTACK} bad.csv --label-map neg=0,pos=2",
        ("--label-map", "'pos'", "got '2'", "a name or id of"), csv(NAMED)),
    Row(17, "mixed labels", BAD, ("different kinds (1 float, 2 int, 1 name)", "pos"),
        csv("text,label\na,1\nb,pos\nc,2.5\nd,0\n")),
    Row(18, "boolean labels", CHECK, ("booleans mapped to False = 0, True = 1",),
        both(labels(True, False, True), recipe(data="{train: bad.jsonl}")), 0),
    Row(19, "a single class", BAD, ("a single class, 1, in all 2 training rows", "two or more"),
        csv("text,label\na,1\nb,1\n")),
    Row(20, "a class that train lacks", f"{TRAIN} data.validation=bad.csv",
        ("bad.csv", "row 2", "label 2", "does not occur in the training rows", "data.labels"),
        csv("text,label\na,1\nb,2\n")),
    Row(21, "another number of labels", BAD,
        ("stored head", "got 2 labels", "the 3 of the data", "model.new_head: true"),
        csv(CSV + "a quiet story,2\n")),
    Row(22, "permuted label names", f"{BAD} model.name=other",
        ("stored head", "{0: 'pos', 1: 'neg'}", "{0: 'neg', 1: 'pos'}", "data.labels"),
        both(csv(NAMED), model(id2label={0: "pos", 1: "neg"}, num_labels=2))),
    Row(23, "one row", BAD, ("a single class",), csv("text,label\na film,1\n")),
    Row(23, "one row, attack", f"{ATTACK} bad.csv", ("n = 1 ", "preliminary"),
        csv("text,label\na film,1\n"), 0, True),
    Row(24, "fewer rows than a batch", f"{TRAIN} data.validation=null evaluation.attacks=[]",
        ("1 steps", "model: run/model"), exit=0, reads_weights=True),
    Row(25, "duplicate ids", BAD, ("column 'id'", "1 ids more than once, such as 'x'"),
        csv("id,text,label\nx,a,0\nx,b,1\n")),
    Row(26, "missing ids", CHECK, ("train 3",),
        both(csv("id,text,label\nx,a,0\n,b,1\n,b,0\n"), recipe(data="{train: bad.csv}")), 0),
    Row(27, "duplicate texts", CHECK,
        ("4 rows repeat the text", "3 texts with conflicting labels", "'a'", "'b'", "'c'"),
        both(csv("text,label\n" + "".join(f"{t},0\n{t},1\n" for t in "abc") + "d,1\nd,1\n"),
             recipe(data="{train: bad.csv}")), 0),
    Row(28, "train and validation overlap", "check recipe.yaml",
        ("validation: 4 of 4 texts also occur in train",), exit=0),
    Row(29, "over-long text", f"{ATTACK} bad.csv --max-length 8",
        ("25.0% of 4 texts have more than 8 tokens and are cut", "95 % have at most 42"),
        csv(CSV.replace("a bad plot", "a bad plot " * 13 + "end")), 0, True),
    Row(30, "one text of 100 MB", BAD, ("row 2", "a line of more than 16,777,216 bytes"), huge),
    Row(31, "lone surrogate", BADL, ("row 2", "lone surrogate U+D800 at character 3"),
        rows({"text": "a", "label": 0}, {"text": "abc\ud800", "label": 1})),
    Row(31, "lone surrogate in a label", BADL, ("row 2", "label 'a\\ud800'"),
        labels("a", "a\ud800")),
    Row(32, "controls and ANSI codes", CHECK, ("conflicting labels, such as '\\x1b[31mred\\x00'",),
        both(csv("text,label\n\x1b[31mred\0,0\n\x1b[31mred\0,1\n"),
             recipe(data="{train: bad.csv}")), 0),
    Row(33, "zero-width and direction marks", f"{ATTACK} bad.csv",
        ("2 of 4 texts hold invisible characters; in 0 the tokenizer drops them",),
        csv("text,label\na good film\u200b,1\nb\u202ead film,0\na,1\nb,0\n"), 0, True),
    Row(34, "composed and decomposed twins", CHECK,
        ("1 rows repeat the text", "{0: 'caf\\xe9', 1: 'th\\xe9'}"),
        both(csv("text,label\nna\u00efve,caf\u00e9\nnai\u0308ve,cafe\u0301\ntea,th\u00e9\n"),
             recipe(data="{train: bad.csv}")), 0),
    Row(35, "another language",
        f"{ATTACK} bad.csv".replace("deepwordbug", "synonym")
        + " synonym.source=vectors synonym.vectors=english.vec",
        ("no candidates in", "made for the language"),
        both(csv(CHINESE), csv("good 1 0\nfine 1 0.1\nbad 0 1\n", "english.vec")), 0, True),
    Row(36, "not UTF-8", BAD, ("row 1", "byte 0xe9 at byte offset 14", "expected UTF-8", "CP1252"),
        raw(b"text,label\ncaf\xe9,0\n")),
    Row(37, "byte order mark and CRLF", CHECK, ("train 4",),
        both(raw(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
             recipe(data="{train: bad.csv}")), 0),
    Row(37, "UTF-16", BAD, ("bad.csv", "got UTF-16 text", "expected UTF-8", "iconv"),
        raw(CSV.encode("utf-16"))),
    Row(38, "ragged row", BAD, ("row 2 (line 3)", "3 fields", "expected 2"),
        csv("text,label\na,0\nb,c,1\n")),
    Row(39, "duplicate header", BAD, ("header", "column 'text' more than once"),
        csv("text,label,text\na,0,b\n")),
    Row(40, "truncated last line", BADL, ("row 2 (line 2)", "byte 35", "it was cut off"),
        raw(b'{"text": "a", "label": 0}\n{"text": "abc', "bad.jsonl")),
    Row(41, "a directory as data", BAD, ("data.train", "a directory"),
        lambda folder: (folder / "bad.csv").mkdir()),
    Row(41, "a FIFO as data", BAD, ("data.train", "a FIFO"),
        lambda folder: os.mkfifo(folder / "bad.csv")),
    Row(41, "a device as data", BAD, ("data.train", "a device"),
        lambda folder: (folder / "bad.csv").symlink_to("/dev/zero")),
    Row(41, "a broken link as data", BAD, ("data.train", "a broken link"),
        lambda folder: (folder / "bad.csv").symlink_to(folder / "gone.csv")),
    Row(41, "a FIFO as recipe", CHECK, ("bad.yaml", "a FIFO"),
        lambda folder: os.mkfifo(folder / "bad.yaml")),
    Row(41, "a directory as recipe", CHECK, ("bad.yaml", "a directory"),
        lambda folder: (folder / "bad.yaml").mkdir()),
    Row(41, "a FIFO as records", "compare first second", ("first", "a FIFO"),
        lambda folder: [(folder / "first").mkdir(), os.mkfifo(folder / "first" / "report.json")]),
    Row(42, "unknown key", f"{TRAIN} training.epocs=3",
        ("training.epocs", "an unknown key", "did you mean 'epochs'")),
    Row(43, "wrong type", CHECK, ("training.batch_size", "got 'many' (str)", "a whole number"),
        recipe(training="{batch_size: many}")),
    Row(43, "negative radius", CHECK, ("objective.perturbation.epsilon", "got -1.0", ">= 0"),
        recipe(objective="{name: adversarial, perturbation: {name: fgm, epsilon: -1}}")),
    Row(43, "no steps", CHECK, ("objective.perturbation.num_steps", "got 0", ">= 1"),
        recipe(objective="{name: adversarial, perturbation: {name: pgd, num_steps: 0}}")),
    Row(43, "learning rate NaN", CHECK, ("training.learning_rate", "got nan", "a finite number"),
        recipe(training="{learning_rate: .nan}")),
    Row(44, "a Python object in YAML", CHECK, ("bad.yaml: line 1", "plain YAML"),
        csv("a: !!python/object/apply:os.mknod ['canary']\n", "bad.yaml")),
    Row(44, "a Python object in an override", f"{TRAIN} 'training.seed=!!python/name:os.mknod'",
        ("override training.seed", "plain YAML")),
    Row(44, "a bomb of aliases", CHECK, ("bad.yaml: line 2", "a YAML alias"), bomb),
    Row(44, "deep nesting", CHECK, ("bad.yaml: line 1", "too deep nesting"),
        csv("[" * 100_000, "bad.yaml")),
    *(Row(45, f"model id {name!r}", f"{TRAIN} 'model.name={name}'", ("model", words))
      for name, words in [
          ("../outside/model", "no such directory"), ("org/../../etc", "a Hub id"),
          ("https://example.org/model", "a Hub id"), ("two words", "a Hub id"),
          ("a/b/c", "a Hub id"), ("C:\\\\models\\\\x", "a Hub id"),
          ("/no/such/place", "no such directory"), ("'~/no-such-model'", "no such directory"),
      ]),
    Row(45, "model id with a password", f"{TRAIN} model.name=https://me:hunter2xyz@example.org/m",
        ("https://***@example.org/m",)),
    Row(46, "no safetensors", f"{TRAIN} model.name=other",
        ("pytorch_model.bin", "a pickle that can run code", "expected model.safetensors"), pickled),
    Row(47, "tokenizer larger than the model", f"{TRAIN} model.name=other",
        ("tokenizer", "token ids up to 33", "below the 20 embeddings"),
        model(vocab_size=20, num_labels=2), reads_weights=True),
    Row(48, "no pad token, no longest input", f"{ATTACK} good.csv".replace("model", "other"),
        ("deepwordbug",), without_pad, 0, True),
    Row(49, "NaN in the weights", f"{TRAIN} model.name=other",
        ("classifier.weight", "NaN or infinite weights"), with_nan, reads_weights=True),
    Row(50, "output below a file", f"{TRAIN}/x".replace("run", "good.csv"),
        ("good.csv", "a file", "a directory to write to", "--output-dir")),
    Row(50, "output of another run", TRAIN,
        ("run", "a directory that holds 'recipe.yaml'", "--resume"), finished_run),
    Row(50, "attack into another run", f"{ATTACK} good.csv".replace("dir out", "dir run"),
        ("run", "a directory that holds"), finished_run),
    # What cannot be combined is refused when the recipe is read, with the reason.
    *(Row(0, name, f"{CHECK} --no-data", words, recipe(**{"data": data, "objective": objective}))
      for name, data, objective, words in [
          ("a divergence from zero", "{train: good.csv}",
           "{name: trades, perturbation: {name: fgm}}",
           ("objective.trades: perturbation", "a start at zero", "no gradient at delta = 0")),
          ("DLR with two classes", "{train: good.csv, task: single_label, labels: [a, b]}",
           "{name: adversarial, perturbation: {name: pgd, loss: dlr}}",
           ("objective: loss", "'dlr' with 2 classes", "3 or more", "margin")),
          ("MART on regression", "{train: good.csv, task: regression}", "{name: mart}",
           ("objective: mart", "a regression head", "one class a text", "use trades")),
          ("margin on regression", "{train: good.csv, task: regression}",
           "{name: adversarial, perturbation: {name: pgd, loss: margin}}",
           ("objective: loss", "'margin' on a regression head")),
          ("text attacks on several labels", "{train: good.csv, task: multi_label}",
           "{name: clean}", ("evaluation.attacks", "multi_label", "evaluation.attacks: []")),
          ("a norm misspelt", "{train: good.csv}",
           "{name: adversarial, perturbation: {name: pgd, norm: l_inf}}",
           ("perturbation.norm", "'l_inf'", "did you mean 'linf'")),
          ("a scope misspelt", "{train: good.csv}",
           "{name: adversarial, perturbation: {name: pgd, scope: tokens}}",
           ("perturbation.scope", "'tokens'", "did you mean 'token'")),
          ("a site misspelt", "{train: good.csv}",
           "{name: adversarial, site: wrod, perturbation: {name: pgd}}",
           ("objective", "unknown site: got 'wrod'", "did you mean 'word'")),
          ("l1 with APGD", "{train: good.csv}",
           "{name: adversarial, perturbation: {name: apgd, norm: l1}}",
           ("perturbation.norm", "'l1'", "l2 or linf")),
          ("restarts from zero", "{train: good.csv}",
           "{name: adversarial, perturbation: {name: pgd, restarts: 3}}",
           ("perturbation.restarts", "a random start")),
      ]),
    Row(0, "DLR with two classes in the data", CHECK, ("objective: loss", "'dlr' with 2 classes"),
        recipe(objective="{name: adversarial, perturbation: {name: pgd, loss: dlr}}")),
    Row(0, "MART on scores in the data", CHECK, ("objective: mart", "a regression head"),
        both(labels(0.5, 1.25, 2.75), recipe(data="{train: bad.jsonl}", objective="{name: mart}"))),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def no_bars():
    """Switch progress bars off, as the command line does where Transformers is not loaded yet."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    save_tiny_model(folder / "model", num_labels=2)
    (folder / "good.csv").write_text(CSV)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def place(template, tmp_path, monkeypatch) -> Path:
    shutil.copytree(template, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def state(folder: Path) -> dict[str, tuple]:
    """Return what a folder holds, its surroundings included, as far as a change would show."""
    found = {}
    for path in sorted(folder.parent.rglob("*")):
        one = path.lstat()
        found[str(path)] = (one.st_mode, one.st_size, one.st_mtime_ns if path.is_file() else 0)
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number} {row.name}")
def test_bad_input(row, place, capsys, caplog, monkeypatch):
    import transformers

    loaded = []
    real = transformers.AutoModelForSequenceClassification.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForSequenceClassification,
        "from_pretrained",
        lambda *args, **options: loaded.append(args) or real(*args, **options),
    )
    row.build(place)
    capsys.readouterr()
    before = state(place)
    assert cli.main(shlex.split(row.command)) == row.exit
    out, err = capsys.readouterr()
    for word in row.words:
        assert word in (err if row.exit else out), (out, err)
    assert "Traceback" not in out + err
    assert "\x1b" not in out + err
    assert "hunter2xyz" not in out + err
    assert bool(loaded) == row.reads_weights
    if row.exit:
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert len(err) < 1200
        assert state(place) == before


def test_every_number_has_a_row():
    assert {row.number for row in ROWS} == set(range(51))


def test_what_is_accepted_is_taken_as_it_was_typed(place):
    """Texts that look like other things (8, 9, 32, 33), and ids made of the content (26)."""
    texts = ["NA", "null", "nan", "None", "007", "1e5", "true", "\x1b[31mred\0", "a\u200bb\u202ec"]
    lines = [f"{'x' if n == 0 else ''},{text},{n % 2}\n" for n, text in enumerate(texts)]
    for name, order in (("bad.csv", lines), ("turned.csv", lines[::-1])):
        csv("id,text,label\n" + "".join(order), name)(place)
    data = load_data(DataConfig(train="bad.csv", validation="turned.csv"), base_dir=place)
    rows, turned = (data.splits[name] for name in ("train", "validation"))
    assert rows["text"][:] == [[text] for text in texts]
    assert rows["id"][0] == "x"
    assert len({*rows["id"]}) == len(texts)
    assert turned["id"][::-1] == rows["id"][:]


def test_an_output_that_nobody_may_write_is_refused(place, capsys, monkeypatch):
    """Where the tests run as root, who may write everywhere, the question is answered for it."""
    (place / "shut").mkdir(mode=0o555)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != "shut" and access(path, mode)
    )
    before = state(place)
    for output in ("shut", "shut/run"):
        assert cli.main(shlex.split(TRAIN.replace("dir run", f"dir {output}"))) == 2
        err = capsys.readouterr().err
        assert "shut: got a directory that cannot be written, expected a directory to" in err
        assert err.count("\n") == 1
    assert state(place) == before


def test_a_text_of_100_mb_is_refused_in_flat_memory(place):
    huge(place)
    tracemalloc.start()
    assert cli.main(shlex.split(BAD)) == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


@pytest.mark.parametrize(
    ("command", "made"), [(f"{ATTACK} good.csv", "out"), (TRAIN, "run")], ids=["attack", "train"]
)
def test_a_full_disk_is_one_line_and_exit_code_6(command, made, place, capsys):
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        code = cli.main(shlex.split(command))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert code == 6, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert made in err
    assert {path: path.read_bytes() for path in before} == before


def test_records_that_another_process_writes_are_exit_code_7(place, capsys):
    import fcntl

    assert cli.main(shlex.split(f"{ATTACK} good.csv")) == 0
    before = state(place)
    with (place / "out" / "records.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cli.main(shlex.split(f"{ATTACK} good.csv")) == 7
    assert "another process is writing" in capsys.readouterr().err
    assert state(place) == before


def test_safe_defaults_are_stated_in_the_log(place, caplog):
    without_pad(place)
    assert cli.main(shlex.split(f"{ATTACK} good.csv".replace("model", "other"))) == 0
    assert "no pad token: padding with id" in caplog.text
