"""Decoders: embedding-space training as written out by hand, recomputed and compiled."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import textadv
from tests.batches import full_batch
from tests.objectives.common import assert_same, collect, cross_entropy, forward, gradients
from tests.test_trainer import make_trainer
from textadv.embeddings import enable_gradient_checkpointing
from textadv.objectives import Adversarial
from textadv.perturb import PGD
from textadv.testing import tiny_model

DECODERS = ["llama", "qwen2", "qwen3", "gemma"]
# As long as the first, longer, shorter, and longer than all.
LENGTHS = [(9, 4, 6), (12, 5, 7), (7, 7, 3), (31, 2, 9)]


def decoder(architecture, frozen=False):
    model = tiny_model(architecture, num_labels=2).double().train()
    model.get_input_embeddings().requires_grad_(not frozen)
    return model


@pytest.mark.parametrize("architecture", DECODERS)
def test_two_steps_of_pgd_are_those_written_out_by_hand(architecture):
    model = decoder(architecture)
    port, batch = textadv.wrap(model), full_batch(model)
    attack = PGD(norm="l2", epsilon=0.3, step_size=0.2, num_steps=2)
    found, _ = gradients(port, Adversarial(perturbation=attack), batch)
    words = (batch["attention_mask"] * (1 - batch["special_tokens_mask"])).double().unsqueeze(-1)
    delta = torch.zeros(*words.shape[:2], model.config.hidden_size, dtype=torch.float64)
    model.eval()
    for _ in range(2):
        delta.requires_grad_()
        (grad,) = torch.autograd.grad(cross_entropy(forward(port, batch, delta), batch), delta)
        grad = grad * words
        delta = delta.detach() + 0.2 * grad / grad.flatten(1).norm(dim=1)[:, None, None]
        delta = delta * (0.3 / delta.flatten(1).norm(dim=1).clamp_min(0.3))[:, None, None]
    model.train().zero_grad()
    for added in (None, delta):
        cross_entropy(forward(port, batch, added), batch).backward()
    # Decoders normalise in float32 whatever their weights are.
    assert_same(collect(model), found, 1e-5)


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("objective", [Adversarial(), textadv.FreeLB(), textadv.TRADES()])
def test_recomputed_activations_give_the_same_gradient(architecture, objective):
    plain, model = decoder(architecture), decoder(architecture)
    runs = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: runs.append(1))
    batch = full_batch(model)
    expected, _ = gradients(textadv.wrap(plain), objective, batch)
    port = textadv.wrap(model)
    before = len(runs)
    gradients(port, objective, batch)
    without = len(runs) - before
    enable_gradient_checkpointing(model)
    assert not model.model.layers[0]._gradient_checkpointing_func.keywords["use_reentrant"]
    found, _ = gradients(port, objective, batch)
    assert len(runs) - before > 2 * without  # each block once more in every backward pass
    assert_same(expected, found, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma"])
def test_a_decoder_becomes_robust(architecture, tmp_path):
    model = tiny_model(architecture, num_labels=2)
    run = make_trainer(
        tmp_path / "run",
        Adversarial(perturbation=PGD(epsilon=0.3, num_steps=2)),
        model=model,
        count=160,
        max_steps=200,
        learning_rate=3e-3,
        eval_steps=200,
        gradient_checkpointing=True,
    )
    metrics = run.fit().metrics
    assert metrics["clean_accuracy"] > 0.9
    assert metrics["accuracy_under_pgd"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("architecture", DECODERS)
def test_compiled_decoders_are_traced_once_for_all_lengths(architecture, frozen):
    """Once for each kind of pass: inner, outer, and the first one, whose delta has no gradient."""
    torch._dynamo.reset()
    objective = Adversarial(perturbation=PGD(epsilon=0.3, num_steps=2))
    plain, model = decoder(architecture, frozen), decoder(architecture, frozen)
    port, other, counter = textadv.wrap(plain), textadv.wrap(model), CompileCounter()
    model.compile(backend=counter, dynamic=True)
    frames = []
    with other.attached():
        for lengths in LENGTHS:
            batch = full_batch(model, lengths)
            expected, _ = gradients(port, objective, batch)
            found, _ = gradients(other, objective, batch)
            assert_same(expected, found, 1e-9)
            frames.append(counter.frame_count)
    assert frames == [frames[0]] * len(LENGTHS)
    torch._dynamo.reset()
