"""Sweeps, worst cases, minimal norms and nearest tokens against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

import textadv
from tests.linear import MeanPooledLinear
from tests.models import make_tokenizer, sentiment_rows
from textadv.batching import Encoded
from textadv.errors import ConfigError
from textadv.metrics import wilson_interval
from textadv.perturb import APGD, PGD, CarliniWagner, UniformNoise, nearest_tokens
from textadv.robustness import minimal_norms, standard_attacks, sweep
from textadv.testing import tiny_batch, tiny_model


def examples(model, count=24):
    """Texts labelled by the model itself, so that all are right without a perturbation."""
    rows = sentiment_rows(count, seed=3)
    encoded = Encoded([[r["text"]] for r in rows], [r["label"] for r in rows], make_tokenizer())
    port = textadv.wrap(model)
    batch = encoded.batch(range(count))
    with torch.no_grad():
        encoded.labels = port.logits(batch).argmax(-1)
    return port, encoded


def linear_margins(port, encoded):
    """Return the exact minimal l2 norm of every text of a mean-pooled linear model."""
    batch = encoded.batch(range(len(encoded)))
    model = port.model
    weights = (model.head.weight[0] - model.head.weight[1]).detach()
    editable = port.editable(batch).sum(1).double()
    total = batch["attention_mask"].sum(1).double()
    with torch.no_grad():
        logits = port.logits(batch)
    gap = (logits[:, 0] - logits[:, 1]).abs()
    # n of m pooled tokens may move: moving each by v shifts the gap by n / m * <w, v>.
    return gap * total / (weights.norm() * editable.sqrt())


def test_sweep_of_a_linear_model_is_exact():
    port, encoded = examples(MeanPooledLinear())
    exact = linear_margins(port, encoded)
    epsilons = [0.0, *exact.quantile(torch.tensor([0.2, 0.5, 0.8]).double()).tolist(), 1e3]
    for attack in (PGD(num_steps=2, step_size=1.0, epsilon=0.5), APGD(num_steps=10, loss="margin")):
        results = sweep(port, encoded, attack, epsilons, batch_size=7)
        for result in results:
            survivors = int((exact > result.epsilon * (1 + 1e-6)).sum())
            assert result.accuracy == pytest.approx(survivors / len(encoded))
            assert result.interval == wilson_interval(survivors, len(encoded))
            assert result.num_examples == len(encoded)
        assert results[0].accuracy == 1
        assert results[-1].accuracy == 0


def test_minimal_norms_of_a_linear_model_are_within_one_percent():
    port, encoded = examples(MeanPooledLinear())
    exact = linear_margins(port, encoded)
    attack = CarliniWagner(num_steps=500, search_steps=11, learning_rate=0.005, epsilon=100.0)
    found = minimal_norms(port, encoded, attack)
    assert (found.norms >= exact * (1 - 1e-6)).all()
    torch.testing.assert_close(found.norms.double(), exact, rtol=1e-2, atol=1e-3)
    assert found.median == pytest.approx(float(exact.quantile(0.5)), rel=0.02)
    assert found.share_found == 1


def test_wrong_texts_are_at_distance_zero_and_unreachable_ones_at_infinity():
    port, encoded = examples(MeanPooledLinear())
    encoded.labels[:5] = 1 - encoded.labels[:5]
    found = minimal_norms(port, encoded, CarliniWagner(num_steps=20, epsilon=1e-6))
    assert (found.norms[:5] == 0).all()
    assert torch.isinf(found.norms[5:]).all()
    assert found.share_found == pytest.approx(5 / 24)
    assert math.isinf(found.median)


def test_attacks_are_ranked_as_they_should_be():
    port, encoded = examples(tiny_model("bert", num_labels=2))
    epsilons = [0.05, 0.1, 0.2, 0.4]
    noise = sweep(port, encoded, UniformNoise(), epsilons)
    fgm = sweep(port, encoded, textadv.FGM(), epsilons)
    pgd = sweep(port, encoded, PGD(num_steps=10), epsilons)
    worst = sweep(port, encoded, [PGD(num_steps=10), *standard_attacks(2, num_steps=10)], epsilons)
    for a, b, c, d in zip(noise, fgm, pgd, worst, strict=True):
        assert d.accuracy <= c.accuracy <= b.accuracy <= a.accuracy
    accuracies = [result.accuracy for result in worst]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] < noise[-1].accuracy


def test_restarts_never_help_the_model():
    port, encoded = examples(tiny_model("bert", num_labels=2))
    one = PGD(num_steps=3, init="uniform", epsilon=0.1)
    more = PGD(num_steps=3, init="uniform", epsilon=0.1, restarts=5)
    batch = encoded.batch(range(24))

    def gap(attack):
        delta = attack(port, batch, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return textadv.losses.margin(port.logits(batch, delta), batch["labels"])

    assert (gap(more) >= gap(one)).all()
    assert (gap(more) > gap(one)).any()


def test_dlr_needs_three_classes_and_the_standard_attacks_know_it():
    model = tiny_model("bert", num_labels=2)
    port, batch = textadv.wrap(model), tiny_batch(model)
    with pytest.raises(ConfigError, match=r"'dlr' with 2 classes.*use loss: margin"):
        APGD(loss="dlr")(port, batch)
    assert [a.loss for a in standard_attacks(2)] == ["task", "margin"]
    assert [a.loss for a in standard_attacks(3)] == ["task", "margin", "dlr"]
    port, encoded = examples(tiny_model("bert", num_labels=3))
    assert sweep(port, encoded, standard_attacks(3, num_steps=4), [0.1])[0].accuracy < 1


def test_attacks_without_a_radius_and_regression_are_refused():
    port, encoded = examples(tiny_model("bert", num_labels=2))
    with pytest.raises(ConfigError, match="radius"):
        sweep(port, encoded, PGD(epsilon=None, step_size=0.1), [0.1])
    port.model.config.problem_type = "regression"
    with pytest.raises(ConfigError, match="regression"):
        sweep(port, encoded, PGD(), [0.1])


@pytest.mark.parametrize("architecture", ["bert", "xlnet", "gemma"])
def test_nearest_tokens_undo_small_perturbations_and_find_planted_ones(architecture):
    model = tiny_model(architecture)
    port, batch = textadv.wrap(model), tiny_batch(model)
    delta = 1e-3 * torch.randn(port.blank(batch).shape)
    assert torch.equal(nearest_tokens(port, batch, delta, chunk=10), batch["input_ids"])
    other = batch["input_ids"].clone()
    editable = port.editable(batch)
    other[editable] = (other[editable] + 7) % 90 + 4
    moved = port.embed({**batch, "input_ids": other}) - port.embed(batch)
    assert torch.equal(nearest_tokens(port, batch, moved, chunk=25)[editable], other[editable])


def test_snapping_reports_what_survives_as_text():
    port, encoded = examples(tiny_model("bert", num_labels=2))
    small, large = sweep(port, encoded, PGD(num_steps=5), [0.01, 50.0], snap=True)
    assert small.snapped_accuracy == 1
    assert large.accuracy <= large.snapped_accuracy
    assert sweep(port, encoded, PGD(num_steps=1), [0.1])[0].snapped_accuracy is None
