"""Every perturbation on every architecture: on its tokens, in its ball, by its own generator."""

from __future__ import annotations

import functools

import pytest
import torch

import textadv
from tests.batches import full_batch
from textadv import norms
from textadv.perturb import APGD, PERTURBATIONS, CarliniWagner
from textadv.testing import ARCHITECTURES, tiny_model

QUICK = {
    "carlini-wagner": CarliniWagner(num_steps=4, search_steps=2),
    "apgd": APGD(num_steps=5, restarts=2),
    "mim": PERTURBATIONS["mim"](num_steps=3),
}
SITES = ["word", "embeddings_sum", "embeddings_normalized", "embeddings_out", "layer:1"]


@functools.cache
def parts(architecture):
    model = tiny_model(architecture).train()
    return model, full_batch(model)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_perturbation(name, architecture):
    model, batch = parts(architecture)
    port = textadv.wrap(model)
    perturbation = QUICK.get(name) or PERTURBATIONS[name]()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    delta, again = (
        perturbation(port, batch, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(delta, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert delta.shape == (*batch["input_ids"].shape, port.dim)
    assert delta.dtype == torch.float32
    assert not delta.requires_grad
    assert torch.isfinite(delta).all()
    assert (delta[~port.editable(batch)] == 0).all()
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    if name not in ("synonym-hull", "mtdnn"):
        norm = getattr(perturbation, "norm", "l2")
        sizes = norms.norm(delta, norm, perturbation.scope)
        assert (sizes <= perturbation.epsilon * (1 + 1e-6)).all()
        halved = perturbation.scaled(0.5)
        assert halved.epsilon == perturbation.epsilon / 2


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_site(site, architecture):
    """Zero changes no bit, something changes its own row only, and the attack finds harm."""
    model, batch = parts(architecture)
    model.eval()
    try:
        port = textadv.wrap(model).at(site)
        with torch.no_grad():
            plain = port.logits(batch)
            assert torch.equal(port.logits(batch, port.blank(batch)), plain)
            assert port.embed(batch).shape == port.blank(batch).shape
            moved = port.blank(batch)
            moved[1, 2] = 0.5
            changed = (port.logits(batch, moved) != plain).any(1)
            assert changed.tolist() == [False, True, False]
            delta = textadv.PGD(epsilon=0.5, num_steps=4)(port, batch)
            harm = port.loss(port.logits(batch, delta), batch) - port.loss(plain, batch)
        assert (harm > 0).all()
    finally:
        model.train()
