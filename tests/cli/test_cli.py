"""The command line: what it prints, where it exits, what it never overwrites."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.models import save_tiny_model
from textadv import cli
from textadv.attacks import ATTACKS
from textadv.cli.tables import list_builtin
from textadv.objectives import OBJECTIVES
from textadv.perturb import PERTURBATIONS


def test_help_is_instant_and_imports_nothing_heavy():
    code = (
        "import sys, contextlib, io\n"
        "from textadv.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])\n"
        "print('torch' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_python_m_textadv_works():
    done = subprocess.run(
        [sys.executable, "-m", "textadv", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("textadv 0.")


def test_train_attack_and_push_dry_run(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    run = str(files / "run")
    assert cli.main(["train", "recipe.yaml", "training.seed=1", "--output-dir", run]) == 0
    out = capsys.readouterr().out
    assert "deepwordbug" in out
    assert "preliminary" in out
    assert "data.csv" in out
    arguments = ["attack", f"{run}/model", "--data", "data.csv", "--attack"]
    options = ["--num-examples", "8", "--output-dir", str(files / "attacked")]
    assert cli.main([*arguments, "deepwordbug", "deepwordbug.max_distance=2", *options,
                     "--perturbation", "pgd", "pgd.epsilon=0.2"]) == 0  # fmt: skip
    report = json.loads((files / "attacked" / "report.json").read_text())
    assert report["attacks"]["deepwordbug"]["config"]["max_distance"] == 2
    assert report["embedding"]["pgd"]["epsilon"] == 0.2
    assert cli.main(["push", run, "someone/model"]) == 0
    out = capsys.readouterr().out
    assert "model.safetensors" in out
    assert "dry run: nothing was sent" in out


def test_a_finished_attack_is_not_run_again(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    arguments = ["attack", "model", "--data", "data.csv", "--attack", "deepwordbug"]
    arguments += ["--num-examples", "6", "--output-dir", "out"]
    assert cli.main(arguments) == 0
    before = (files / "out" / "records.jsonl").read_text()
    assert cli.main(arguments) == 0
    assert (files / "out" / "records.jsonl").read_text() == before
    assert cli.main([*arguments, "--seed", "3"]) == 2
    assert "error:" in capsys.readouterr().err
    assert (files / "out" / "records.jsonl").read_text() == before


def test_evaluate_compare_and_report(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    save_tiny_model(files / "other", num_labels=2, seed=1)
    for model in ("model", "other"):
        arguments = ["evaluate", model, "--data", "data.csv", "--quick", "--num-examples", "12"]
        assert cli.main([*arguments, "--output-dir", f"judged-{model}"]) == 0
    report = json.loads((files / "judged-model" / "report.json").read_text())
    assert report["num_examples"] == 12
    line = "textadv evaluate model --data data.csv --quick --num-examples 12 --output-dir RUN"
    assert report["commands"] == [line]
    assert cli.main(["compare", "judged-model", "judged-other"]) == 0
    out = capsys.readouterr().out
    assert "n = 12, the same examples - preliminary" in out
    assert cli.main(["report", "judged-model", "--html", "page.html"]) == 0
    page = (files / "page.html").read_text()
    assert "Content-Security-Policy" in page
    assert cli.main(["compare", "judged-model", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_evaluate_some_tracks(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    arguments = ["evaluate", "model", "--data", "data.csv", "--quick", "--num-examples", "6"]
    assert cli.main([*arguments, "--tracks", "char", "--output-dir", "chars"]) == 0
    report = json.loads((files / "chars" / "report.json").read_text())
    assert list(report["attacks"]) == ["deepwordbug"]
    assert not report["embedding"]
    assert cli.main([*arguments, "--tracks", "chars", "--output-dir", "other"]) == 2
    assert "unknown track: got 'chars'" in capsys.readouterr().err
    assert not (files / "other" / "report.json").exists()


def test_resume_of_a_finished_run_changes_nothing(files, monkeypatch):
    monkeypatch.chdir(files)
    assert cli.main(["train", "recipe.yaml", "--output-dir", "run"]) == 0
    model = (files / "run" / "model" / "model.safetensors").read_bytes()
    assert cli.main(["train", "recipe.yaml", "--output-dir", "run", "--resume"]) == 0
    assert (files / "run" / "model" / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.yaml"], "recipe none.yaml: got no such file"),
        (["train", "recipe.yaml", "training.epocs=1"], "did you mean 'epochs'"),
        (["train", "recipe.yaml", "data.text=body"], "body"),
        (["train", "recipe.yaml", "objective.perturbation.epsilon=-1"], "epsilon: got -1"),
        (["train", "recipe.yaml", "--output-dir", "model"], "expected a new or empty directory"),
        (["attack", "model", "--data", "data.csv", "--attack", "deepwordbgu", "--output-dir", "o"],
         "did you mean 'deepwordbug'"),
        (["attack", "model", "--data", "none.csv", "--attack", "deepwordbug", "--output-dir", "o"],
         "none.csv"),
        (["attack", "model", "--data", "data.csv", "--attack", "deepwordbug", "--output-dir", "o",
          "--label-column", "lable"], "lable"),
        (["attack", "nowhere/at/all/x", "--data", "data.csv", "--attack", "deepwordbug",
          "--output-dir", "o"], "nowhere"),
        (["attack", "model", "--data", "data.csv", "--attack", "deepwordbug", "--output-dir",
          "model"], "expected a new or empty directory"),
        (["attack", "model", "--data", "data.csv", "--attack", "deepwordbug", "--output-dir", "o",
          "synonym.source=wordnet"], "synonym"),
        (["show", "pdg"], "did you mean 'pgd'"),
        (["push", "model", "someone/model"], "no model/ directory"),
        (["quickstart", "--max-minutes", "-1"], "--max-minutes"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    before = {p: p.stat().st_mtime_ns for p in files.rglob("*") if p.is_file()}
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert {p: p.stat().st_mtime_ns for p in files.rglob("*") if p.is_file()} == before


def test_wrong_use_is_exit_code_2(capsys):
    for arguments in ([], ["trian"], ["attack", "model"], ["train", "r.yaml", "--outptu-dir", "x"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_unexpected_failure_is_one_line_without_debug(monkeypatch, capsys):
    from textadv.cli import tools

    def fail(arguments):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(tools, "env", fail)
    assert cli.main(["env"]) == 1
    assert capsys.readouterr().err == "error: ZeroDivisionError: 'a' (--debug shows more)\n"
    with pytest.raises(ZeroDivisionError):
        cli.main(["env", "--debug"])


def test_list_and_show_know_everything_built_in(capsys):
    tables = list_builtin()
    assert tables["perturbations"].keys() == PERTURBATIONS.keys()
    assert tables["objectives"].keys() == OBJECTIVES.keys()
    assert tables["attacks"].keys() == ATTACKS.keys()
    for rows in tables.values():
        assert all(summary for summary in rows.values())
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tables
    for kind, rows in tables.items():
        for name in rows:
            assert cli.main(["show", name]) == 0
            card = capsys.readouterr().out
            if kind in ("perturbations", "objectives"):
                assert "Cost" in card, name
                assert "Known failure" in card, name


def test_check_reads_recipes_and_data(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert cli.main(["check", "recipe.yaml"]) == 0
    assert "train 40" in capsys.readouterr().out
    assert cli.main(["check", "--no-data", "sst2-fgm", "quickstart/clean"]) == 0


def test_env_is_json(capsys):
    assert cli.main(["env"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["textadv"]
