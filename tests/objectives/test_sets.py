"""Synonym hulls, random centres, hidden layers, noise scales and CreAT's inner loss."""

from __future__ import annotations

import pytest
import torch

import textadv
from tests.models import make_tokenizer
from tests.objectives.common import (
    assert_same,
    collect,
    cross_entropy,
    forward,
    gradients,
    kl,
    make,
    noise,
    word_mask,
)
from textadv.errors import ConfigError, DataError, ResourceError
from textadv.objectives import ASCC, OBJECTIVES, Adversarial, CreAT, Hybrid, Latent, NEFTune
from textadv.perturb import FGM, PGD, Substitution, SynonymHull
from textadv.perturb.candidates import candidate_ids, candidate_table, write_table


def reference_hull(port, batch, target, steps, rate, alpha, seed):
    """ASCC's ascent with `torch.optim.Adam`, autograd for the entropy, loops for the mixture."""
    candidates = batch["candidates"]
    shape = candidates.shape
    generator = torch.Generator().manual_seed(seed)
    raw = torch.zeros(shape[0], shape[1], 4 * shape[2], dtype=torch.float64)
    raw = raw.uniform_(-1, 1, generator=generator).view(*shape[:2], 4, shape[2])[:, :, 0]
    mask = word_mask(batch)
    weight = (raw * mask).requires_grad_()
    allowed = candidates >= 0
    table = port.model.get_submodule(port.site).weight

    def mixture(weight):
        shares = weight.masked_fill(~allowed, -torch.inf).softmax(-1)
        vectors = table[candidates.clamp_min(0)]
        return shares, (shares.unsqueeze(-1) * vectors).sum(2)

    adam = torch.optim.Adam([weight], lr=rate)
    movable = ((allowed.sum(-1) > 1) & (mask[..., 0] > 0)).double()
    base = table[batch["input_ids"]].detach()
    for _ in range(steps):
        shares, mixed = mixture(weight)
        delta = (mixed.detach() - base) * movable.unsqueeze(-1)
        delta = delta + (mixed - mixed.detach()) * movable.unsqueeze(-1)
        entropy = -(shares * shares.clamp_min(1e-300).log()).sum(-1) * movable
        harm = kl(target, forward(port, batch, delta))
        objective = harm - alpha * entropy.sum(1) / movable.sum(1)
        (grad,) = torch.autograd.grad(-objective.sum(), weight)
        weight.grad = grad * mask
        adam.step()
    return weight.detach(), mixture, movable, base


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_ascc_equals_a_slow_reference(alpha):
    port, batch = make()
    hull = SynonymHull(num_steps=4, step_size=0.5, sparsity=alpha)
    found, _ = gradients(port, ASCC(perturbation=hull, lambda_adv=4.0), batch, seed=6)
    target = forward(port, batch).detach()
    weight, mixture, movable, _ = reference_hull(port, batch, target, 4, 0.5, alpha, 6)
    port.model.zero_grad()
    clean = forward(port, batch)
    _, mixed = mixture(weight)
    layer = port.model.get_submodule(port.site)
    handle = layer.register_forward_hook(
        lambda module, args, out: torch.where(movable.unsqueeze(-1) > 0, mixed, out)
    )
    out = port.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    handle.remove()
    (cross_entropy(clean, batch) + 4.0 * kl(clean, out.logits).mean()).backward()
    assert_same(found, collect(port.model), 1e-7)


def test_the_hull_holds_its_corners_and_climbs():
    port, batch = make()
    bound = SynonymHull(sparsity=0.0, num_steps=8).bind(port, batch)
    state = bound.start(port.blank(batch), port.editable(batch), torch.Generator().manual_seed(0))
    corner = state.clone()
    corner[:, :, 0] = -1e3
    corner[:, :, 0, 1] = 1e3
    chosen = batch["candidates"][..., 1]
    movable = (chosen >= 0) & port.editable(batch)
    expected = port.words(chosen.clamp_min(0)) - port.words(batch["input_ids"])
    delta = bound.delta(corner * port.editable(batch)[..., None, None])
    torch.testing.assert_close(delta[movable], expected[movable].detach())
    assert (delta[~movable & (batch["candidates"] < 0).any(-1)] == 0).all() or True
    only_self = (batch["candidates"][..., 1:] < 0).all(-1)
    assert (delta[only_self] == 0).all()
    with torch.no_grad():
        begin = port.loss(port.logits(batch, bound.delta(state)), batch)
        end_delta = SynonymHull(sparsity=0.0, num_steps=8, step_size=1.0)(port, batch)
        end = port.loss(port.logits(batch, end_delta), batch)
    assert end.mean() > begin.mean()


