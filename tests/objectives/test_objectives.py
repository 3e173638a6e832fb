"""Objectives against slow references, and equalities between runs that must agree."""

from __future__ import annotations

import copy

import pytest
import torch

import textadv
from tests.batches import full_batch
from textadv.errors import ConfigError
from textadv.losses import consistency, task_loss
from textadv.objectives import OBJECTIVES, Adversarial, Clean, FreeLB, Schedule
from textadv.perturb import PGD
from textadv.testing import tiny_batch, tiny_model

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def setup(dtype=torch.float64, dropout=False, architecture="bert"):
    settings = {} if dropout else NO_DROPOUT
    model = tiny_model(architecture, **settings).to(dtype).train()
    return textadv.wrap(model), tiny_batch(model)


def gradients(port, objective, batch, *, seed=0, repeats=1, scale=1.0):
    port.model.zero_grad()
    for _ in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        log = textadv.backward(objective, port, batch, generator=generator, scale=scale)
    return {n: p.grad.clone() for n, p in port.model.named_parameters() if p.grad is not None}, log


def assert_same(left, right, tolerance=1e-10):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=tolerance, atol=tolerance)


def times(factor, grads):
    return {name: factor * grad for name, grad in grads.items()}


def plus(*all_grads):
    return {name: sum(g[name] for g in all_grads) for name in all_grads[0]}


def plain_gradients(port, batch, delta=None):
    """Independent of objectives and of `port.logits`: hook written out by hand."""
    model = port.model
    model.zero_grad()
    layer = model.get_submodule(port.site)
    handle = layer.register_forward_hook(
        lambda module, args, out: out if delta is None else out + delta
    )
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    handle.remove()
    torch.nn.functional.cross_entropy(out.logits, batch["labels"]).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_clean_is_ordinary_training():
    port, batch = setup()
    grads, log = gradients(port, Clean(), batch)
    assert_same(grads, plain_gradients(port, batch))
    assert log["loss"] == log["clean_loss"]
    assert 0 <= log["clean_accuracy"] <= 1


