"""Start, step and search of the further perturbations, against references and closed forms."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import textadv
from tests.batches import full_batch
from tests.linear import MeanPooledLinear, margin_loss
from textadv import norms
from textadv.errors import ConfigError
from textadv.losses import attack_loss, margin
from textadv.perturb import APGD, FGSMRS, MIM, PGD, CarliniWagner, PowerIteration, TokenAware
from textadv.perturb.apgd import _checkpoints
from textadv.testing import tiny_batch, tiny_model


def linear_case():
    model = MeanPooledLinear()
    port, batch = textadv.wrap(model), tiny_batch(model, (9, 4, 6))
    batch["special_tokens_mask"] = 1 - batch["attention_mask"]
    weights = (model.head.weight[0] - model.head.weight[1]).detach()
    n = batch["attention_mask"].sum(1).double()
    return port, batch, weights, n


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("scope", ["sequence", "token"])
@pytest.mark.parametrize("kind", [APGD, MIM])
def test_the_optimum_of_a_linear_model_is_reached(norm, scope, kind):
    port, batch, weights, n = linear_case()
    steps = {"num_steps": 40} if kind is APGD else {"num_steps": 3, "step_size": 0.7}
    delta = kind(norm=norm, scope=scope, epsilon=0.7, **steps)(
        port, batch, loss=margin_loss(batch["labels"])
    )
    with torch.no_grad():
        gain = margin_loss(batch["labels"])(port.logits(batch, delta))
        gain = gain - margin_loss(batch["labels"])(port.logits(batch))
    dual = weights.norm() if norm == "l2" else weights.abs().sum()
    share = n.sqrt() if (norm, scope) == ("l2", "sequence") else torch.ones_like(n)
    torch.testing.assert_close(gain, 0.7 * dual / share, rtol=1e-3, atol=1e-9)


def test_carlini_and_wagner_find_the_nearest_wrong_point_of_a_linear_model():
    port, batch, weights, n = linear_case()
    with torch.no_grad():
        logits = port.logits(batch)
        batch["labels"] = logits.argmax(-1)
    gap = (logits[:, 0] - logits[:, 1]).abs()
    delta = CarliniWagner(num_steps=200, search_steps=9, epsilon=100.0)(port, batch)
    expected = gap * n.sqrt() / weights.norm()
    torch.testing.assert_close(norms.norm(delta, "l2", "sequence"), expected, rtol=1e-2, atol=0)
    with torch.no_grad():
        assert (port.logits(batch, delta).argmax(-1) != batch["labels"]).all()


def test_carlini_and_wagner_reach_the_margin_they_are_asked_for():
    port, batch, *_ = linear_case()
    with torch.no_grad():
        batch["labels"] = port.logits(batch).argmax(-1)
    attack = CarliniWagner(num_steps=100, search_steps=8, epsilon=100.0, confidence=0.5)
    with torch.no_grad():
        gaps = margin(port.logits(batch, attack(port, batch)), batch["labels"])
    assert (gaps > 0.5).all()
    assert (gaps < 0.7).all()


def test_fgsm_from_a_random_start_by_hand():
    model = tiny_model("bert").double()
    port, batch = textadv.wrap(model), full_batch(model)
    generator = torch.Generator().manual_seed(4)
    mask = port.editable(batch).double().unsqueeze(-1)
    u = torch.zeros(port.blank(batch).shape, dtype=torch.float64)
    u = 0.02 * u.uniform_(-1, 1, generator=generator) * mask
    leaf = u.clone().requires_grad_()
    (g,) = torch.autograd.grad(port.loss(port.logits(batch, leaf), batch).sum(), leaf)
    expected = (u + 0.025 * g.sign() * mask).clamp(-0.02, 0.02)
    found = FGSMRS(epsilon=0.02)(port, batch, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(found, expected)


def test_momentum_by_hand_and_without_memory_it_is_pgd():
    model = tiny_model("bert").double()
    port, batch = textadv.wrap(model), full_batch(model)
    mask = port.editable(batch).double().unsqueeze(-1)
    delta, v = port.blank(batch), port.blank(batch)
    for _ in range(4):
        leaf = delta.clone().requires_grad_()
        (g,) = torch.autograd.grad(port.loss(port.logits(batch, leaf), batch).sum(), leaf)
        g = g * mask
        v = 0.8 * v + torch.stack([row / row.abs().sum() for row in g])
        delta = delta + 0.1 * torch.stack([row / row.norm() for row in v])
        delta = torch.stack([row * min(1, 0.25 / row.norm().item()) for row in delta])
    found = MIM(epsilon=0.25, step_size=0.1, num_steps=4, decay=0.8)(port, batch)
    torch.testing.assert_close(found, delta)
    pgd = PGD(epsilon=0.25, step_size=0.1, num_steps=4)(port, batch)
    mim = MIM(epsilon=0.25, step_size=0.1, num_steps=4, decay=0.0)(port, batch)
    torch.testing.assert_close(mim, pgd)


def test_apgd_checkpoints_grow_closer():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


def reference_apgd(port, batch, start, epsilon, steps, marks):
    """Algorithm 1 for one text at a time, in l2 over the text, with Python numbers."""
    mask = port.editable(batch).double().unsqueeze(-1)
    found = []
    halvings = 0
    for i in range(len(start)):
        row = {k: v[i : i + 1] for k, v in batch.items()}

        def look(x, row=row, i=i):
            leaf = x.clone().requires_grad_()
            loss = port.loss(port.logits(row, leaf.unsqueeze(0)), row).sum()
            (g,) = torch.autograd.grad(loss, leaf)
            return loss.item(), g * mask[i]

        def inside(x):
            return x * min(1.0, epsilon / max(x.norm().item(), 1e-300))

        x = old = start[i]
        loss, g = look(x)
        best, best_loss, best_g = x, loss, g
        eta, history = 2 * epsilon, [loss]
        eta_then, best_then = eta, best_loss
        for k in range(1, steps + 1):
            z = inside(x + eta * g / g.norm())
            new = z if k == 1 else inside(x + 0.75 * (z - x) + 0.25 * (x - old))
            old, x = x, new
            loss, g = look(x)
            history.append(loss)
            if loss > best_loss:
                best, best_loss, best_g = x, loss, g
            if k in marks and k < steps:
                since = len(history) - 1
                rises = sum(b > a for a, b in itertools.pairwise(history))
                stalled = rises < 0.75 * since or (eta == eta_then and best_loss == best_then)
                eta_then, best_then = eta, best_loss
                if stalled:
                    halvings += 1
                    eta, x, old, g, loss = eta / 2, best, best, best_g, best_loss
                history = [loss]
        found.append(best)
    return torch.stack(found), halvings


@pytest.mark.parametrize("steps", [1, 2, 20, 40])
def test_apgd_equals_the_algorithm_one_text_at_a_time(steps):
    model = tiny_model("bert", num_labels=3).double()
    port, batch = textadv.wrap(model), full_batch(model)
    attack = APGD(epsilon=0.8, num_steps=steps)
    generator = torch.Generator().manual_seed(1)
    start = attack.start(port.blank(batch), port.editable(batch), generator)
    expected, halvings = reference_apgd(port, batch, start, 0.8, steps, _checkpoints(steps))
    found = attack(
        port,
        batch,
        loss=lambda logits: port.loss(logits, batch),
        generator=torch.Generator().manual_seed(1),
    )
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert halvings > 0 or steps < 20


def test_apgd_keeps_the_best_point_it_has_seen():
    model = tiny_model("bert", num_labels=3)
    port, batch = textadv.wrap(model), full_batch(model)
    for loss in ("task", "margin", "dlr"):
        seen = []

        def watch(logits, loss=loss, seen=seen):
            losses = attack_loss(logits, batch["labels"], "single_label_classification", loss)
            seen.append(losses.detach())
            return losses

        delta = APGD(epsilon=0.3, num_steps=12)(port, batch, loss=watch)
        climbed = torch.stack(seen)
        final = watch(port.logits(batch, delta)).detach()
        torch.testing.assert_close(final, climbed.amax(0), rtol=1e-4, atol=1e-5)


def test_apgd_beats_pgd_of_an_unlucky_step_and_matches_a_tuned_one():
    model = tiny_model("bert", num_labels=2)
    port = textadv.wrap(model)
    batch = tiny_batch(model, tuple(6 + i % 5 for i in range(32)))
    with torch.no_grad():
        batch["labels"] = port.logits(batch).argmax(-1)

    def harm(attack):
        with torch.no_grad():
            return margin(port.logits(batch, attack(port, batch)), batch["labels"]).mean().item()

    auto = harm(APGD(epsilon=0.3, num_steps=20, loss="margin"))
    assert auto > harm(PGD(epsilon=0.3, num_steps=20, step_size=1e-3, loss="margin"))
    assert auto > harm(PGD(epsilon=0.3, num_steps=20, loss="margin")) - 0.05


def test_losses_of_attacks_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.5], [0.0, 2.0, -1.0]])
    labels = torch.tensor([0, 0])
    problem = "single_label_classification"
    assert margin(logits, labels).tolist() == [-2.0, 2.0]
    assert attack_loss(logits, labels, problem, "dlr").tolist() == pytest.approx([-0.8, 2 / 3])
    scaled = attack_loss(1000 * logits, labels, problem, "dlr")
    assert scaled.tolist() == pytest.approx([-0.8, 2 / 3])
    with pytest.raises(ConfigError, match="multi_label"):
        attack_loss(logits, labels, "multi_label_classification", "margin")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PGD(loss="margn"), "did you mean 'margin'"),
        (lambda: PGD(rule="steep"), "did you mean 'steepest'"),
        (lambda: PGD(restarts=3), "random start.*init: uniform"),
        (lambda: APGD(norm="l1"), "use pgd for l1"),
        (lambda: APGD(num_steps=0), "num_steps"),
        (lambda: MIM(decay=-1.0), "decay"),
        (lambda: MIM(init="uniform", restarts=2), "use apgd"),
        (lambda: CarliniWagner(learning_rate=0.0), "learning_rate"),
        (lambda: CarliniWagner(confidence=-1.0), "confidence"),
        (lambda: PowerIteration(probe=0.0), "probe"),
        (lambda: TokenAware(norm="linf"), "norm: got linf, expected l2"),
        (lambda: PGD(init="clippednormal"), "did you mean 'clipped_normal'"),
        (lambda: APGD(loss="dlr").check("single_label_classification", 2), "3 or more"),
        (lambda: APGD(loss="margin").check("regression", 1), "regression"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


STEPS = {
    "pgd": PGD(norm="l2", epsilon=0.3, init="uniform"),
    "relative": PGD(norm="linf", scope="token", epsilon=0.3, rule="relative"),
    "raw": PGD(norm="l2", epsilon=0.3, step_size=1.0, rule="raw"),
    "fgsm-rs": FGSMRS(epsilon=0.3),
    "mim": MIM(epsilon=0.3),
    "apgd": APGD(epsilon=0.3),
    "token-aware": TokenAware(epsilon=0.3),
    "power": PowerIteration(epsilon=0.3),
}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(STEPS)),
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1e-20, 1e-3, 1.0, 1e10]),
    bad=st.sampled_from([None, 0.0, float("nan"), float("inf")]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_every_step_stays_in_the_ball_and_survives_bad_gradients(name, seed, size, bad, dtype):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 1 + seed % 6, 1 + seed % 9)
    mask = torch.rand(shape[:2], generator=generator) < 0.7
    climb = STEPS[name]
    z = climb.start(torch.zeros(shape), mask, generator)
    for _ in range(3):
        grad = (torch.randn(z.shape, generator=generator) * size).to(dtype)
        if bad is not None:
            grad[0] = bad
        z = climb.ascend(z, grad, mask)
    delta = climb.delta(climb.finish(z, mask))
    assert torch.isfinite(delta).all()
    assert (delta[~mask] == 0).all()
    norm = getattr(climb, "norm", "l2")
    assert (norms.norm(delta, norm, climb.scope) <= 0.3 * (1 + 1e-5)).all()
