"""What hostile files, names and texts can do: nothing but be refused, or shown as they are."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import save_tiny_model, sentiment_rows
from textadv import checkpoint, cli
from textadv.attacks import Record
from textadv.attacks.records import RecordFile
from textadv.cli.console import SafeConsole, guard_log
from textadv.errors import (
    ConfigError,
    DataError,
    OutputExistsError,
    TextAdvError,
    UnsupportedModelError,
    has_secret,
    printable,
    redacted,
    shown,
)
from textadv.files import formula_safe, parse_json, read_plain
from textadv.hub import plan_push
from textadv.models import load_config
from textadv.victim import ModelVictim

PACKAGE = Path(__file__).parent.parent / "textadv"
FILES = sorted(PACKAGE.rglob("*.py"))
TOKEN = "hf_" + "Canary7" * 5
SECRET = "correct-horse-battery"
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J[/red][bold]\u202edlrow\r\n\ud800"


@pytest.fixture(autouse=True, scope="module")
def no_bars():
    """Switch progress bars off, as the command line does where Transformers is not loaded yet."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text())
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_runs_code_from_data(path):
    """No pickle, eval, exec, unsafe YAML, shell, or import of a name that data gave."""
    banned = {"pickle", "dill", "marshal", "shelve", "cloudpickle", "joblib", "subprocess", "pty"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not banned & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in banned
    for called, node in calls(path):
        assert called not in {"eval", "exec", "compile", "__import__"}, called
        assert called not in {"torch.load", "torch.save", "np.load", "numpy.load"}, called
        assert called.rpartition(".")[2] not in {"load_state", "read_pickle", "system", "popen"}
        if called in {"yaml.load", "yaml.safe_load", "yaml.full_load", "yaml.unsafe_load"}:
            assert path.name == "settings.py", "read YAML with textadv.settings"
            assert "StrictLoader" in ast.unparse(node)
        if called.rpartition(".")[2] == "import_module":
            # Only the package's own lazy tables: no other file, and no name from outside.
            assert path.name == "__init__.py"
            tables = ("_LAZY[name]", "f'{__name__}.{_HOMES[name]}'",
                      "f'textadv.cli.{COMMANDS[arguments.command]}'")  # fmt: skip
            assert ast.unparse(node.args[0]) in tables


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_models_are_loaded_without_their_code_and_from_safetensors(path):
    source = path.read_text()
    for called, node in calls(path):
        if not called.endswith(".from_pretrained") or "PeftModel" in called:
            continue
        text = ast.unparse(node)
        starred = [k for k in node.keywords if k.arg is None]
        stated = "trust_remote_code=False" in text
        assert stated or (
            starred and "'trust_remote_code': False" in ast.unparse(ast.parse(source))
        )
        if "Tokenizer" not in called and "Config" not in called:
            assert "use_safetensors=True" in text, text
    assert "trust_remote_code=True" not in source
    assert '"trust_remote_code": True' not in source


def test_csv_is_written_in_one_place_through_the_guard():
    writers = [
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for called, _ in calls(path)
        if called.rpartition(".")[2] in {"DictWriter", "to_csv"} or called == "csv.writer"
    ]
    assert writers == ["cli/rows.py"]
    assert "formula_safe(" in (PACKAGE / "cli" / "rows.py").read_text()


def plant(folder: Path, **config: object) -> Path:
    """Add keys to a model's config, and code beside it that leaves a canary when run."""
    save_tiny_model(folder, num_labels=2)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    canary = folder / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w').write('run')\n")
    return canary


def test_code_that_a_model_names_is_not_run(tmp_path, caplog):
    names = ("AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer")
    canary = plant(tmp_path / "m", auto_map={name: f"evil.{name}" for name in names})
    ModelVictim.load(tmp_path / "m")
    assert not canary.exists()
    assert "auto_map in its config is ignored" in caplog.text
    canary = plant(tmp_path / "n", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(UnsupportedModelError) as caught:
        load_config(str(tmp_path / "n"))
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_that_a_config_names_is_not_fetched(key, tmp_path):
    plant(tmp_path / "m", **{key: "someone/kernel"})
    with pytest.raises(UnsupportedModelError, match="someone/kernel"):
        load_config(str(tmp_path / "m"))


def test_a_pickle_beside_the_weights_is_not_read(tmp_path):
    canary = plant(tmp_path / "m")

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    (tmp_path / "m" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    ModelVictim.load(tmp_path / "m")
    assert not canary.exists()
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="a pickle that can run code"):
        ModelVictim.load(tmp_path / "m")
    assert not canary.exists()


def test_weights_that_an_index_names_stay_in_the_folder(tmp_path):
    save_tiny_model(tmp_path / "m", num_labels=2)
    index = {"metadata": {}, "weight_map": {"a": "../outside.safetensors"}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedModelError, match=r"outside\.safetensors"):
        load_config(str(tmp_path / "m"))


@pytest.mark.parametrize(
    "line", ["trust_remote_code: true", "_target_: os.system", "use_safetensors: false"]
)
def test_a_recipe_cannot_switch_safety_off(line, tmp_path):
    from textadv.config import read_recipe

    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{name: m, {line}}}\ndata: {{train: t.csv}}\n")
    with pytest.raises(ConfigError, match="an unknown key"):
        read_recipe(path)


def manifest(folder: Path, files: dict[str, dict]) -> None:
    body = json.dumps(files, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"files": files, "sha256": digest}))


