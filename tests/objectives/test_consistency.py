"""The consistency family against the formulas of its papers, written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import textadv
from tests.objectives.common import (
    assert_same,
    collect,
    cross_entropy,
    forward,
    gradients,
    kl,
    make,
    noise,
    symmetric_kl,
    word_mask,
)
from textadv.errors import ConfigError
from textadv.objectives import (
    ALUM,
    MART,
    OBJECTIVES,
    R3F,
    R4F,
    SMART,
    SMARTMTDNN,
    VAT,
    Consistency,
    RDrop,
    SiFT,
    SMARTPaper,
)
from textadv.perturb import PGD, UniformNoise
from textadv.testing import tiny_model


def reference(port, batch, delta, distance, weight, detach=False):
    """Return the gradients of clean loss plus weighted distance at a given delta."""
    port.model.zero_grad()
    clean, moved = forward(port, batch), forward(port, batch, delta)
    anchor = clean.detach() if detach else clean
    (cross_entropy(clean, batch) + weight * distance(anchor, moved).mean()).backward()
    return collect(port.model)


def ascent(port, batch, delta, distance):
    """Return the gradient of the summed distance at delta."""
    target = forward(port, batch).detach()
    leaf = delta.clone().requires_grad_()
    return torch.autograd.grad(distance(target, forward(port, batch, leaf)).sum(), leaf)[0]


def test_vat_is_power_iteration_on_the_divergence():
    port, batch = make()
    objective = VAT(lambda_adv=0.7)
    found, _ = gradients(port, objective, batch, seed=3)
    mask = word_mask(batch)
    d = noise(port, batch, "normal", 3) * mask
    d = torch.stack([row / row.norm() for row in d])
    g = ascent(port, batch, 0.01 * d, kl) * mask
    delta = torch.stack([0.3 * row / row.norm() for row in g])
    assert_same(found, reference(port, batch, delta, kl, 0.7, detach=True))


def test_vat_finds_the_top_curvature_direction():
    """On a small ball the divergence is quadratic; iterating converges to its top eigenvector."""
    port, batch = make()
    climb = VAT().perturbation
    target = port.logits(batch).detach()

    def harm(steps, seed):
        moved = textadv.perturb.PowerIteration(epsilon=0.01, probe=1e-3, num_steps=steps)(
            port,
            batch,
            loss=lambda z: kl(target, z),
            generator=torch.Generator().manual_seed(seed),
        )
        return kl(target, port.logits(batch, moved)).detach()

    many = harm(60, 0)
    for seed in range(3):
        assert (harm(1, seed) <= many * (1 + 1e-3)).all()
    torch.testing.assert_close(harm(60, 5), many, rtol=0.1, atol=0)
    assert climb.num_steps == 1


@pytest.mark.parametrize(
    ("kind", "sigma", "eta", "radius", "raw"),
    [(SMART, 5e-4, 5e-3, 5e-3, False), (SMARTPaper, 1e-5, 1e-3, 1e-5, True)],
)
def test_smart_equals_the_algorithm(kind, sigma, eta, radius, raw):
    port, batch = make()
    found, _ = gradients(port, kind(lambda_adv=2.0), batch, seed=1)
    mask = word_mask(batch)
    delta = (sigma * noise(port, batch, "normal", 1) * mask).clamp(-radius, radius)
    g = ascent(port, batch, delta, symmetric_kl) * mask
    if not raw:
        peak = g.abs().amax(-1, keepdim=True)
        g = torch.where(peak > 0, g / peak.clamp_min(1e-300), 0.0)
    delta = (delta + eta * g).clamp(-radius, radius)
    assert_same(found, reference(port, batch, delta, symmetric_kl, 2.0))


def test_smart_is_led_by_the_gradient_and_the_published_code_by_its_noise():
    port, batch = make()
    target = port.logits(batch).detach()

    def cosine(objective):
        climb, site = objective.perturbation, port.at(objective.site)
        start = climb.start(site.blank(batch), site.editable(batch), torch.Generator())
        final = climb(
            site,
            batch,
            loss=lambda z: symmetric_kl(target, z),
            generator=torch.Generator(),
        )
        return functional.cosine_similarity(start.flatten(1), final.flatten(1)).abs().max()

    assert cosine(SMART()) < 0.5
    assert cosine(SMARTMTDNN()) > 0.99


def test_smart_mtdnn_equals_its_formula():
    port, batch = make()
    site = port.at("embeddings_out")
    found, _ = gradients(port, SMARTMTDNN(), batch, seed=2)
    mask = word_mask(batch)
    block = port.model.bert.encoder.layer[0]

    def run(delta):
        handle = block.register_forward_pre_hook(lambda m, args: (args[0] + delta, *args[1:]))
        out = port.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        handle.remove()
        return out.logits

    assert site.site.endswith("layer.0")
    start = 1e-5 * noise(site, batch, "normal", 2) * mask
    target = forward(port, batch).detach()
    leaf = start.clone().requires_grad_()
    (g,) = torch.autograd.grad(symmetric_kl(target, run(leaf)).sum(), leaf)
    moved = start + 1e-5 * g * mask
    delta = moved / (moved.abs().amax(-1, keepdim=True) + 1e-6)
    port.model.zero_grad()
    clean = forward(port, batch)
    (cross_entropy(clean, batch) + symmetric_kl(clean, run(delta)).mean()).backward()
    assert_same(found, collect(port.model))


def test_alum_takes_one_relative_step_after_the_embedding_block():
    port, batch = make()
    objective = ALUM()
    site = port.at(objective.site)
    target = port.logits(batch).detach()
    delta = objective.perturbation(
        site,
        batch,
        loss=lambda z: symmetric_kl(target, z),
        generator=torch.Generator().manual_seed(0),
    )
    assert delta.abs().max() <= 1e-3
    peaks = delta.abs().amax(-1)[site.editable(batch)]
    torch.testing.assert_close(peaks, torch.full_like(peaks, 1e-3), rtol=0.05, atol=0)
    assert site.site.endswith("encoder.layer.0")


def test_sift_adds_delta_after_a_layernorm_without_weights():
    """Against the literal construction: normalise, add, then the model's own LayerNorm."""
    port, batch = make()
    site = port.at(SiFT().site)
    delta = 0.3 * torch.randn(site.blank(batch).shape, dtype=torch.float64)
    layer = port.model.bert.embeddings.LayerNorm

    def literal(module, args):
        return (functional.layer_norm(args[0], args[0].shape[-1:], eps=1e-12) + delta,)

    handle = layer.register_forward_pre_hook(literal)
    expected = port.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    expected.logits.square().sum().backward()
    handle.remove()
    by_hand = collect(port.model)
    port.model.zero_grad()
    found = site.logits(batch, delta)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected.logits, rtol=1e-9, atol=1e-9)
    assert_same(collect(port.model), by_hand, 1e-8)


