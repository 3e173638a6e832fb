"""Recipes: read strictly, written back exactly, refused with the place and the fix."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from textadv.config import (
    Recipe,
    as_dict,
    build,
    dump_recipe,
    find_recipe,
    read_recipe,
    shipped_recipes,
)
from textadv.errors import ConfigError
from textadv.objectives import OBJECTIVES, Adversarial
from textadv.perturb import FGM, PERTURBATIONS

MINIMAL = "model: {name: m}\ndata: {train: t.csv}\n"


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_read_write_and_name_every_number(name):
    path = shipped_recipes()[name]
    recipe = read_recipe(path)
    again = yaml.safe_load(dump_recipe(recipe))
    assert build(Recipe, again, "again") == recipe
    assert path.read_text().startswith("# ")
    raw = yaml.safe_load(path.read_text())
    written = raw["training"].keys()
    assert written >= as_dict(recipe.training).keys() - {"max_steps"}
    assert raw["evaluation"].keys() >= {"attacks", "num_examples", "query_budget", "seed"}
    assert (path.parent / "README.md").is_file()


def test_there_is_a_recipe_for_every_promise():
    promised = {f"sst2-{n}" for n in ("clean", "noise", "fgm", "pgd", "freelb", "trades")}
    assert {*promised, "quickstart/clean", "quickstart/robust"} <= shipped_recipes().keys()
    assert find_recipe("sst2-fgm").is_file()
    with pytest.raises(ConfigError, match="did you mean 'sst2-fgm'"):
        find_recipe("sst2-fmg")


def test_blocks_are_built_and_numbers_in_text_are_numbers(tmp_path):
    text = MINIMAL + (
        "objective: {name: adversarial, lambda_adv: 5e-1, "
        "perturbation: {name: fgm, epsilon: 1e-1}}\n"
        "training: {learning_rate: 1e-5, epochs: 2}\n"
    )
    recipe = read_recipe(write(tmp_path, text))
    assert recipe.objective == Adversarial(lambda_adv=0.5, perturbation=FGM(epsilon=0.1))
    assert recipe.training.learning_rate == 1e-5
    assert recipe.training.epochs == 2.0


def test_overrides_reach_every_depth(tmp_path):
    path = write(tmp_path, MINIMAL + "objective: {name: adversarial, perturbation: {name: fgm}}\n")
    recipe = read_recipe(
        path,
        ["objective.perturbation.epsilon=0.7", "training.epochs=1", "data.text=[a, b]",
         "evaluation.attacks=[]", "hub.license=mit"],
    )  # fmt: skip
    assert recipe.objective.perturbation == FGM(epsilon=0.7)
    assert recipe.training.epochs == 1
    assert recipe.data.text == ["a", "b"]
    assert recipe.evaluation.attacks == ()
    assert recipe.hub.license == "mit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epocs: 3}", r"recipe\.yaml: training\.epocs: got an unknown key.*'epochs'"),
        ("trainig: {}", r"recipe\.yaml: trainig: got an unknown key.*did you mean 'training'"),
        ("training: {epochs: many}", r"training\.epochs: got 'many' \(str\), expected a finite"),
        ("training: {epochs: -1}", r"training\.epochs: got -1\.0, expected a number > 0"),
        ("training: {learning_rate: .nan}", r"learning_rate: got nan"),
        ("training: {batch_size: 8.5}", r"batch_size: got 8\.5 \(float\), expected a whole number"),
        ("training: {batch_size: true}", r"batch_size: got True \(bool\)"),
        ("training: {compile: 'yes'}", r"compile: got 'yes' \(str\), expected true or false"),
        ("training: {precision: fp64}", r"precision: unknown value: got 'fp64'.*'fp16'"),
        ("training: 3", r"training: got 3 \(int\), expected a mapping"),
        ("objective: {name: pdg}", r"objective\.name: unknown objective: got 'pdg'"),
        ("objective: {name: clean, lambda_adv: 1}", r"objective\.lambda_adv.*no settings here"),
        (
            "objective: {name: adversarial, perturbation: {name: pgd, epsilon: -0.1}}",
            r"objective\.perturbation\.epsilon: got -0\.1, expected a finite radius >= 0",
        ),
        (
            "objective: {name: adversarial, perturbation: {name: pgd, num_steps: 0}}",
            r"objective\.perturbation\.num_steps: got 0, expected an integer >= 1",
        ),
        (
            "objective: {name: adversarial, perturbation: {name: pgd, norm: l22}}",
            r"perturbation\.norm: unknown value: got 'l22'.*did you mean 'l2'",
        ),
        (
            "objective: {name: trades, perturbation: {name: fgm}}",
            r"perturbation: got a start at zero, expected a random start",
        ),
        ("evaluation: {attacks: [deepwordbgu]}", r"did you mean 'deepwordbug'"),
        ("evaluation: {num_examples: 0}", r"evaluation\.num_examples: got 0, expected >= 1"),
        ("data: {train: t.csv, max_length: 1}", r"data\.max_length: got 1"),
        ("hub: {repo: 'a b'}", r"hub\.repo"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(text, message, tmp_path):
    block = text.split(":")[0]
    base = "".join(line + "\n" for line in MINIMAL.splitlines() if not line.startswith(block))
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(write(tmp_path, base + text + "\n"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping of blocks"),
        ("model: {name: m}", r"recipe\.yaml: data: got nothing, expected a value"),
        (MINIMAL + "model: {name: n}\n", r"line 3: got 'model' twice"),
        ("a: &x [1]\nb: *x\n", "a YAML alias"),
        ("a: !!python/object/apply:os.system ['echo']\n", "expected plain YAML"),
        ("a: [1, 2\n", r"recipe\.yaml: line"),
        ("- 1\n", "expected a mapping of blocks"),
    ],
)
def test_files_that_are_no_recipes(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, text))


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: \xe9\n")
    with pytest.raises(ConfigError, match=r"byte 7: got not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match=r"expected key\.path=value"):
        read_recipe(write(tmp_path, MINIMAL), ["training.epochs"])
    with pytest.raises(ConfigError, match=r"training\.epoch: got an unknown key"):
        read_recipe(write(tmp_path, MINIMAL), ["training.epoch=3"])


@pytest.mark.parametrize("table", [OBJECTIVES, PERTURBATIONS])
def test_every_entry_of_a_table_round_trips(table):
    for kind in table.values():
        value = kind()
        assert build(kind, _fields(value), "x") == value


def _fields(value):
    plain = as_dict(value)
    plain.pop("name")
    return plain


@given(text=st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_recipe_or_one_line(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "recipe.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)