@pytest.mark.parametrize("lambda_adv", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("init", ["zero", "uniform"])
def test_adversarial_is_clean_plus_weighted_perturbed(lambda_adv, init):
    port, batch = setup()
    pgd = PGD(epsilon=0.3, num_steps=2, init=init)
    grads, log = gradients(port, Adversarial(perturbation=pgd, lambda_adv=lambda_adv), batch)
    delta = pgd(port, batch, generator=torch.Generator().manual_seed(0))
    expected = plus(
        plain_gradients(port, batch), times(lambda_adv, plain_gradients(port, batch, delta))
    )
    assert_same(grads, expected)
    torch.testing.assert_close(log["loss"], log["clean_loss"] + log["adversarial_loss"])


def test_adversarial_only_leaves_the_clean_loss_out():
    port, batch = setup()
    fgm = textadv.FGM(epsilon=0.3)
    grads, log = gradients(port, Adversarial(perturbation=fgm, adversarial_only=True), batch)
    assert_same(grads, plain_gradients(port, batch, fgm(port, batch)))
    assert "clean_loss" not in log


@pytest.mark.parametrize("steps", [1, 3])
def test_sharing_the_clean_pass_changes_nothing(steps):
    port, batch = setup()
    pgd = PGD(epsilon=0.3, num_steps=steps)
    shared = Adversarial(perturbation=pgd, inner_mode="train")
    separate = Adversarial(perturbation=pgd, inner_mode="eval")
    forwards = []
    port.model.register_forward_hook(lambda *_: forwards.append(1))
    left, _ = gradients(port, shared, batch)
    assert len(forwards) == steps + 1
    forwards.clear()
    right, _ = gradients(port, separate, batch)
    assert len(forwards) == steps + 2
    assert_same(left, right, 1e-12)


@pytest.mark.parametrize("name", ["fgm", "fgsm", "pgd", "uniform-noise"])
@pytest.mark.parametrize("dropout", [True, False])
def test_zero_radius_and_zero_weight_train_exactly_as_clean(name, dropout):
    def run(objective):
        port, batch = setup(torch.float32, dropout)
        optimizer = torch.optim.AdamW(port.model.parameters(), lr=1e-2)
        torch.manual_seed(3)
        for step in range(5):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            textadv.backward(objective.at(0.5), port, batch, generator=generator)
            optimizer.step()
        return port.model.state_dict()

    clean = run(Clean())
    perturbation = textadv.perturb.PERTURBATIONS[name](epsilon=0.3)
    for objective in (
        Adversarial(perturbation=perturbation, lambda_adv=0.0),
        Adversarial(perturbation=perturbation, epsilon_schedule=Schedule(begin=0.6, end=0.8)),
        Adversarial(perturbation=perturbation, lambda_schedule=Schedule(begin=0.6, end=0.8)),
        FreeLB(epsilon_schedule=Schedule(begin=0.5, end=1.0)),
    ):
        other = run(objective)
        assert all(torch.equal(clean[k], other[k]) for k in clean)


def test_zero_radius_with_the_branch_on_gives_one_plus_lambda_times_clean():
    port, batch = setup()
    objective = Adversarial(perturbation=textadv.FGM(epsilon=0.0), lambda_adv=0.7)
    grads, _ = gradients(port, objective, batch)
    assert_same(grads, times(1.7, plain_gradients(port, batch)), 1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_freelb_at_zero_radius_is_clean_training(steps):
    port, batch = setup()
    tiny = PGD(epsilon=0.0, step_size=0.1, num_steps=steps, init="uniform", init_scale=0.1)
    grads, _ = gradients(port, FreeLB(perturbation=tiny), batch)
    clean = plain_gradients(port, batch)
    if steps in (1, 2, 4):
        assert all(torch.equal(grads[k], clean[k]) for k in clean)
    else:
        assert_same(grads, clean, 1e-12)


def reference_freelb(port, batch, steps, epsilon, step_size, sigma, seed):
    """Algorithm 1 of the paper, one text at a time, without this library's geometry."""
    model = port.model
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch["input_ids"].shape, port.dim)
    noise = torch.zeros(shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    mask = (batch["attention_mask"] - batch["special_tokens_mask"].eq(1).long()).clamp_min(0)
    mask = mask.double().unsqueeze(-1)

    def clip(delta):
        for i in range(shape[0]):
            size = delta[i].norm()
            if epsilon is not None and size > epsilon:
                delta[i] *= epsilon / size
        return delta

    delta = noise * mask
    for i in range(shape[0]):
        delta[i] *= sigma / (mask[i].sum() * shape[2]) ** 0.5
    delta = clip(delta)
    layer = model.get_submodule(port.site)
    model.zero_grad()
    for _ in range(steps):
        leaf = delta.clone().requires_grad_()
        handle = layer.register_forward_hook(lambda module, args, out, leaf=leaf: out + leaf)
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        handle.remove()
        (torch.nn.functional.cross_entropy(out.logits, batch["labels"]) / steps).backward()
        for i in range(shape[0]):
            g = leaf.grad[i] * mask[i]
            delta[i] += step_size * g / g.norm()
        delta = clip(delta)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("epsilon", [0.25, None])
@pytest.mark.parametrize("windows", [1, 2])
def test_freelb_equals_the_algorithm_of_the_paper(steps, epsilon, windows):
    port, batch = setup()
    climb = PGD(epsilon=epsilon, step_size=0.1, num_steps=steps, init="uniform", init_scale=0.2)
    objective = FreeLB(perturbation=climb)
    found, _ = gradients(port, objective, batch, seed=4, repeats=windows, scale=1 / windows)
    expected = reference_freelb(port, batch, steps, epsilon, 0.1, 0.2, 4)
    assert_same(found, expected)


def test_trades_equals_hand_computed_divergences():
    port, batch = setup()
    pgd = PGD(epsilon=0.3, num_steps=3, init="normal")
    objective = textadv.TRADES(perturbation=pgd, lambda_adv=3.0)
    found, _ = gradients(port, objective, batch, seed=7)
    model = port.model
    with torch.no_grad():
        target = port.logits(batch)
    delta = pgd(
        port,
        batch,
        loss=lambda z: consistency(z, target, "single_label_classification"),
        generator=torch.Generator().manual_seed(7),
    )
    model.zero_grad()
    clean, moved = port.logits(batch), port.logits(batch, delta)
    p, q = clean.softmax(-1), moved.softmax(-1)
    loss = task_loss(clean, batch["labels"], "single_label_classification").mean()
    (loss + 3.0 * (p * (p / q).log()).sum(-1).mean()).backward()
    assert_same(found, {n: t.grad for n, t in model.named_parameters() if t.grad is not None})


def test_trades_refuses_a_start_without_gradient():
    with pytest.raises(ConfigError, match=r"random start.*Fix: use pgd with init"):
        textadv.TRADES(perturbation=textadv.FGM())


def test_trades_in_eval_mode_climbs_without_dropout():
    port, batch = setup(dropout=True)
    seen = []
    port.model.register_forward_hook(lambda m, *_: seen.append(m.dropout.training))
    gradients(port, textadv.TRADES(inner_mode="eval"), batch)
    assert seen == [True, False, False, False, False, True]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "bart"])