def test_sift_starts_clipped_and_steps_relative_to_the_token():
    port, batch = make()
    site, climb = port.at(SiFT().site), SiFT().perturbation
    mask = site.editable(batch)
    start = climb.start(site.blank(batch), mask, torch.Generator().manual_seed(0))
    draws = noise(site, batch, "normal", 0)
    torch.testing.assert_close(start, 1e-2 * draws.clamp(-2, 2) * word_mask(batch))
    grad = torch.randn_like(start)
    moved = climb.ascend(start, grad, mask)
    expected = start + 1e-4 * grad / grad.abs().amax(-1, keepdim=True) * word_mask(batch)
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_r3f_in_one_pass_equals_two(weight):
    port, batch = make()
    found, _ = gradients(port, R3F(lambda_adv=weight), batch, seed=5)
    delta = 1e-5 * noise(port, batch, "uniform", 5) * word_mask(batch)
    assert_same(found, reference(port, batch, delta, symmetric_kl, weight))


def test_r4f_trains_with_a_head_of_spectral_norm_one():
    from textadv.objectives.r4f import head_layers, spectral_norm

    for architecture in ("bert", "roberta", "distilbert"):
        port, batch = make(architecture)
        gradients(port, R4F(), batch)
        layers = head_layers(port.model)
        assert layers
        for layer in layers:
            top = torch.linalg.svdvals(layer.weight.detach())[0]
            assert top.item() == pytest.approx(1, rel=1e-3)
    for shape in ((40, 30), (2, 50), (200, 200)):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        exact = torch.linalg.svdvals(weight)[0].item()
        assert spectral_norm(weight).item() == pytest.approx(exact, rel=3e-3)


