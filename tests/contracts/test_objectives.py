"""Every objective on every architecture: same parameters trained, finite, nothing left behind."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

import textadv
from tests.batches import full_batch
from textadv.objectives import OBJECTIVES, Clean
from textadv.testing import ARCHITECTURES, tiny_model


@functools.cache
def parts(architecture):
    model = tiny_model(architecture).train()
    batch = full_batch(model)
    textadv.backward(Clean(), textadv.wrap(model), batch)
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    return model, batch, trained


def traces(model):
    return {
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "patched": ["forward" in m.__dict__ for m in model.modules()],
        "keys": list(model.state_dict()),
    }


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_objective(name, architecture):
    model, batch, trained = parts(architecture)
    objective = OBJECTIVES[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    seen = traces(model)
    model.zero_grad()
    port = textadv.wrap(model)
    log = textadv.backward(objective, port, batch, generator=torch.Generator().manual_seed(0))
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert grads.keys() == trained
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    assert any((grad != 0).any() for grad in grads.values())
    assert all(torch.isfinite(value) and value.ndim == 0 for value in log.values())
    assert not any(value.requires_grad for value in log.values())
    assert traces(model) == seen
    if name == "r4f":
        model.load_state_dict(before)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert bool(port.memory) == objective.keeps_memory
    assert type(objective)(**{f.name: getattr(objective, f.name) for f in fields(objective)}) == (
        objective
    )


def fields(value):
    return dataclasses.fields(value)
