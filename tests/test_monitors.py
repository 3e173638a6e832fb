"""Figures that show a dead attack, and the alarm for hidden ones."""

from __future__ import annotations

import logging

import pytest
import torch

import textadv
from tests.batches import full_batch
from textadv.monitors import Monitor, effective_fraction, overfitting_alarm, resolution_note
from textadv.objectives import R3F, TRADES, Adversarial, FreeLB
from textadv.perturb import FGM, PGD, UniformNoise
from textadv.testing import tiny_model


def run(objective, model=None, batch=None):
    model = tiny_model("bert") if model is None else model
    port = textadv.wrap(model)
    batch = full_batch(model) if batch is None else batch
    return textadv.backward(objective, port, batch, generator=torch.Generator().manual_seed(0))


def test_skipped_groups_are_counted_by_text_and_by_token():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    grad = torch.ones(3, 3, 4)
    grad[0, 1] = 0
    grad[1, 0, 2] = float("nan")
    by_text, by_token = Monitor("sequence"), Monitor("token")
    assert by_text.skipped_fraction is None
    for monitor in (by_text, by_token):
        monitor.record(grad, mask)
        monitor.record(torch.ones_like(grad), mask)
    assert by_text.skipped_fraction.item() == pytest.approx((1 / 2 + 0) / 2)
    assert by_token.skipped_fraction.item() == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize(
    "objective", [Adversarial(perturbation=FGM()), Adversarial(adversarial_only=True), TRADES()]
)
def test_a_model_without_gradient_is_seen(objective):
    model = tiny_model("bert")
    assert run(objective, model)["skipped_fraction"] == 0
    model.classifier.weight.data.zero_()
    assert run(objective, model)["skipped_fraction"] == 1


def test_delta_norm_is_relative_to_a_token():
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), full_batch(model)
    mean = port.embed(batch).norm(dim=-1)[port.editable(batch)].mean()
    climb = PGD(scope="token", epsilon=0.4, num_steps=2)
    for objective in (
        Adversarial(perturbation=climb),
        Adversarial(perturbation=UniformNoise(scope="token", epsilon=0.4)),
    ):
        found = run(objective, model, batch)["delta_norm"]
        torch.testing.assert_close(found, (0.4 / mean).detach())


def test_effective_fraction_by_hand_and_in_training():
    right = torch.tensor([True, True, True, False])
    before, after = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([2.0, 0.5, 3.0, 9.0])
    assert effective_fraction(right, before, after).item() == pytest.approx(2 / 3)
    assert effective_fraction(torch.zeros(4, dtype=torch.bool), before, after) == 0
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), full_batch(model)
    with torch.no_grad():
        batch["labels"] = port.logits(batch).argmax(-1)
    attack = run(Adversarial(perturbation=PGD(epsilon=0.5)), model, batch)
    assert attack["effective_fraction"] == 1
    nothing = run(Adversarial(perturbation=FGM(epsilon=0.0)), model, batch)
    assert nothing["effective_fraction"] == 0


@pytest.mark.parametrize("objective", [FreeLB(), R3F(), TRADES(), Adversarial()])
def test_figures_stay_on_the_device_and_carry_no_graph(objective):
    log = run(objective)
    assert "delta_norm" in log
    assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in log.values())


def test_no_number_is_read_back_inside_a_step(monkeypatch):
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), full_batch(model)
    generator = torch.Generator()
    objectives = [Adversarial(perturbation=FGM()), FreeLB(), TRADES(), R3F()]
    for objective in objectives:  # the first batch may look at the resolution, once
        textadv.backward(objective, port, batch, generator=generator)

    def refuse(self):
        raise AssertionError("item() inside a step")

    monkeypatch.setattr(torch.Tensor, "item", refuse)
    for objective in objectives:
        textadv.backward(objective, port, batch, generator=generator)


def test_rounding_is_noticed_once(caplog):
    model = tiny_model("bert").bfloat16()
    port, batch = textadv.wrap(model), full_batch(model)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            textadv.backward(R3F(), port, batch)
    notes = [r.message for r in caplog.records if "rounds away" in r.message]
    assert len(notes) == 1
    assert "torch.bfloat16 rounds away" in notes[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        textadv.backward(R3F(), textadv.wrap(tiny_model("bert")), batch)
        textadv.backward(Adversarial(perturbation=FGM()), textadv.wrap(model), batch)
    assert not caplog.records


@pytest.mark.parametrize("autocast", [True, False])
def test_autocast_counts_as_the_type_of_the_model(autocast, caplog):
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), full_batch(model)
    with caplog.at_level(logging.WARNING), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        textadv.backward(R3F(), port, batch)
    assert bool([r for r in caplog.records if "rounds away" in r.message]) == autocast


def test_the_note_says_what_really_vanishes():
    """Below the named threshold most entries do not change in bfloat16; above, most do."""
    embeds = torch.randn(2, 8, 64) * 0.06
    mask = torch.ones(2, 8, dtype=torch.bool)
    for size, lost in ((1e-5, True), (1e-2, False)):
        delta = size * torch.randn(2, 8, 64)
        note = resolution_note(delta, mask, embeds, torch.bfloat16)
        changed = (embeds.bfloat16() + delta.bfloat16()) != embeds.bfloat16()
        assert (note is not None) == lost
        assert (changed.float().mean() < 0.3) == lost
    assert resolution_note(torch.zeros(2, 8, 64), mask, embeds, torch.bfloat16) is None


def test_the_alarm_needs_a_fall_and_a_rise():
    def figures(pgd, fgm):
        return {"clean_accuracy": 0.9, "accuracy_under_pgd-0.3": pgd, "accuracy_under_fgsm": fgm}

    assert overfitting_alarm(figures(0.6, 0.6), figures(0.4, 0.65)) is not None
    assert overfitting_alarm(figures(0.6, 0.6), figures(0.46, 0.65)) is None
    assert overfitting_alarm(figures(0.6, 0.6), figures(0.2, 0.6)) is None
    assert overfitting_alarm(figures(0.6, 0.6), figures(0.2, 0.3)) is None
    assert overfitting_alarm({}, figures(0.2, 0.9)) is None
    assert overfitting_alarm({"accuracy_under_pgd": 0.9}, {"accuracy_under_pgd": 0.1}) is None