def test_a_strong_sparsity_leads_to_real_words():
    port, batch = make()

    def entropy(sparsity):
        hull = SynonymHull(sparsity=sparsity, num_steps=10, step_size=1.0).bind(port, batch)
        loss = hull.default_loss(port, batch)
        z = hull.search(port, batch, loss, torch.Generator().manual_seed(0))
        shares = hull._shares(z)
        several = (hull.allowed.sum(-1) > 1) & port.editable(batch)
        return -(shares * shares.clamp_min(1e-30).log()).sum(-1)[several].mean()

    assert entropy(1e4) < 0.5 * entropy(0.0)


def test_centre_with_probability_zero_and_one():
    port, batch = make()
    still = Hybrid(center=Substitution(probability=0.0), perturbation=FGM())
    plain = Adversarial(perturbation=FGM(), inner_mode="eval")
    assert_same(gradients(port, still, batch)[0], gradients(port, plain, batch)[0])
    batch["candidates"] = batch["candidates"][..., :2]  # at most one other word
    always = Hybrid(center=Substitution(probability=1.0), perturbation=FGM())
    found, _ = gradients(port, always, batch)
    other = batch["candidates"][..., 1]
    replaced = torch.where((other >= 0) & port.editable(batch), other, batch["input_ids"])
    assert (replaced != batch["input_ids"]).any()
    delta = FGM()(port, {**batch, "input_ids": replaced})
    port.model.zero_grad()
    loss = cross_entropy(forward(port, batch), batch)
    (loss + cross_entropy(forward(port, batch, delta, ids=replaced), batch)).backward()
    assert_same(found, collect(port.model))


def test_substitution_draws_candidates_at_its_rate():
    port, _ = make()
    ids = torch.randint(4, 96, (64, 40))
    candidates = torch.randint(4, 96, (64, 40, 4))
    candidates[..., 0] = ids
    candidates[:, :, 3] = -1
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "special_tokens_mask": torch.zeros_like(ids),
        "candidates": candidates,
    }
    changed = Substitution(probability=0.25)(port, batch, torch.Generator().manual_seed(0))
    new = changed["input_ids"]
    assert ((new.unsqueeze(-1) == candidates[..., :3]).any(-1)).all()
    rate = (new != ids).double().mean().item()
    assert rate == pytest.approx(0.25, abs=0.03)
    first = (new == candidates[..., 1]) & (new != ids)
    second = (new == candidates[..., 2]) & (new != ids)
    assert first.sum().item() == pytest.approx(second.sum().item(), rel=0.25)
    assert torch.equal(batch["input_ids"], ids)


def test_candidate_tables_from_synonyms(tmp_path):
    tokenizer = make_tokenizer()
    synonyms = {"good": ["great", "unheard-of", "fine"], "bad": ["awful"], "nosuch": ["good"]}
    table = candidate_table(tokenizer, synonyms, num_candidates=4)
    good, great, fine, bad, awful = tokenizer.convert_tokens_to_ids(
        ["good", "great", "fine", "bad", "awful"]
    )
    assert table[good].tolist() == [good, great, fine, -1]
    assert table[bad].tolist() == [bad, awful, -1, -1]
    assert table[great].tolist() == [great, -1, -1, -1]
    assert (table[:, 0] == torch.arange(len(tokenizer))).all()
    path = tmp_path / "table.safetensors"
    write_table(table, path)
    port, batch = make()
    del batch["candidates"]
    batch["input_ids"][0, 1:3] = torch.tensor([good, bad])
    objective = ASCC(perturbation=SynonymHull(table=str(path)))
    batch["input_ids"].clamp_(max=len(tokenizer) - 1)
    textadv.backward(objective, port, batch)
    with pytest.raises(ResourceError, match="no such file"):
        textadv.backward(ASCC(perturbation=SynonymHull(table="nowhere")), port, batch)
    with pytest.raises(DataError, match="no candidates"):
        textadv.backward(ASCC(), port, batch)
    (tmp_path / "other").write_text("x")
    with pytest.raises(ResourceError, match="another kind of file"):
        textadv.backward(Hybrid(center=Substitution(table=str(tmp_path / "other"))), port, batch)


