"""Batches: nothing lost, nothing twice, little padding, the same for any split of a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import make_tokenizer
from textadv.batching import Encoded, MicroBatches, plan_epoch, plan_evaluation

TEXTS = [["one"], ["one two three four"], ["two three"], ["four three two one two three"]]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=400),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 3),
    bucketing=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_example_is_seen_once_an_epoch(lengths, batch_size, seed, bucketing):
    plan = plan_epoch(
        lengths, batch_size=batch_size, seed=seed, epoch=0, length_bucketing=bucketing
    )
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    assert sum(len(batch) < batch_size for batch in plan) <= 1 + len(lengths) // (50 * batch_size)


def test_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(1, 200))
    options = {"batch_size": 8, "seed": 1, "epoch": 2}
    assert plan_epoch(lengths, **options) == plan_epoch(lengths, **options)
    assert plan_epoch(lengths, **options) != plan_epoch(lengths, **{**options, "epoch": 3})
    assert plan_epoch(lengths, **options) != plan_epoch(lengths, **{**options, "seed": 2})


def test_bucketing_removes_most_padding_and_keeps_the_order_random():
    random = np.random.default_rng(0)
    lengths = random.integers(3, 60, size=3000)

    def padded(plan):
        return sum(len(b) * lengths[b].max() for b in plan) / lengths.sum()

    options = {"batch_size": 32, "seed": 0, "epoch": 0}
    assert padded(plan_epoch(lengths, **options)) < 1.08
    assert padded(plan_epoch(lengths, length_bucketing=False, **options)) > 1.6
    widths = [lengths[b].max() for b in plan_epoch(lengths, **options)]
    assert abs(np.corrcoef(widths, range(len(widths)))[0, 1]) < 0.3


@pytest.mark.parametrize(("accumulation", "world_size"), [(1, 1), (1, 2), (2, 1), (3, 2), (1, 4)])
@pytest.mark.parametrize("count", [1, 5, 31, 32, 33, 97])
def test_weights_of_a_step_sum_to_the_mean_over_its_examples(accumulation, world_size, count):
    lengths = np.arange(1, count + 1)
    shares = [
        MicroBatches(
            lengths,
            batch_size=4,
            accumulation=accumulation,
            seed=0,
            length_bucketing=True,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    seen = []
    for step in range(shares[0].steps_per_epoch):
        parts = [share[step] for share in shares]
        assert len({len(part) for part in parts}) == 1
        weights = {}
        for part in parts:
            for _, indices, weight in part:
                for index in indices:
                    weights[index] = weights.get(index, 0) + weight / len(indices) / world_size
                seen.extend(indices if weight else [])
        assert sum(weights.values()) == pytest.approx(1)
        positive = [w for w in weights.values() if w]
        assert max(positive) == pytest.approx(min(positive))
    assert sorted(seen) == list(range(count))


def test_a_step_sees_the_same_examples_however_it_is_split():
    lengths = np.arange(1, 90)
    options = {"batch_size": 4, "seed": 3, "length_bucketing": True}
    one = MicroBatches(lengths, accumulation=4, **options)
    four = [
        MicroBatches(lengths, accumulation=1, rank=r, world_size=4, **options) for r in range(4)
    ]
    for step in range(one.steps_per_epoch * 2):
        split = [part for share in four for part in share[step]]
        alone = {number: indices for number, indices, _ in one[step]}
        assert {n: i for n, i, w in split if w} == alone


def test_evaluation_is_shared_without_loss():
    lengths = [5, 1, 3, 9, 2, 2, 8]
    shares = [plan_evaluation(lengths, batch_size=2, rank=r, world_size=3) for r in range(3)]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(7))


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_equal_what_the_tokenizer_pads(side):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    encoded = Encoded(TEXTS, [0, 1, 0, 1], tokenizer)
    batch = encoded.batch([3, 0, 2])
    expected = tokenizer(
        [TEXTS[i][0] for i in (3, 0, 2)],
        padding=True,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    for name in ("input_ids", "attention_mask", "special_tokens_mask"):
        assert torch.equal(batch[name], expected[name]), name
    assert batch["labels"].tolist() == [1, 0, 0]


def test_pairs_multiples_cuts_and_label_types():
    tokenizer = make_tokenizer()
    pairs = [["one two", "three"], ["four", "one two three"]]
    encoded = Encoded(pairs, [0.5, 1.0], tokenizer, pad_to_multiple_of=8)
    batch = encoded.batch([0, 1])
    assert batch["input_ids"].shape == (2, 8)
    assert batch["labels"].dtype == torch.float32
    assert Encoded(TEXTS, [0] * 4, tokenizer, max_length=4).num_cut == 2
    multi = Encoded(TEXTS[:2], [[0.0, 1.0], [1.0, 1.0]], tokenizer)
    assert multi.batch([1])["labels"].tolist() == [[1.0, 1.0]]
    assert Encoded(TEXTS, [0] * 4, tokenizer).batch([1])["labels"].dtype == torch.int64
