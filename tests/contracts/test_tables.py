"""Every table entry is a recipe block: written, read back equal, checked, with its card."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import yaml

from textadv.config import as_dict, build
from textadv.errors import ConfigError
from textadv.objectives import OBJECTIVES, Clean, Objective
from textadv.perturb import PERTURBATIONS, Perturbation

ENTRIES = [(Objective, name) for name in OBJECTIVES] + [
    (Perturbation, name) for name in PERTURBATIONS
]
TABLES = {Objective: OBJECTIVES, Perturbation: PERTURBATIONS}


@pytest.mark.parametrize(("base", "name"), ENTRIES)
def test_entry_survives_yaml(base, name):
    value = TABLES[base][name]()
    text = yaml.safe_dump(as_dict(value))
    assert build(base, yaml.safe_load(text), "recipe") == value
    assert build(base, name, "recipe") == value
    assert as_dict(value)["name"] == name


@pytest.mark.parametrize(("base", "name"), ENTRIES)
def test_entry_has_a_card_of_its_own(base, name):
    kind = TABLES[base][name]
    assert "__doc__" in vars(kind)
    card = inspect.getdoc(kind)
    first, blank = card.splitlines()[:2]
    assert first.endswith(".") or first.endswith(":")
    assert blank == ""
    for heading in ("Cost", "Known failure"):
        assert heading in card, heading
    if name not in ("clean", "uniform-noise", "gaussian-noise", "consistency", "adversarial"):
        assert "Source" in card


@pytest.mark.parametrize(("base", "name"), ENTRIES)
def test_typos_are_refused_with_the_nearest_name(base, name):
    kind = TABLES[base][name]
    with pytest.raises(ConfigError, match="did you mean"):
        build(base, {"name": name + "x"}, "recipe")
    for field in dataclasses.fields(kind):
        with pytest.raises(ConfigError, match="unknown key"):
            build(base, {"name": name, field.name + "s_": 1}, "recipe")


def test_names_are_unique_over_both_tables():
    assert not OBJECTIVES.keys() & PERTURBATIONS.keys()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_schedules_leave_an_objective_or_clean(name):
    objective = OBJECTIVES[name]()
    for progress in (0.0, 0.05, 0.5, 1.0):
        assert isinstance(objective.at(progress), Objective)
    assert objective.at(1.0) == objective
    names = {field.name for field in dataclasses.fields(objective)}
    if {"epsilon_schedule"} <= names:
        ramped = build(Objective, {"name": name, "epsilon_schedule": {"end": 0.5}}, "recipe")
        assert isinstance(ramped.at(0.0), Clean)
        assert isinstance(ramped.at(0.25), OBJECTIVES[name])


@pytest.mark.parametrize("head", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_heads_are_trained_or_refused_in_one_line(name, head):
    import torch

    import textadv
    from tests.batches import full_batch
    from textadv.testing import tiny_model

    problem = {
        "single_label": "single_label_classification",
        "multi_label": "multi_label_classification",
        "regression": "regression",
    }[head]
    model = tiny_model("bert", num_labels=1 if head == "regression" else 3, problem_type=problem)
    batch = full_batch(model)
    if head == "multi_label":
        batch["labels"] = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]])
    elif head == "regression":
        batch["labels"] = torch.tensor([0.5, -1.0, 2.0])
    objective = OBJECTIVES[name]()
    if name == "mart" and head != "single_label":
        with pytest.raises(ConfigError, match="mart: got"):
            objective.check(problem, model.config.num_labels)
        return
    objective.check(problem, model.config.num_labels)
    log = textadv.backward(objective, textadv.wrap(model), batch)
    assert torch.isfinite(log["loss"])
