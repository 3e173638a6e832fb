"""A model without dropout in float64, its gradients, and a hook written out by hand."""

from __future__ import annotations

import contextlib

import torch

import textadv
from tests.batches import full_batch
from textadv.testing import tiny_model

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make(architecture="bert", dtype=torch.float64, dropout=False, **settings):
    """Return a port and a ragged batch."""
    plain = {} if dropout or architecture != "bert" else NO_DROPOUT
    model = tiny_model(architecture, **plain, **settings).to(dtype)
    model.train(dropout or architecture == "bert")
    return textadv.wrap(model), full_batch(model)


def gradients(port, objective, batch, seed=0):
    """Return the gradients of one call of `backward`, and its log."""
    port.model.zero_grad()
    log = textadv.backward(objective, port, batch, generator=torch.Generator().manual_seed(seed))
    return collect(port.model), log


def collect(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(left, right, tolerance=1e-10):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(
            left[name],
            right[name],
            rtol=tolerance,
            atol=tolerance,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@contextlib.contextmanager
def adding(port, delta):
    """Add `delta` to the word embeddings, with a hook of our own."""
    layer = port.model.get_submodule(port.site)
    handle = layer.register_forward_hook(lambda module, args, out: out + delta)
    try:
        yield
    finally:
        handle.remove()


def forward(port, batch, delta=None, ids=None):
    """Return logits without the port."""
    inputs = {"input_ids": batch["input_ids"] if ids is None else ids}
    inputs["attention_mask"] = batch["attention_mask"]
    with adding(port, 0.0 if delta is None else delta):
        return port.model(**inputs).logits


def word_mask(batch):
    """Return 1 for ordinary tokens, (B, L, 1), float64."""
    real = batch["attention_mask"] * (1 - batch["special_tokens_mask"])
    return real.double().unsqueeze(-1)


def cross_entropy(logits, batch):
    return torch.nn.functional.cross_entropy(logits, batch["labels"])


def kl(p_logits, q_logits):
    """Return KL(p || q) of each text from probabilities."""
    p, q = p_logits.softmax(-1), q_logits.softmax(-1)
    return (p * (p / q).log()).sum(-1)


def symmetric_kl(left, right):
    return kl(left, right) + kl(right, left)


def noise(port, batch, kind, seed=0):
    """Return the raw draws of a start, as the generator gives them first."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch["input_ids"].shape, port.dim)
    empty = torch.zeros(shape, dtype=torch.float64)
    if kind == "uniform":
        return empty.uniform_(-1, 1, generator=generator)
    return empty.normal_(generator=generator)
