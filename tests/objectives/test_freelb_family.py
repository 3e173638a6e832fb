"""VILLA, TA-VAT, Free and FAT against slow references."""

from __future__ import annotations

import copy

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
    noise,
    symmetric_kl,
    word_mask,
)
from textadv.errors import ConfigError, DataError
from textadv.objectives import FAT, TAVAT, VILLA, Adversarial, FreeAT, FreeLB, FreeLBPlusPlus
from textadv.objectives.history import SignHistory, packed_signs
from textadv.perturb import APGD, PGD, PowerIteration, SynonymHull, TokenAware
from textadv.seeding import torch_generator


def start_of(port, batch, sigma, seed):
    """FreeLB's start: uniform noise over the square root of the number of entries."""
    mask = word_mask(batch)
    draws = noise(port, batch, "uniform", seed) * mask
    return torch.stack(
        [row * sigma / (m.sum() * port.dim).sqrt() for row, m in zip(draws, mask, strict=True)]
    )


def rows_unit(g):
    return torch.stack([row / row.norm() for row in g])


def test_villa_is_freelb_that_keeps_the_clean_predictions():
    port, batch = make()
    found, _ = gradients(port, VILLA(), batch, seed=1)
    clean = forward(port, batch).detach()
    delta, mask = start_of(port, batch, 1e-3, 1), word_mask(batch)
    port.model.zero_grad()
    for _ in range(3):
        leaf = delta.clone().requires_grad_()
        logits = forward(port, batch, leaf)
        loss = cross_entropy(logits, batch) + 1.5 * symmetric_kl(clean, logits).mean()
        (loss / 3).backward()
        delta = delta + 1e-3 * rows_unit(leaf.grad * mask)
    assert_same(found, collect(port.model))


def test_freelb_plus_plus_is_freelb_without_a_ball():
    climb = PGD(epsilon=None, step_size=0.03, num_steps=10, init="uniform", init_scale=0.05)
    port, batch = make()
    left, _ = gradients(port, FreeLBPlusPlus(), batch)
    right, _ = gradients(port, FreeLB(perturbation=climb), batch)
    assert_same(left, right, 0.0)


def reference_tavat(port, batch, table, count, delta, steps, alpha, epsilon):
    """One batch of TA-VAT, text by text and token by token."""
    mask, ids = word_mask(batch), batch["input_ids"]
    eta = torch.zeros_like(delta)
    for i in range(len(ids)):
        for j in range(ids.shape[1]):
            if mask[i, j]:
                eta[i, j] = table[ids[i, j]]
        eta[i] /= eta[i].norm()

    def inside(delta, eta):
        for i in range(len(ids)):
            size = (delta[i] + eta[i]).norm()
            if size > epsilon:
                delta[i] *= epsilon / size
                eta[i] *= epsilon / size

    inside(delta, eta)
    port.model.zero_grad()
    for _ in range(steps):
        leaf = (delta + eta).requires_grad_()
        (cross_entropy(forward(port, batch, leaf), batch) / steps).backward()
        g = leaf.grad * mask
        for i in range(len(ids)):
            delta[i] += alpha * g[i] / g[i].norm()
            for j in range(ids.shape[1]):
                if mask[i, j]:
                    eta[i, j] += alpha * g[i, j] / g[i, j].norm()
            sizes = eta[i].norm(dim=-1)
            eta[i] *= (sizes / sizes.max()).unsqueeze(-1)
        inside(delta, eta)
    for word in ids[mask[..., 0] > 0].unique().tolist():
        places = (ids == word) & (mask[..., 0] > 0)
        new = eta[places]
        table[word] = (table[word] * count[word] + new.sum(0)) / (count[word] + len(new))
        count[word] += len(new)