def test_rdrop_without_dropout_is_clean_training_and_with_it_is_the_formula():
    port, batch = make()
    found, _ = gradients(port, RDrop(lambda_adv=3.0), batch)
    port.model.zero_grad()
    cross_entropy(forward(port, batch), batch).backward()
    assert_same(found, collect(port.model))
    port, batch = make(dropout=True)
    seen = []
    port.model.register_forward_hook(lambda m, args, out: seen.append(out.logits.detach()))
    _, log = gradients(port, RDrop(lambda_adv=3.0), batch)
    first, second = seen[-1].chunk(2)
    assert not torch.equal(first, second)
    losses = (cross_entropy(first, batch) + cross_entropy(second, batch)) / 2
    expected = losses + 3.0 * symmetric_kl(first, second).mean() / 2
    torch.testing.assert_close(log["loss"], expected)


def test_mart_by_hand():
    port, batch = make()
    pgd = PGD(epsilon=0.3, num_steps=3, init="normal")
    found, _ = gradients(port, MART(perturbation=pgd, lambda_adv=5.0), batch, seed=2)
    delta = pgd(port, batch, generator=torch.Generator().manual_seed(2))
    port.model.zero_grad()
    p, q = forward(port, batch).softmax(-1), forward(port, batch, delta).softmax(-1)
    total = 0.0
    for i, label in enumerate(batch["labels"].tolist()):
        best_other = max((q[i, k] for k in range(3) if k != label), key=lambda v: v.item())
        total = total - q[i, label].log() - (1 - best_other).log()
        total = total + 5.0 * (p[i] * (p[i] / q[i]).log()).sum() * (1 - p[i, label])
    (total / 3).backward()
    assert_same(found, collect(port.model))


def test_smart_with_an_average_of_past_weights():
    port, batch = make()
    objective = SMART(bregman=0.5, decay=0.9)
    model = port.model
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    first, _ = gradients(port, objective, batch)
    without, _ = gradients(port, SMART(), batch)
    assert_same(first, without)  # the average is the model itself
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    moved = {n: p.detach().clone() for n, p in model.named_parameters()}
    second, _ = gradients(port, objective, batch)
    average = {n: 0.9 * start[n] + 0.1 * moved[n] for n in start}
    for name, value in average.items():
        torch.testing.assert_close(port.memory[f"average.{name}"], value)
    teacher = torch.func.functional_call(
        model, average, kwargs={k: batch[k] for k in ("input_ids", "attention_mask")}
    ).logits.detach()
    plain, _ = gradients(port, SMART(), batch)
    model.zero_grad()
    (0.5 * symmetric_kl(teacher, forward(port, batch)).mean()).backward()
    extra = collect(model)
    assert_same(second, {n: plain[n] + extra[n] for n in plain})


def test_regression_heads_use_the_squared_difference():
    model = tiny_model("bert", num_labels=1, problem_type="regression").double()
    port = textadv.wrap(model)
    _, batch = make()
    batch["labels"] = torch.tensor([0.3, -1.0, 2.0])
    found, _ = gradients(port, R3F(perturbation=UniformNoise(epsilon=0.5)), batch)
    model.zero_grad()
    delta = UniformNoise(epsilon=0.5)(port, batch, generator=torch.Generator().manual_seed(0))
    clean, moved = forward(port, batch), forward(port, batch, delta)
    loss = (clean[:, 0] - batch["labels"]).square().mean() + (clean - moved).square().mean()
    loss.backward()
    assert_same(found, collect(model))


@pytest.mark.parametrize("name", ["consistency", "trades", "vat", "smart", "alum", "sift"])
def test_a_zero_start_is_refused_with_the_reason(name):
    with pytest.raises(ConfigError, match=r"perturbation: got a start at zero.*no gradient"):
        OBJECTIVES[name](perturbation=textadv.FGM())


def test_mart_refuses_heads_without_a_single_class():
    with pytest.raises(ConfigError, match=r"mart: got a regression head.*use trades"):
        MART().check("regression", 1)
    port, batch = make(num_labels=3)
    port.model.config.problem_type = "multi_label_classification"
    batch["labels"] = torch.ones(3, 3)
    with pytest.raises(ConfigError, match="multi_label"):
        textadv.backward(MART(), port, batch)
    with pytest.raises(ConfigError, match="did you mean 'symmetric_kl'"):
        Consistency(divergence="symetric_kl")
