"""Losses against hand-computed probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from textadv.errors import ConfigError
from textadv.losses import consistency, correct, task_loss


def softmax(row):
    peak = max(row)
    exps = [math.exp(x - peak) for x in row]
    return [e / sum(exps) for e in exps]


def test_cross_entropy_by_hand():
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    found = task_loss(logits, torch.tensor([1, 0]), "single_label_classification")
    expected = [-math.log(softmax([1.0, 2.0, -1.0])[1]), -math.log(softmax([0.0, 0.0, 3.0])[0])]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_multi_label_and_regression_by_hand():
    logits = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    found = task_loss(logits, torch.tensor([[1.0, 0.0]]), "multi_label_classification")
    sigmoid = [1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(1.0))]
    expected = -(math.log(sigmoid[0]) + math.log(1 - sigmoid[1])) / 2
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found = task_loss(torch.tensor([[2.5], [1.0]]), torch.tensor([2.0, -1.0]), "regression")
    assert found.tolist() == [0.25, 4.0]


def test_kl_by_hand_for_single_label():
    anchor, moved = [0.3, -1.0, 2.0], [1.0, 0.5, -0.5]
    p, q = softmax(anchor), softmax(moved)
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = consistency(
        torch.tensor([moved], dtype=torch.float64),
        torch.tensor([anchor], dtype=torch.float64),
        "single_label_classification",
    )
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_kl_by_hand_for_multi_label_and_regression():
    p, q = 1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(1.2))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    moved, anchor = torch.tensor([[-1.2], [0.7]], dtype=torch.float64).split(1)
    found = consistency(moved, anchor, "multi_label_classification")
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert consistency(moved, anchor, "regression").item() == pytest.approx(1.9**2)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_kl_has_no_gradient_where_it_starts(problem):
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = consistency(logits, logits.detach(), problem).sum()
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0.0, abs=1e-15)
    assert grad.abs().max() < 1e-15


def test_half_precision_logits_are_widened():
    logits = torch.tensor([[30.0, -30.0]], dtype=torch.float16)
    assert task_loss(logits, torch.tensor([1]), "single_label_classification").item() == 60.0


def test_correct_needs_every_label_and_refuses_regression():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert correct(logits, labels, "multi_label_classification").tolist() == [True, False]
    with pytest.raises(ConfigError, match="regression"):
        correct(logits, labels, "regression")