def test_tavat_equals_the_algorithm_over_several_batches():
    port, batch = make()
    port.model.double()
    objective = TAVAT(perturbation=TokenAware(num_steps=3))
    generator = torch.Generator().manual_seed(0)
    table = count = None
    for number in range(3):
        batch["input_ids"] = batch["input_ids"].roll(number, 0)
        port.model.zero_grad()
        state = generator.get_state()
        textadv.backward(objective, port, batch, generator=generator)
        found = collect(port.model)
        generator.set_state(state)
        draws = torch.zeros(3, 9, port.dim, dtype=torch.float64).uniform_(
            -1, 1, generator=generator
        )
        if table is None:
            scale = 0.2 / port.dim**0.5
            stream = torch_generator("cpu", 0, "vocabulary")
            table = torch.empty(96, port.dim).uniform_(-scale, scale, generator=stream).double()
            count = torch.zeros(96)
        mask = word_mask(batch)
        delta = torch.stack(
            [d * m * 0.2 / (m.sum() * port.dim).sqrt() for d, m in zip(draws, mask, strict=True)]
        )
        reference_tavat(port, batch, table, count, delta, 3, 0.05, 0.5)
        assert_same(found, collect(port.model), 1e-6)
        torch.testing.assert_close(
            port.memory["vocabulary.eta"].double(), table, rtol=1e-5, atol=1e-6
        )
        assert torch.equal(port.memory["vocabulary.count"], count)


def test_free_adversarial_training_equals_the_algorithm():
    port, batch = make()
    reference = copy.deepcopy(port.model)
    objective = FreeAT(num_replays=3)
    other = {k: v[[2, 1]] for k, v in batch.items()}
    other = {k: v[:, :6] if v.ndim > 1 else v for k, v in other.items()}
    ours = torch.optim.SGD(port.model.parameters(), lr=0.05)
    theirs = torch.optim.SGD(reference.parameters(), lr=0.05)
    twin = textadv.wrap(reference)
    delta = None
    for data in (batch, other, batch):
        mask = word_mask(data)
        fresh = torch.zeros(*mask.shape[:2], port.dim, dtype=torch.float64)
        if delta is not None:
            rows, columns = min(len(delta), len(fresh)), min(delta.shape[1], fresh.shape[1])
            fresh[:rows, :columns] = delta[:rows, :columns]
        delta = fresh * mask
        for _ in range(objective.replays):
            ours.zero_grad()
            textadv.backward(objective, port, data, generator=torch.Generator())
            ours.step()
            theirs.zero_grad()
            leaf = delta.clone().requires_grad_()
            cross_entropy(forward(twin, data, leaf), data).backward()
            theirs.step()
            delta = delta + 0.3 * rows_unit(leaf.grad * mask)
            delta = torch.stack([row * min(1, 0.3 / row.norm().item()) for row in delta])
    torch.testing.assert_close(port.memory["free.delta.0"], delta, rtol=1e-8, atol=1e-10)
    for left, right in zip(port.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-10)


def test_fat_equals_the_algorithm_that_stores_floats():
    port, batch = make()
    objective = FAT()
    store = {}
    for epoch in range(3):
        found, _ = gradients(port, objective, batch, seed=epoch)
        mask, draws = word_mask(batch), noise(port, batch, "uniform", epoch)
        begin = torch.zeros_like(draws)
        for i, example in enumerate(batch["example_id"].tolist()):
            start = draws[i] * mask[i]
            if example in store:
                start = store[example].sign() * start.abs()
            begin[i] = start * 0.05 / (mask[i].sum() * port.dim).sqrt()
        leaf = begin.clone().requires_grad_()
        loss = cross_entropy(forward(port, batch, leaf), batch)
        (g,) = torch.autograd.grad(loss, leaf)
        delta = begin + 0.2 * rows_unit(g * mask)
        for i, example in enumerate(batch["example_id"].tolist()):
            store[example] = delta[i] - begin[i]
        port.model.zero_grad()
        cross_entropy(forward(port, batch, delta), batch).backward()
        assert_same(found, collect(port.model), 1e-9)