def test_pieces_of_words_have_no_candidates():
    table = torch.tensor([[0, 1], [1, 2], [2, 0], [3, 1]])
    continuing = torch.tensor([False, False, True, False])
    ids = torch.tensor([[1, 2, 3, 0, 2]])
    found = candidate_ids(ids, table, continuing)
    assert found.tolist() == [[[1, -1], [2, -1], [3, 1], [0, -1], [2, -1]]]


def test_latent_training_perturbs_what_a_block_reads():
    port, batch = make()
    objective = Latent(site="layer:1", perturbation=PGD(scope="token", epsilon=1.0, num_steps=2))
    found, _ = gradients(port, objective, batch)
    there = port.at("layer:1")
    delta = objective.perturbation(there, batch, mode="train")
    block = port.model.bert.encoder.layer[1]
    port.model.zero_grad()
    clean = cross_entropy(forward(port, batch), batch)
    handle = block.register_forward_pre_hook(lambda m, args: (args[0] + delta, *args[1:]))
    adversarial = cross_entropy(forward(port, batch), batch)
    handle.remove()
    (clean + adversarial).backward()
    assert_same(found, collect(port.model))
    torch.testing.assert_close(
        delta.norm(dim=-1)[port.editable(batch)], torch.ones(13, dtype=torch.float64)
    )


def test_sites_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match="did you mean 'embeddings_sum'"):
        Adversarial(site="embedding_sum")
    port, batch = make()
    with pytest.raises(ConfigError, match=r"got a model of 2 blocks, expected layer:-2 to layer:1"):
        textadv.backward(Latent(site="layer:7"), port, batch)
    with pytest.raises(ConfigError, match="site"):
        OBJECTIVES["tavat"](site="layer:1")
    with pytest.raises(ConfigError, match="'word'"):
        Hybrid(site="embeddings_sum")


def test_neftune_scales_its_noise_by_length_and_width():
    port, batch = make()
    found, _ = gradients(port, NEFTune(), batch, seed=8)
    mask = word_mask(batch)
    draws = noise(port, batch, "uniform", 8) * mask
    delta = torch.stack(
        [5 * row / (m.sum() * port.dim).sqrt() for row, m in zip(draws, mask, strict=True)]
    )
    port.model.zero_grad()
    cross_entropy(forward(port, batch, delta), batch).backward()
    assert_same(found, collect(port.model))


def encoder_output(port, batch, delta=None):
    """Return the mean over real tokens of the last hidden state, and the logits."""
    seen = []
    handle = port.model.bert.register_forward_hook(lambda m, args, out: seen.append(out[0]))
    logits = forward(port, batch, delta)
    handle.remove()
    real = batch["attention_mask"].double().unsqueeze(-1)
    return (seen[0] * real).sum(1) / real.sum(1), logits


@pytest.mark.parametrize("adversarial_only", [True, False])
def test_creat_climbs_on_loss_and_distance(adversarial_only):
    port, batch = make()
    climb = PGD(epsilon=0.3, step_size=0.2, num_steps=2, init="uniform")
    objective = CreAT(perturbation=climb, tau=1.5, adversarial_only=adversarial_only)
    found, _ = gradients(port, objective, batch, seed=3)
    mask = word_mask(batch)
    delta = climb.start(port.blank(batch), mask[..., 0] > 0, torch.Generator().manual_seed(3))
    anchor = encoder_output(port, batch)[0].detach()
    for _ in range(2):
        leaf = delta.clone().requires_grad_()
        hidden, logits = encoder_output(port, batch, leaf)
        cosine = (hidden * anchor).sum(-1) / (hidden.norm(dim=-1) * anchor.norm(dim=-1))
        losses = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
        (g,) = torch.autograd.grad((losses + 1.5 * (1 - cosine)).sum(), leaf)
        g = g * mask
        delta = delta + 0.2 * torch.stack([row / row.norm() for row in g])
        delta = torch.stack([row * min(1, 0.3 / row.norm().item()) for row in delta])
    port.model.zero_grad()
    loss = cross_entropy(forward(port, batch, delta), batch)
    if not adversarial_only:
        loss = loss + cross_entropy(forward(port, batch), batch)
    loss.backward()
    assert_same(found, collect(port.model))
    assert not any(m._forward_hooks for m in port.model.modules())


def test_creat_without_distance_is_adversarial_training():
    port, batch = make()
    climb = PGD(epsilon=0.3, num_steps=2, init="uniform")
    left, _ = gradients(port, CreAT(perturbation=climb, tau=0.0), batch)
    right, _ = gradients(port, Adversarial(perturbation=climb), batch)
    assert_same(left, right)