def test_every_objective_counts_its_terms_and_trains_every_parameter(name, architecture):
    port, batch = setup(torch.float32, dropout=True, architecture=architecture)
    batch = full_batch(port.model)
    objective = OBJECTIVES[name]()
    with_clean = set(gradients(port, Clean(), batch)[0])
    counted = 0
    for term in objective.terms(port, batch, torch.Generator()):
        term.loss.backward()
        counted += 1
    assert counted == objective.num_terms
    grads, log = gradients(port, objective, batch)
    assert grads.keys() == with_clean
    assert all(torch.isfinite(g).all() for g in grads.values())
    assert all(torch.isfinite(v) for v in log.values())


@pytest.mark.parametrize("name", ["clean", "adversarial"])
def test_rows_do_not_influence_each_other(name):
    """The gradient of a batch is the mean of the gradients of its rows."""
    port, batch = setup()
    objective = OBJECTIVES[name]()
    whole, _ = gradients(port, objective, batch)
    rows = [
        gradients(port, objective, {k: v[i : i + 1] for k, v in batch.items()})[0] for i in range(3)
    ]
    assert_same(whole, times(1 / 3, plus(*rows)))


def test_gradients_accumulate_instead_of_being_replaced():
    port, batch = setup()
    for objective in (Adversarial(), FreeLB(), textadv.TRADES()):
        once, _ = gradients(port, objective, batch)
        twice, _ = gradients(port, objective, batch, repeats=2)
        assert_same(twice, times(2, once))


def test_a_consumer_that_forgets_backward_is_told():
    port, batch = setup()
    for objective in (Adversarial(), FreeLB()):
        terms = objective.terms(port, batch, torch.Generator())
        next(terms)
        with pytest.raises(RuntimeError, match="run backward on each term"):
            next(terms)


def test_global_random_state_moves_as_in_clean_training_with_one_more_pass():
    def state_after(objective):
        port, batch = setup(torch.float32, dropout=True)
        torch.manual_seed(0)
        textadv.backward(objective, port, batch, generator=torch.Generator())
        return torch.get_rng_state()

    port, batch = setup(torch.float32, dropout=True)
    torch.manual_seed(0)
    port.logits(batch)
    port.logits(batch)
    two_passes = torch.get_rng_state()
    for perturbation in (textadv.FGM(), PGD(num_steps=5), PGD(num_steps=2, init="uniform")):
        assert torch.equal(state_after(Adversarial(perturbation=perturbation)), two_passes)


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Schedule(begin=0.2, end=0.6), {0.0: 0, 0.2: 0, 0.4: 0.5, 0.6: 1, 1.0: 1}),
        (Schedule(kind="cosine", begin=0.0, end=1.0), {0.0: 0, 0.5: 0.5, 1.0: 1}),
        (Schedule(begin=0.5, end=0.5), {0.49: 0, 0.5: 1}),
    ],
)
def test_schedules(schedule, points):
    for progress, factor in points.items():
        assert schedule(progress) == pytest.approx(factor)


def test_scheduled_objectives_scale_radius_and_weight():
    objective = Adversarial(
        perturbation=PGD(epsilon=0.4, step_size=0.2),
        lambda_adv=2.0,
        lambda_schedule=Schedule(begin=0.0, end=0.5),
        epsilon_schedule=Schedule(begin=0.0, end=1.0),
    )
    halfway = objective.at(0.25)
    assert isinstance(halfway, Adversarial)
    assert halfway.lambda_adv == pytest.approx(1.0)
    assert halfway.perturbation.epsilon == pytest.approx(0.1)
    assert objective.at(1.0).perturbation == objective.perturbation
    assert isinstance(objective.at(0.0), Clean)


@pytest.mark.parametrize(
    "fields", [{"lambda_adv": -1.0}, {"lambda_adv": 2.0, "adversarial_only": True}]
)
def test_impossible_objectives_are_refused(fields):
    with pytest.raises(ConfigError, match="lambda_adv"):
        Adversarial(**fields)


def test_fp16_loss_scale_leaves_delta_unchanged():
    port, batch = setup(torch.float32)
    objective = FreeLB(perturbation=PGD(epsilon=0.3, step_size=0.1, num_steps=3))
    plain, _ = gradients(port, objective, batch)
    scaled, _ = gradients(port, objective, batch, scale=2.0**12)
    for name in plain:
        torch.testing.assert_close(scaled[name] / 2.0**12, plain[name], rtol=1e-4, atol=1e-7)


def test_one_bad_example_does_not_poison_the_perturbation_of_the_others():
    port, batch = setup(torch.float32)
    healthy = PGD(epsilon=0.3)(port, batch)

    def loss(logits):
        losses = port.loss(logits, batch)
        return losses * torch.tensor([1.0, float("inf"), 1.0])

    delta = PGD(epsilon=0.3)(port, batch, loss=loss)
    assert (delta[1] == 0).all()
    torch.testing.assert_close(delta[[0, 2]], healthy[[0, 2]])


def test_objectives_can_be_copied_and_compared():
    for objective in OBJECTIVES.values():
        assert copy.deepcopy(objective()) == objective()
