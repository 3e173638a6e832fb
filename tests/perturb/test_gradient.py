"""FGSM, FGM and PGD: closed forms, equalities, invariances."""

from __future__ import annotations

import itertools

import pytest
import torch

import textadv
from tests.linear import MeanPooledLinear, margin_loss
from textadv import norms
from textadv.errors import ConfigError
from textadv.perturb import PERTURBATIONS, PGD
from textadv.testing import tiny_batch, tiny_model

GEOMETRIES = list(itertools.product(["l2", "linf", "l1"], ["sequence", "token"]))


def gain(port, batch, delta, loss):
    with torch.no_grad():
        return loss(port.logits(batch, delta)) - loss(port.logits(batch))


@pytest.mark.parametrize(("norm", "scope"), GEOMETRIES)
@pytest.mark.parametrize(("steps", "init"), [(1, "zero"), (4, "zero"), (4, "uniform")])
def test_pgd_reaches_the_optimum_of_a_linear_model(norm, scope, steps, init):
    model = MeanPooledLinear()
    port, batch = textadv.wrap(model), tiny_batch(model, (9, 4, 6))
    batch["special_tokens_mask"] = 1 - batch["attention_mask"]
    loss = margin_loss(batch["labels"])
    epsilon = 0.7
    perturbation = PGD(
        norm=norm, scope=scope, epsilon=epsilon, step_size=2.5 * epsilon, num_steps=steps, init=init
    )
    delta = perturbation(port, batch, loss=loss)
    w = (model.head.weight[0] - model.head.weight[1]).detach()
    n = batch["attention_mask"].sum(1).double()
    dual = {"l2": w.norm(), "linf": w.abs().sum(), "l1": w.abs().max()}[norm]
    # The pooled gradient is w / n at every token: a radius for the whole text is worth dual / n
    # (l1), dual / sqrt(n) (l2) or dual (linf), one for each token is worth dual.
    share = {"l2": n.sqrt(), "linf": torch.ones_like(n), "l1": n}[norm]
    expected = epsilon * dual / (share if scope == "sequence" else 1)
    found = gain(port, batch, delta, loss)
    tolerance = 1e-12 if init == "zero" else 1e-4
    torch.testing.assert_close(found, expected * torch.ones_like(n), rtol=tolerance, atol=1e-12)


def test_one_full_pgd_step_is_fgm_and_fgsm_exactly():
    model = tiny_model("roberta")
    port, batch = textadv.wrap(model), tiny_batch(model)
    for scope in ("sequence", "token"):
        fgm = textadv.FGM(epsilon=0.3, scope=scope)(port, batch)
        pgd = PGD(norm="l2", scope=scope, epsilon=0.3, step_size=0.3, num_steps=1)(port, batch)
        assert torch.equal(fgm, pgd)
    fgsm = textadv.FGSM(epsilon=0.02)(port, batch)
    pgd = PGD(norm="linf", epsilon=0.02, step_size=0.02, num_steps=1)(port, batch)
    assert torch.equal(fgsm, pgd)


@pytest.mark.parametrize("name", ["fgsm", "fgm", "pgd", "uniform-noise", "gaussian-noise"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "xlnet", "t5"])
def test_perturbations_reach_the_surface_of_their_ball_and_off_special_tokens(name, architecture):
    model = tiny_model(architecture)
    port, batch = textadv.wrap(model), tiny_batch(model)
    perturbation = PERTURBATIONS[name](epsilon=0.2)
    delta = perturbation(port, batch)
    norm = getattr(perturbation, "norm", "linf" if name == "fgsm" else "l2")
    sizes = norms.norm(delta, norm, "sequence")
    assert (sizes <= 0.2 * (1 + 1e-6)).all()
    assert (sizes >= 0.2 * 0.99).all()
    assert (delta[~port.editable(batch)] == 0).all()
    assert delta.dtype == torch.float32
    assert not delta.requires_grad


