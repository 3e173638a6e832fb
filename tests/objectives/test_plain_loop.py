"""`backward` in a loop of one's own: the only line that changes, and it makes models resist."""

from __future__ import annotations

import torch
from accelerate import Accelerator

import textadv
from tests.models import make_tokenizer, sentiment_rows
from tests.objectives.common import NO_DROPOUT
from textadv.batching import Encoded
from textadv.objectives import Adversarial, Clean
from textadv.perturb import PGD
from textadv.testing import tiny_model


def encode(count, seed=0):
    rows = sentiment_rows(count, seed)
    return Encoded([[r["text"]] for r in rows], [r["label"] for r in rows], make_tokenizer())


def fit(objective, steps, accelerator=None):
    """Train as anyone would, with `textadv.backward` for `loss.backward`."""
    data = encode(200)
    model = tiny_model("bert", num_labels=2, **NO_DROPOUT).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    forward = model if accelerator is None else accelerator.prepare(model)
    port = textadv.wrap(model, forward=forward)
    for step in range(steps):
        batch = data.batch([(step * 16 + i) % 200 for i in range(16)])
        generator = torch.Generator().manual_seed(step)
        textadv.backward(objective, port, batch, accelerator, generator=generator)
        optimizer.step()
        optimizer.zero_grad()
    return port


def accuracy_under_attack(port):
    batch = encode(100, 5).batch(range(100))
    delta = PGD(epsilon=0.2, num_steps=5)(port, batch)
    port.model.eval()
    with torch.no_grad():
        return (port.logits(batch, delta).argmax(-1) == batch["labels"]).float().mean().item()


def test_training_under_attack_resists_attack():
    adversarial = Adversarial(perturbation=PGD(epsilon=0.2, num_steps=2))
    assert accuracy_under_attack(fit(adversarial, 100)) > 0.1 + accuracy_under_attack(
        fit(Clean(), 100)
    )


def test_an_accelerator_changes_nothing():
    objective = Adversarial(perturbation=PGD(epsilon=0.2, num_steps=2, init="uniform"))
    plain, prepared = fit(objective, 3), fit(objective, 3, Accelerator(cpu=True))
    for left, right in zip(plain.model.parameters(), prepared.model.parameters(), strict=True):
        assert torch.equal(left, right)
