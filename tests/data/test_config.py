from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from textadv.data.config import DataConfig
from textadv.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "multilabel"),
        ("text", []),
        ("text", ["a", "a"]),
        ("text", ["a", "b", "c"]),
        ("text", "sentence"),
        ("labels", []),
        ("labels", ["Pos", "pos"]),
        ("labels", ["a", " "]),
        ("max_length", 1),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("validation_fraction", float("nan")),
        ("max_examples", 0),
        ("config", "sst2"),
        ("revision", "main"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(field, value):
    with pytest.raises(ConfigError, match=rf"^data\.{field}: got .*expected"):
        DataConfig(**{"train": "a.csv", field: value})


def test_contradicting_options_are_refused():
    with pytest.raises(ConfigError, match=r"data\.validation_fraction"):
        DataConfig(train="a.csv", validation="b.csv", validation_fraction=0.1)
    with pytest.raises(ConfigError, match=r"data\.label"):
        DataConfig(train="a.csv", text=["a"], label="a")


def test_it_is_a_frozen_recipe_block():
    config = DataConfig(name="glue", config="sst2", text=["sentence"], label="label")
    assert DataConfig(**dataclasses.asdict(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"


def test_reading_the_config_class_imports_nothing_heavy():
    program = (
        "import sys; from textadv.data import DataConfig; "
        "print([m for m in ('torch', 'pyarrow', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