def test_fat_reuses_the_signs_and_the_norm_between_attacks():
    port, batch = make()
    objective = FAT(period=2)
    gradients(port, objective, batch)
    found, log = gradients(port, objective, batch, seed=9)
    history = SignHistory(port.memory, port.dim)
    ids, mask = batch["example_id"].tolist(), port.editable(batch)
    signs = history.signs(ids, mask).double()
    torch.testing.assert_close(history.sizes(ids), torch.full((3,), 0.2))
    delta = torch.stack([row * 0.2 / row.abs().sum().sqrt() for row in signs])
    torch.testing.assert_close(delta.flatten(1).norm(dim=1), torch.full((3,), 0.2).double())
    port.model.zero_grad()
    cross_entropy(forward(port, batch, delta), batch).backward()
    assert_same(found, collect(port.model), 1e-6)
    assert log["skipped_fraction"] == 0


def test_history_keeps_one_bit_an_entry_and_finds_it_by_example_in_any_padding():
    memory = {}
    history = SignHistory(memory, 12)
    deltas = {example: torch.randn(length, 12) for example, length in ((7, 5), (0, 3), (3, 11))}

    def padded(ids, side):
        batch, mask = torch.zeros(len(ids), 13, 12), torch.zeros(len(ids), 13, dtype=torch.bool)
        for row, example in enumerate(ids):
            length = len(deltas[example])
            place = slice(0, length) if side == "right" else slice(13 - length, 13)
            batch[row, place], mask[row, place] = deltas[example], True
        return batch, mask

    batch, mask = padded([7, 0, 3], "right")
    assert (history.signs([7, 0, 3], mask) == 0).all()
    history.add({"ids": torch.tensor([7, 0, 3]), **packed_signs(batch, mask)})
    assert int(memory["history.used"]) == sum(-(-n * 12 // 8) for n in (5, 3, 11))
    for ids, side in (([3, 7], "left"), ([0], "right"), ([0, 3, 7], "right")):
        expected, mask = padded(ids, side)
        assert torch.equal(history.signs(ids, mask), expected.sign())
        sizes = expected.flatten(1).norm(dim=1)
        torch.testing.assert_close(history.sizes(ids), sizes)
    deltas[0] = -deltas[0]
    batch, mask = padded([0], "left")
    history.add({"ids": torch.tensor([0]), **packed_signs(batch, mask)})
    expected, mask = padded([3, 0], "right")
    assert torch.equal(history.signs([3, 0], mask), expected.sign())
    deltas[0] = torch.randn(4, 12)
    _, mask = padded([0], "right")
    with pytest.raises(DataError, match="example 0: got 4 perturbable tokens, expected 3"):
        history.signs([0], mask)


def test_what_these_methods_need_is_said():
    port, batch = make()
    del batch["example_id"]
    with pytest.raises(DataError, match="no example_id"):
        textadv.backward(FAT(), port, batch)
    with pytest.raises(ConfigError, match="fat: perturbation"):
        FAT(perturbation=PGD())
    with pytest.raises(ConfigError, match="token-aware"):
        TAVAT(perturbation=PGD(init="uniform"))
    with pytest.raises(ConfigError, match="at least one step"):
        FreeLB(perturbation=textadv.UniformNoise())
    with pytest.raises(ConfigError, match="rule: steepest"):
        FreeLB(perturbation=PGD(rule="raw"))
    for climb in (PGD(init="uniform", restarts=2), APGD(), PowerIteration(), SynonymHull()):
        for kind in (FreeLB, FreeAT):
            with pytest.raises(ConfigError, match="perturbation: got no"):
                kind(perturbation=climb)
    with pytest.raises(ConfigError, match="num_replays"):
        FreeAT(num_replays=0)


def test_raw_steps_do_not_share_the_clean_pass():
    shared = Adversarial(perturbation=PGD(num_steps=1))
    raw = Adversarial(perturbation=PGD(num_steps=1, rule="raw"))
    assert shared.shares_clean_pass
    assert not raw.shares_clean_pass
    port, batch = make()
    left, _ = gradients(port, raw, batch)
    right, _ = gradients(port, Adversarial(perturbation=raw.perturbation, inner_mode="eval"), batch)
    assert_same(left, right)
