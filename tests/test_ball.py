from __future__ import annotations

import pytest
import torch

from tests.linear import MeanPooledLinear
from textadv.ball import broken_at, climb, gradient, margins
from textadv.batching import Encoded
from textadv.embeddings import EmbeddingPort

LENGTH = 5


class Rows(Encoded):
    """Token ids without a tokenizer."""

    def __init__(self, ids, labels):
        self.rows, self.labels = ids, labels
        self.lengths = [LENGTH] * len(ids)
        self.ids = [str(row) for row in range(len(ids))]

    def batch(self, indices, device="cpu"):
        ids = self.rows[list(indices)]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "special_tokens_mask": torch.zeros_like(ids),
            "labels": self.labels[list(indices)],
        }


@pytest.fixture
def linear():
    port = EmbeddingPort(MeanPooledLinear())
    ids = torch.randint(3, 96, (24, LENGTH), generator=torch.Generator().manual_seed(1))
    rows = Rows(ids, torch.zeros(24, dtype=torch.long))
    clean = port.logits(rows.batch(range(24)), inner=True).detach()
    rows.labels = clean.argmax(1)
    rows.labels[0] = 1 - rows.labels[0]
    weights = port.model.head.weight.detach()
    # How far the margin falls for each unit of radius, in closed form.
    speed = float((weights[0] - weights[1]).norm()) / LENGTH**0.5
    return port, rows, margins(clean, rows.labels), speed


def test_margins_are_gold_minus_the_largest_other():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]])
    assert margins(logits, torch.tensor([1, 0])).tolist() == [2.0, -3.0]


@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
def test_the_lowest_margin_is_that_of_the_closed_form(linear, loss):
    port, rows, clean, speed = linear
    lowest = climb(port, rows.batch(range(24)), 0.7, loss=loss)
    assert torch.allclose(lowest, clean - 0.7 * speed, atol=1e-6)


def test_every_iterate_counts_the_clean_text_too(linear):
    port, rows, clean, speed = linear
    batch = rows.batch(range(24))
    assert torch.equal(climb(port, batch, 0.5, num_steps=0), clean)
    # One step of 2.5 radii is projected to the boundary: the best point of a linear model.
    assert torch.allclose(climb(port, batch, 0.5, num_steps=1), clean - 0.5 * speed, atol=1e-6)
    worst = climb(port, batch, 0.5, num_steps=2, restarts=3)
    assert (worst <= climb(port, batch, 0.5, num_steps=2) + 1e-9).all()


def test_the_smallest_radius_that_breaks_is_that_of_the_closed_form(linear):
    port, rows, clean, speed = linear
    radii = [0.1, 0.3, 0.9, 2.7]
    by_place = dict(broken_at(port, rows, radii[::-1], num_steps=3, batch_size=7))
    found = [by_place[place] for place in range(24)]
    for margin, place in zip(clean.tolist(), found, strict=True):
        wanted = next((r for r in [0.0, *radii] if margin <= r * speed), None)
        assert place == wanted
    assert found[0] == 0.0
    assert None in found or len(set(found)) > 3


def test_what_comes_out_does_not_depend_on_what_is_skipped(linear):
    port, rows, _, _ = linear
    options = {"num_steps": 2, "restarts": 3, "batch_size": 7, "seed": 5}
    whole = list(broken_at(port, rows, [0.1, 0.5], **options))
    assert sorted(place for place, _ in whole) == list(range(24))
    for done in (7, 10, 21):
        skip = {place for place, _ in whole[:done]}
        rest = list(broken_at(port, rows, [0.1, 0.5], skip=skip, **options))
        assert rest == whole[7 * (done // 7) :]


def test_a_graph_that_does_not_reach_the_point_has_a_zero_gradient():
    z = torch.ones(2, requires_grad=True)
    assert gradient(torch.ones(2), z).tolist() == [0.0, 0.0]
    assert gradient(torch.ones(2, requires_grad=True) * 2, z).tolist() == [0.0, 0.0]
    assert gradient(3 * z, z).tolist() == [3.0, 3.0]


def test_without_starts_there_is_nothing_to_return(linear):
    port, rows, _, _ = linear
    with pytest.raises(ValueError, match="restarts"):
        climb(port, rows.batch([0]), 0.1, restarts=0)
