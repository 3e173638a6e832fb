"""AWP, SAM and the joint ascent: by hand, and with every weight put back to the bit."""

from __future__ import annotations

import pytest
import torch

import textadv
from tests.objectives.common import (
    assert_same,
    collect,
    cross_entropy,
    forward,
    gradients,
    make,
    symmetric_kl,
)
from textadv import weights
from textadv.errors import ConfigError
from textadv.objectives import (
    AWP,
    R4F,
    SAM,
    SAMFGM,
    SMART,
    TRADES,
    Adversarial,
    Clean,
    Consistency,
    CreAT,
    Flooding,
)
from textadv.perturb import FGM, PGD

PGD3 = PGD(epsilon=0.3, num_steps=3)


def moved_gradients(port, loss_of, move):
    """Return the gradients of a loss after moving a copy of the weights, which are then reset."""
    model = port.model
    model.zero_grad()
    loss_of().backward()
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    steps = move({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(steps.get(name, 0.0))
    model.zero_grad()
    loss_of().backward()
    found = collect(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(start[name])
    return found


def global_move(rho):
    def move(grads):
        total = sum(g.square().sum() for g in grads.values()).sqrt()
        return {n: rho * g / total for n, g in grads.items()}

    return move


def layer_move(port, gamma):
    sizes = {n: p.detach().norm() for n, p in port.model.named_parameters() if p.ndim > 1}

    def move(grads):
        alive = {n: g for n, g in grads.items() if n in sizes and g.norm() > 0}
        return {n: gamma * sizes[n] * g / g.norm() for n, g in alive.items()}

    return move


def test_sam_by_hand():
    port, batch = make()
    found, _ = gradients(port, SAM(rho=0.1), batch)
    expected = moved_gradients(
        port, lambda: cross_entropy(forward(port, batch), batch), global_move(0.1)
    )
    assert_same(found, expected)


def test_awp_on_adversarial_training_by_hand():
    port, batch = make()
    base = Adversarial(perturbation=PGD3, adversarial_only=True)
    found, _ = gradients(port, AWP(objective=base, gamma=0.02), batch)
    delta = PGD3(port, batch)
    expected = moved_gradients(
        port,
        lambda: cross_entropy(forward(port, batch, delta), batch),
        layer_move(port, 0.02),
    )
    assert_same(found, expected)


def test_awp_on_trades_by_hand():
    port, batch = make()
    climb = PGD(epsilon=0.3, num_steps=1, init="normal")
    base = Consistency(perturbation=climb, lambda_adv=2.0)
    found, _ = gradients(port, AWP(objective=base), batch, seed=4)
    target = port.logits(batch).detach()
    delta = climb(
        port,
        batch,
        loss=lambda z: symmetric_kl(target, z),
        generator=torch.Generator().manual_seed(4),
    )

    def loss():
        clean, moved = forward(port, batch), forward(port, batch, delta)
        return cross_entropy(clean, batch) + 2.0 * symmetric_kl(clean, moved).mean()

    assert_same(found, moved_gradients(port, loss, layer_move(port, 0.01)))


def test_the_joint_ascent_takes_both_directions_from_one_backward():
    port, batch = make()
    found, log = gradients(port, SAMFGM(rho=0.1, perturbation=FGM(epsilon=0.3)), batch)
    delta = FGM(epsilon=0.3)(port, batch)

    model = port.model
    model.zero_grad()
    cross_entropy(forward(port, batch), batch).backward()
    steps = global_move(0.1)(collect(model))
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(steps[name])
    model.zero_grad()
    loss = cross_entropy(forward(port, batch, delta), batch)
    loss.backward()
    assert_same(found, collect(model))
    torch.testing.assert_close(log["adversarial_loss"], loss.detach())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(start[name])


@pytest.mark.parametrize("objective", [AWP(), AWP(objective=TRADES()), SAM(), SAMFGM()])
def test_weights_return_to_the_bit_also_when_the_loop_breaks(objective):
    port, batch = make(dtype=torch.float32, dropout=True)
    before = {k: v.clone() for k, v in port.model.state_dict().items()}
    gradients(port, objective, batch)
    assert all(torch.equal(v, before[k]) for k, v in port.model.state_dict().items())
    terms = objective.terms(port, batch, torch.Generator())
    next(terms)
    moved = port.model.state_dict()
    assert any(not torch.equal(v, before[k]) for k, v in moved.items())
    terms.close()
    assert all(torch.equal(v, before[k]) for k, v in port.model.state_dict().items())


def test_moves_have_the_size_they_should():
    port, batch = make()
    _, _ = gradients(port, Clean(), batch)
    parameters = weights.trainable(port.model)
    grads = [p.grad for p in parameters]
    total = torch.stack([m.norm() for m in weights.sam_moves(grads, 0.05) if m is not None]).norm()
    assert total.item() == pytest.approx(0.05)
    for parameter, grad, move in zip(
        parameters, grads, weights.awp_moves(parameters, grads, 0.01), strict=True
    ):
        if parameter.ndim < 2:
            assert move is None
        elif grad.norm() > 0:
            assert (move.norm() / parameter.norm()).item() == pytest.approx(0.01)
    dead = [torch.full_like(g, float("nan")) for g in grads]
    assert all((m == 0).all() or m.isnan().any() for m in weights.sam_moves(dead, 0.05))


def test_awp_begins_late():
    awp = AWP(begin=0.2)
    assert awp.at(0.1) == awp.objective
    assert awp.at(0.2) == awp


def test_flooding_turns_round_below_its_level():
    port, batch = make()
    plain, log = gradients(port, Clean(), batch)
    loss = log["loss"].item()
    above, flooded = gradients(port, Flooding(level=loss / 2), batch)
    assert_same(above, plain)
    assert flooded["loss"].item() == pytest.approx(loss)
    below, flooded = gradients(port, Flooding(level=2 * loss), batch)
    assert_same(below, {n: -g for n, g in plain.items()})
    assert flooded["loss"].item() == pytest.approx(3 * loss)


def test_impossible_wrappers_are_refused():
    with pytest.raises(ConfigError, match="awp: objective: got clean"):
        AWP(objective=Clean())
    for objective in (CreAT(), R4F(), SMART(bregman=1.0)):
        with pytest.raises(ConfigError, match="awp: objective"):
            AWP(objective=objective)
    with pytest.raises(ConfigError, match=r"flooding: objective: got adversarial.*trades"):
        Flooding(objective=Adversarial())
    with pytest.raises(ConfigError, match="flooding: objective: got freelb"):
        Flooding(objective=textadv.FreeLB())
    with pytest.raises(ConfigError, match="sam-fgm: perturbation"):
        SAMFGM(perturbation=PGD3)
    assert Flooding(objective=TRADES()).num_terms == 1