@pytest.mark.parametrize("name", ["fgm", "fgsm", "pgd", "mim", "carlini-wagner"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_padding_and_order_change_nothing(name, architecture):
    model = tiny_model(architecture).double()
    port = textadv.wrap(model)
    perturbation = PERTURBATIONS[name]()
    batch = tiny_batch(model, (9, 4, 6))
    delta = perturbation(port, batch)
    order = torch.tensor([2, 0, 1])
    shuffled = perturbation(port, {k: v[order] for k, v in batch.items()})
    torch.testing.assert_close(shuffled, delta[order], rtol=1e-9, atol=1e-12)
    wider = {k: torch.nn.functional.pad(v, (0, 5)) for k, v in batch.items() if v.ndim == 2}
    wider["special_tokens_mask"][:, -5:] = 1
    wider["labels"] = batch["labels"]
    padded = perturbation(port, wider)
    torch.testing.assert_close(padded[:, :9], delta, rtol=1e-9, atol=1e-12)
    alone = perturbation(port, {k: v[1:2] for k, v in batch.items()})
    torch.testing.assert_close(alone[0], delta[1], rtol=1e-9, atol=1e-12)


def test_loss_rises_with_the_strength_of_the_attack():
    torch.manual_seed(0)
    model = tiny_model("bert", num_labels=2)
    port = textadv.wrap(model)
    batch = tiny_batch(model, tuple(6 + i % 5 for i in range(64)))
    batch["labels"] = port.logits(batch).argmax(-1)

    def mean_loss(perturbation):
        delta = None if perturbation is None else perturbation(port, batch)
        with torch.no_grad():
            return port.loss(port.logits(batch, delta), batch).mean().item()

    eps = 0.3
    strengths = [
        None,
        textadv.UniformNoise(epsilon=eps),
        textadv.FGM(epsilon=eps),
        PGD(epsilon=eps, num_steps=3),
        PGD(epsilon=eps, num_steps=10),
    ]
    losses = [mean_loss(p) for p in strengths]
    assert losses[1:] == sorted(losses[1:])
    assert losses[2] > 2 * max(losses[:2])
    assert losses[4] > losses[2]


def test_a_row_without_editable_tokens_is_left_alone():
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), tiny_batch(model, (5, 2, 4))
    for perturbation in (PGD(init="uniform"), textadv.FGM(), textadv.GaussianNoise()):
        delta = perturbation(port, batch)
        assert (delta[1] == 0).all()
        assert (delta[0] != 0).any()


def test_random_starts_depend_on_their_generator_alone():
    model = tiny_model("bert")
    port, batch = textadv.wrap(model), tiny_batch(model)
    pgd = PGD(init="uniform", num_steps=1, step_size=0.01)
    same = [pgd(port, batch, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    other = pgd(port, batch, generator=torch.Generator().manual_seed(6))
    assert torch.equal(*same)
    assert not torch.equal(same[0], other)


def test_bfloat16_models_are_attacked_with_a_float32_delta():
    model = tiny_model("bert").bfloat16()
    port, batch = textadv.wrap(model), tiny_batch(model)
    delta = PGD(epsilon=0.3)(port, batch)
    assert delta.dtype == torch.float32
    assert (norms.norm(delta, "l2", "sequence") <= 0.3 * (1 + 1e-6)).all()
    assert (gain(port, batch, delta, lambda z: port.loss(z, batch)) > 0).all()


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_other_heads_can_be_attacked(problem):
    model = tiny_model("bert", num_labels=1 if problem == "regression" else 3)
    model.config.problem_type = problem
    port, batch = textadv.wrap(model), tiny_batch(model)
    batch["labels"] = torch.rand(3) if problem == "regression" else torch.rand(3, 3).round()
    delta = PGD(epsilon=0.3)(port, batch)
    assert gain(port, batch, delta, lambda z: port.loss(z, batch)).mean() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epsilon": -0.1}, "expected a finite radius >= 0"),
        ({"epsilon": float("nan")}, "finite"),
        ({"num_steps": 0}, "num_steps: got 0, expected an integer >= 1"),
        ({"step_size": 0.0}, "step_size: got 0.0, expected a number > 0"),
        ({"norm": "l22"}, "did you mean 'l2'"),
        ({"scope": "tokens"}, "did you mean 'token'"),
        ({"init": "unifrom"}, "did you mean 'uniform'"),
        ({"epsilon": None}, "step_size"),
        ({"epsilon": None, "step_size": 0.1, "init": "normal"}, "init_scale"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        PGD(**fields)


def test_scaling_scales_radius_step_and_start():
    pgd = PGD(epsilon=0.4, step_size=0.2, init="uniform", init_scale=0.1).scaled(0.5)
    assert (pgd.epsilon, pgd.step_size, pgd.init_scale) == (0.2, 0.1, 0.05)
    assert PGD(epsilon=None, step_size=0.1).scaled(0.5).epsilon is None
    assert textadv.FGM(epsilon=0.4).scaled(0.25).epsilon == 0.1
