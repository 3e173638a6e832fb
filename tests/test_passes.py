"""Cost: counted passes, counted operations, and the model that predicts both."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import textadv
from tests.batches import full_batch
from textadv.objectives import AWP, OBJECTIVES, TRADES, Adversarial, CreAT, FreeLB
from textadv.passes import count_passes
from textadv.perturb import PGD, UniformNoise
from textadv.testing import tiny_model

K = 3
RANDOM = PGD(num_steps=K, init="uniform")


def steps_of(objective, model=None, batch=None):
    model = tiny_model("bert").train() if model is None else model
    port = textadv.wrap(model)
    port.at(getattr(objective, "site", "word"))  # found by one forward, once
    batch = full_batch(model) if batch is None else batch
    with count_passes(port, batch) as passes:
        textadv.backward(objective, port, batch)
    return passes


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_costs_what_it_says(name):
    objective = OBJECTIVES[name]()
    assert steps_of(objective).clean_steps == pytest.approx(objective.cost)


# Clean steps as derived on paper: a forward is 1/3, a backward to inputs 1/3, to weights 1/3.
BY_HAND = {
    "clean": (textadv.Clean(), 1.0),
    "fgm, adversarial only": (
        Adversarial(perturbation=textadv.FGM(), adversarial_only=True),
        5 / 3,
    ),
    "fgm": (Adversarial(perturbation=textadv.FGM()), 2.0),
    "pgd, zero start": (Adversarial(perturbation=PGD(num_steps=K)), (2 * K + 4) / 3),
    "pgd, random start": (Adversarial(perturbation=RANDOM), (2 * K + 6) / 3),
    "pgd, adversarial only": (
        Adversarial(perturbation=RANDOM, adversarial_only=True),
        (2 * K + 3) / 3,
    ),
    "noise": (Adversarial(perturbation=UniformNoise()), 2.0),
    "freelb": (FreeLB(), K),
    "villa": (OBJECTIVES["villa"](), (1 + 3 * K) / 3),
    "tavat": (OBJECTIVES["tavat"](), 2.0),
    "r3f": (OBJECTIVES["r3f"](), 2.0),
    "rdrop": (OBJECTIVES["rdrop"](), 2.0),
    "sam": (OBJECTIVES["sam"](), 2.0),
    "sam and fgm": (OBJECTIVES["sam-fgm"](), 2.0),
    "smart": (OBJECTIVES["smart"](), 8 / 3),
    "smart with average": (OBJECTIVES["smart"](bregman=1.0), 3.0),
    "vat": (OBJECTIVES["vat"](), 8 / 3),
    "alum": (OBJECTIVES["alum"](), 8 / 3),
    "sift": (OBJECTIVES["sift"](), 8 / 3),
    "trades": (TRADES(), (6 + 2 * K) / 3),
    "trades, eval": (TRADES(inner_mode="eval"), (6 + 2 * K + 1) / 3),
    "mart": (OBJECTIVES["mart"](), (6 + 2 * K) / 3),
    "awp and pgd": (AWP(), (2 * K + 6) / 3),
    "awp and trades": (AWP(objective=TRADES()), (2 * K + 12) / 3),
    "ascc": (OBJECTIVES["ascc"](), 16 / 3),
    "free": (OBJECTIVES["free"](), 1.0),
    "fat": (OBJECTIVES["fat"](), 5 / 3),
    "neftune": (OBJECTIVES["neftune"](), 1.0),
    "flooding": (OBJECTIVES["flooding"](), 1.0),
    "creat": (CreAT(), (2 * 2 + 6) / 3),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_passes_equal_the_cost_model(name):
    objective, expected = BY_HAND[name]
    assert steps_of(objective).clean_steps == pytest.approx(expected)
    assert objective.cost == pytest.approx(expected)


@pytest.mark.parametrize(
    "objective",
    [
        CreAT(adversarial_only=True),
        CreAT(inner_mode="eval"),
        AWP(objective=TRADES(inner_mode="eval")),
        AWP(objective=Adversarial(perturbation=textadv.FGM())),
        OBJECTIVES["hybrid"](),
        Adversarial(perturbation=textadv.FGM(), inner_mode="eval"),
        OBJECTIVES["consistency"](perturbation=UniformNoise()),
    ],
)
def test_variants_cost_what_they_say(objective):
    assert steps_of(objective).clean_steps == pytest.approx(objective.cost)


def test_inner_passes_reach_no_weight():
    passes = steps_of(Adversarial(perturbation=RANDOM))
    assert (passes.forwards, passes.full_backwards, passes.input_backwards) == (5, 2, 3)


def test_fat_costs_one_clean_step_between_attacks():
    model = tiny_model("bert").train()
    port, batch = textadv.wrap(model), full_batch(model)
    objective = OBJECTIVES["fat"](period=3)
    costs = []
    for _ in range(7):
        with count_passes(port, batch) as passes:
            textadv.backward(objective, port, batch)
        costs.append(passes.clean_steps)
    assert costs == pytest.approx([5 / 3, 1, 1, 5 / 3, 1, 1, 5 / 3])
    assert objective.cost == pytest.approx(sum(costs[:3]) / 3)


def bigger_model(layers=4):
    settings = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": layers}
    return tiny_model("bert", **settings, attn_implementation="eager").train()


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_an_inner_pass_is_at_most_twice_a_forward():
    model = bigger_model()
    port, batch = textadv.wrap(model), full_batch(model, (12, 7, 9))
    with torch.no_grad():
        forward = flops(lambda: port.logits(batch))
    one, three = (flops(lambda k=k: PGD(num_steps=k)(port, batch, mode="train")) for k in (1, 3))
    assert (three - one) / 2 <= 2.1 * forward
    step = flops(lambda: textadv.backward(textadv.Clean(), port, batch))
    assert step >= 2.9 * forward


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_inner_steps_at_a_layer_cost_only_the_layers_above(layer):
    model = bigger_model()
    port, batch = textadv.wrap(model), full_batch(model, (12, 7, 9))
    with torch.no_grad():
        forward = flops(lambda: port.logits(batch))
    there = port.at(f"layer:{layer}")
    two, four = (flops(lambda k=k: PGD(num_steps=k)(there, batch, mode="train")) for k in (2, 4))
    assert (four - two) / 2 <= 2.1 * forward * (1 - layer / 4) + 0.02 * forward


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("architecture", ["bert", "albert", "gpt2", "xlnet", "t5", "deberta-v2"])
def test_a_cached_prefix_changes_nothing(architecture, mode, monkeypatch):
    model = tiny_model(architecture).train()
    port, batch = textadv.wrap(model).at("layer:1"), full_batch(model)
    attack = PGD(num_steps=3, init="uniform")
    torch.manual_seed(0)
    cached = attack(port, batch, mode=mode)
    monkeypatch.setattr("textadv.reuse.cached_prefix", lambda *_: torch.no_grad())
    monkeypatch.setattr(type(port), "cached_prefix", lambda self: torch.enable_grad(), raising=True)
    torch.manual_seed(0)
    assert torch.equal(attack(port, batch, mode=mode), cached)
    assert not any("forward" in module.__dict__ for module in model.modules())


def embedding_gradients(objective, batch, model):
    """Count dense gradients of the embedding table in one call of `backward`."""
    port = textadv.wrap(model)
    written = []
    weight = model.get_submodule(port.site).weight
    handle = weight.register_hook(lambda grad: written.append(1))
    textadv.backward(objective, port, batch, generator=torch.Generator().manual_seed(0))
    handle.remove()
    return len(written)


@pytest.mark.parametrize("objective", [FreeLB(), Adversarial(perturbation=RANDOM), textadv.Clean()])
def test_the_embedding_table_gets_one_gradient_a_batch(objective):
    model = tiny_model("bert")
    assert embedding_gradients(objective, full_batch(model), model) == 1


@pytest.mark.parametrize("architecture", ["bert", "gemma", "xlnet", "t5", "opt"])
def test_sharing_the_embedding_gradient_changes_no_gradient(architecture, monkeypatch):
    model = tiny_model(architecture).double()
    batch, grads = full_batch(model), []
    for shared in (True, False):
        if not shared:
            monkeypatch.setattr(
                textadv.EmbeddingPort, "shared_embedding_gradient", lambda self: torch.enable_grad()
            )
        for objective in (FreeLB(), Adversarial(perturbation=RANDOM)):
            model.zero_grad()
            port = textadv.wrap(model)
            textadv.backward(objective, port, batch, generator=torch.Generator().manual_seed(0))
            grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for left, right in zip(grads[:2], grads[2:], strict=True):
        assert left.keys() == right.keys()
        for name in left:
            torch.testing.assert_close(left[name], right[name], rtol=1e-10, atol=1e-12)