def test_a_manifest_reaches_nothing_outside(tmp_path, caplog):
    outside = tmp_path / "secret.txt"
    outside.write_text("outside")
    entry = {"size": 7, "sha256": hashlib.sha256(b"outside").hexdigest()}
    checkpoints = tmp_path / "checkpoints"
    for number, name in enumerate(["../../secret.txt", str(outside), "link"], start=2):
        folder = checkpoints / f"step-{number}"
        checkpoint.save(folder, lambda f: checkpoint.write_text(f / "state.json", "{}"))
        good = json.loads((folder / "manifest.json").read_text())["files"]
        if name == "link":
            (folder / "link").symlink_to(outside)
        manifest(folder, {**good, name: entry})
    checkpoint.save(checkpoints / "step-1", lambda f: checkpoint.write_text(f / "a", "b"))
    assert checkpoint.latest(checkpoints) == checkpoints / "step-1"
    assert caplog.text.count("is damaged") == 3
    assert outside.read_text() == "outside"


@pytest.mark.parametrize(
    "name", ["records.jsonl", "records.jsonl.header.json", "records.jsonl.torn"]
)
def test_records_are_not_written_through_a_link(name, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    record = Record(id="i", attack="a", status="survived", label=0, text=("t",))
    if name.endswith("torn"):
        with RecordFile(run / "records.jsonl", {"config_hash": "c"}) as file:
            file.append(record)
        with (run / "records.jsonl").open("a") as file:
            file.write('{"id": "torn')
    (run / name).symlink_to(outside)
    with pytest.raises(OutputExistsError, match="a link"):
        RecordFile(run / "records.jsonl", {"config_hash": "c"})
    assert outside.read_text() == "precious"


def test_small_files_are_read_within_limits(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 2000)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    for name, word in [("big", "more than 1,000 bytes"), ("fifo", "a FIFO"), ("device", "a device"),
                       ("broken", "a broken link"), (".", "a directory"), ("none", "no such file"),
                       ("a" * 5000, "unreadable"), ("nul\0", "unreadable")]:  # fmt: skip
        with pytest.raises(DataError, match=word):
            read_plain(tmp_path / name, "a file", limit=1000)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e999", "[" * 10_000, "9" * 5000, "\xff"])
def test_json_is_strict(text):
    with pytest.raises(ValueError):
        parse_json(text.encode("latin-1"))


@given(st.text())
def test_no_message_sends_anything_to_a_terminal(text):
    error = TextAdvError(text, got=text, expected=text, fix=text)
    for shape in (str(error), printable(text), shown(text)):
        assert shape.isprintable() or all(c.isprintable() or c.isspace() for c in shape)
        assert "\n" not in shape
        assert "\r" not in shape


@given(st.text(st.characters(codec=None)))
def test_the_console_sends_only_its_own_escapes(text):
    from rich.table import Table
    from rich.text import Text

    sent = io.StringIO()
    console = SafeConsole(file=sent, width=200, force_terminal=False)
    table = Table(title=text)
    table.add_row(text, Text(text))
    for what in (text, Text(text), table):
        console.print(what, soft_wrap=True)
    unsafe = {c for c in sent.getvalue() if not c.isprintable() and c not in "\n\t"}
    allowed = {c for c in text if c not in "\x1b"}
    assert not {c for c in unsafe if ord(c) < 0xA0 or (0x202A <= ord(c) <= 0x2069
                and ord(c) not in range(0x202F, 0x2066)) or 0xD800 <= ord(c) < 0xE000}  # fmt: skip
    assert unsafe <= allowed
    sent.getvalue().encode()


def test_colours_of_ours_still_reach_a_terminal():
    sent = io.StringIO()
    console = SafeConsole(file=sent, force_terminal=True, color_system="standard")
    console.print("\x1b[31mtheirs", style="bold", highlight=False)
    assert sent.getvalue() == "\x1b[1m\\x1b[31mtheirs\x1b[0m\n"


def test_what_is_logged_is_shown_and_not_sent(capsys, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    guard_log()
    record = logging.LogRecord("textadv", 30, "", 0, "row %s %s", (HOSTILE, SECRET), None)
    assert logging.lastResort is not None
    line = logging.lastResort.format(record)
    assert "\x1b" not in line
    assert "\\x1b[31mred" in line
    assert SECRET not in line


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = {0: HOSTILE[:-1], 1: "fine"}
    save_tiny_model(tmp_path / "model", num_labels=2, id2label=names)
    rows = [{**row, "id": f"{HOSTILE[:-1]}{n}"} for n, row in enumerate(sentiment_rows(6))]
    rows += [{"id": "twin-1", "text": f"same {HOSTILE[:-1]}", "label": 0},
             {"id": "twin-2", "text": f"same {HOSTILE[:-1]}", "label": 1}]  # fmt: skip
    (tmp_path / "data[.x].jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_hostile_names_and_texts_are_shown_by_every_command(place, capsys):
    out = "out[/b]"
    data = ["--data", "data[.x].jsonl", "--num-examples", "8"]
    attack = ["attack", "model", "--attack", "deepwordbug", "--query-budget", "20"]
    assert cli.main([*attack, *data, "--output-dir", out]) == 0
    assert cli.main([*attack, "--example", f"a good {HOSTILE[:-1]} film"]) == 0
    assert cli.main(["report", out]) == 0
    assert cli.main(["compare", out, out]) == 0
    assert cli.main(["show", HOSTILE]) == 2
    assert cli.main(["check", HOSTILE]) == 2
    assert cli.main(["attack", HOSTILE, *attack[2:], *data, "--output-dir", "o"]) == 2
    shown_all = "".join(capsys.readouterr())
    assert "\\x1b[31mred" in shown_all
    assert out in shown_all
    assert "data[.x].jsonl" in shown_all
    unsafe = {c for c in shown_all if not c.isprintable() and c != "\n"}
    assert unsafe <= {"\u200d"}, unsafe
    for file in (place / out).rglob("*.md"):
        assert "\x1b" not in file.read_text()


def test_secrets_are_in_nothing_that_is_written_or_said(place, capsys, caplog, monkeypatch):
    for name, value in {"HF_TOKEN": TOKEN, "WANDB_API_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    (place / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    rows = [f"{row['text']},{row['label']}" for row in sentiment_rows(8)]
    (place / "d.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (place / "r.yaml").write_text(
        "model: {name: model}\ndata: {train: d.csv, validation: d.csv, max_length: 32}\n"
        "training: {max_steps: 1, batch_size: 8, precision: fp32}\n"
        "evaluation: {attacks: [deepwordbug], num_examples: 4, query_budget: 20}\n"
    )
    assert cli.main(["train", "r.yaml", "--output-dir", "run"]) == 0
    assert cli.main(["report", "run"]) == 0
    assert cli.main(["push", "run", "owner/name"]) == 0
    assert cli.main(["env"]) == 0
    for bad in ([f"hub.license={TOKEN}"], [f"model.name=https://me:{SECRET}@host/m"],
                [f"training.seed={TOKEN}"], [f"data.train={SECRET}.csv"]):  # fmt: skip
        assert cli.main(["train", "r.yaml", *bad, "--output-dir", "other"]) == 2
    assert cli.main(["attack", f"owner/{TOKEN}", "--data", "d.csv", "--attack", "deepwordbug",
                     "--output-dir", "o"]) == 2  # fmt: skip
    said = "".join(capsys.readouterr()) + caplog.text
    assert "access token" in said
    written = {p: p.read_bytes() for p in place.rglob("*") if p.is_file() and p.name != ".env"}
    assert len(written) > 10
    for secret in (TOKEN, SECRET):
        assert secret not in said
        assert [p for p, content in written.items() if secret.encode() in content] == []
    listing = plan_push(place / "run", "owner/name").listing()
    assert ".env" not in listing


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"x {TOKEN} y", TOKEN),
        ("https://user:pa55word@host/x", "pa55word"),
        ("ghp_" + "a1B2" * 9, "a1B2"),
        ("AKIAIOSFODNN7EXAMPLE", "EXAMPLE"),
    ],
)
def test_secrets_are_left_out(text, hidden):
    assert hidden not in redacted(text)
    assert hidden not in str(TextAdvError("where", got=text, fix=text))
    assert hidden not in shown(text)
    assert hidden not in shown({"key": text})


def test_ordinary_words_are_no_secrets(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SHORT_TOKEN", "the")
    for text in ("hf_hub", "the task-oriented risk-averse model", "a https://host/path@2x"):
        assert redacted(text) == text
        assert not has_secret(text)


def test_a_published_file_with_any_token_is_refused(place):
    (place / "d.csv").write_text("text,label\na good film,1\na bad plot,0\n")
    (place / "r.yaml").write_text(
        "model: {name: model}\ndata: {train: d.csv, max_length: 32}\n"
        "training: {max_steps: 1, precision: fp32}\nevaluation: {attacks: []}\n"
    )
    assert cli.main(["train", "r.yaml", "--output-dir", "run"]) == 0
    recipe = place / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + f"# {'ghp_' + 'a1B2' * 9}\n")
    with pytest.raises(DataError, match="what looks like an access token"):
        plan_push(place / "run", "owner/name")


@pytest.mark.parametrize(
    "cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "-", "=", "--1"]
)
def test_cells_that_a_spreadsheet_would_run_are_quoted(cell):
    assert formula_safe(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a = b", "-1", "+1.5", "-1,000", "-2e-3", "1-2", "'=1"])
def test_other_cells_stay(cell):
    assert formula_safe(cell) == cell


def test_augmented_tables_are_formula_safe_unless_asked(place, capsys):
    rows = ["text,label", "=cmd|' /C calc'!A0 good film,1", "a very bad film,0", "-1 good film,1"]
    (place / "d.csv").write_text("\n".join(rows) + "\n")
    augment = ["augment", "d.csv", "--source", "typos", "--out"]
    assert cli.main([*augment, "safe.csv"]) == 0
    assert "a spreadsheet would run" in capsys.readouterr().out
    lines = (place / "safe.csv").read_text().splitlines()
    assert lines[1] == "'=cmd|' /C calc'!A0 good film,1"
    assert not [line for line in lines if line.lstrip('"').startswith(("=", "+", "@"))]
    assert cli.main([*augment, "exact.csv", "--exact"]) == 0
    assert (place / "exact.csv").read_text().splitlines()[1] == rows[1]
    assert cli.main([*augment, "exact.jsonl"]) == 0
    first = json.loads((place / "exact.jsonl").read_text().splitlines()[0])
    assert first["text"] == "=cmd|' /C calc'!A0 good film"


@pytest.mark.slow
def test_progress_bars_of_other_libraries_stay_out_of_the_errors(place):
    (place / "d.csv").write_text("text,label\na good film,1\na bad plot,0\n")
    command = [sys.executable, "-m", "textadv", "attack", "model", "--data", "d.csv", "--attack",
               "deepwordbug", "--output-dir", "o"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
