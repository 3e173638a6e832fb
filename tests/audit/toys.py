"""Toy models, trained in a second, and subjects of an audit made of them."""

from __future__ import annotations

import functools
import random
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tests.models import WORDS, make_tokenizer
from textadv.attacks import Example
from textadv.attacks.examples import make_examples
from textadv.audit import AuditConfig, Subject, subject_of_model
from textadv.batching import Encoded
from textadv.embeddings import EmbeddingPort
from textadv.perturb import PGD
from textadv.testing import tiny_model
from textadv.victim import ModelVictim

CONFIG = AuditConfig(
    num_examples=60, num_texts=20, ladder_examples=40, noise_draws=20, search_queries=60
)
TONES = [
    ["good", "great", "fine", "superb", "lovely"],
    ["bad", "awful", "poor", "dull", "boring"],
    ["one", "two", "three", "four", "five"],
]
PLAIN = WORDS[:15]


def rows(count: int, classes: int = 2, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return texts whose class is the tone that most of their words have."""
    source = random.Random(f"zoo-{seed}-{classes}")
    texts, labels = [], []
    for _ in range(count):
        label = source.randrange(classes)
        words = source.choices(PLAIN, k=source.randrange(4, 8))
        for tone in [label] * source.randrange(2, 4) + [source.randrange(classes)]:
            words.insert(source.randrange(len(words)), source.choice(TONES[tone]))
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


class ToyNet(nn.Module):
    """A small classifier over word embeddings; `flaw` changes what the forward pass does."""

    def __init__(self, kind: str = "mean", classes: int = 2, flaw: str = "") -> None:
        super().__init__()
        from transformers import PretrainedConfig

        self.kind, self.flaw = kind, flaw
        self.word = nn.Embedding(40, 16)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.convolution = nn.Conv1d(16, 16, 3, padding=1)
        self.hidden = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, classes))
        self.config = PretrainedConfig(
            num_labels=classes, problem_type="single_label_classification", vocab_size=40
        )
        self.config.pad_token_id, self.config.bos_token_id, self.config.eos_token_id = 0, 1, 2

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word

    def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        states = self.word(input_ids)
        if self.flaw == "rounded":
            states = torch.round(states * 4) / 4
        if self.flaw == "detached":
            states = states.detach()
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        if self.kind == "gru":
            states = self.gru(states)[0]
        if self.kind == "convolution":
            states = torch.relu(self.convolution((states * mask).transpose(1, 2))).transpose(1, 2)
        if self.kind == "max":
            pooled = states.masked_fill(mask == 0, -1e4).amax(1)
        elif self.flaw == "padding":
            pooled = states.mean(1)
        else:
            pooled = (states * mask).sum(1) / mask.sum(1)
        if self.flaw == "dropout":
            pooled = nn.functional.dropout(pooled, 0.3, training=True)
        logits = self.hidden(pooled)
        if self.flaw == "noise":
            logits = logits + 0.0 * torch.randn_like(logits)
        if self.flaw == "autograd":
            with torch.enable_grad():
                probe = logits.detach().requires_grad_()
                torch.autograd.grad(probe.sum(), probe)
        if self.flaw == "saturated":
            logits = 1e4 * logits
        if self.flaw == "scaled":
            logits = 200 * logits
        if self.flaw == "probabilities":
            logits = logits.softmax(1)
        if self.flaw == "constant":
            logits = 0.01 * logits + torch.tensor([9.0] + [0.0] * (logits.shape[1] - 1))
        return SimpleNamespace(logits=logits)


@functools.cache
def trained(kind: str = "mean", classes: int = 2, seed: int = 0, *, robust: bool = False) -> Any:
    """Return a trained model; `robust` trains it under PGD."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind in ("mean", "max", "gru", "convolution"):
            model: Any = ToyNet(kind, classes)
        else:
            model = tiny_model(kind, num_labels=classes, seed=seed)
            for parameter in model.parameters():
                parameter.data.mul_(0.5 if parameter.ndim > 1 else 1.0)
        texts, labels = rows(400, classes, seed=1)
        data = Encoded([(text,) for text in texts], labels, make_tokenizer(), max_length=32)
        steps, rate = (160, 0.02) if isinstance(model, ToyNet) else (60, 0.004)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        port = EmbeddingPort(model, make_tokenizer())
        attack = PGD(norm="l2", epsilon=0.6, num_steps=2)
        for step in range(steps):
            batch = data.batch([(32 * step + i) % 400 for i in range(32)])
            delta = attack(port, batch) if robust else None
            optimizer.zero_grad()
            port.loss(port.logits(batch, delta), batch).mean().backward()
            optimizer.step()
    return model.eval()


def victim_of(model: Any, **options: Any) -> ModelVictim:
    return ModelVictim(model, make_tokenizer(), device="cpu", **options)


def examples(classes: int = 2, count: int = 120) -> list[Example]:
    return make_examples(*rows(count, classes, seed=2))


def subject(model: Any = None, *, classes: int = 2, **fields: Any) -> Subject:
    """Return an honest subject, with whatever is given in place of it."""
    model = trained() if model is None else model
    texts, _ = rows(200, classes, seed=1)
    evidence = {"train_texts": texts, "ratings": [True] * 60, **fields}
    return subject_of_model(
        evidence.pop("victim", None) or victim_of(model),
        evidence.pop("examples", None) or examples(classes),
        attacks=evidence.pop("attacks", ("deepwordbug",)),
        query_budget=evidence.pop("query_budget", None),
        model="toy",
        **evidence,
    )


OTHER: dict[str, Any] = {"kind": "convolution", "classes": 3, "seed": 7, "robust": True}
"""The model that the second specimen of most rules is made of."""


@functools.cache
def honest(*, other: bool = False) -> Subject:
    """Return the honest subject that most flaws are planted in, or another one."""
    return subject(trained(**OTHER), classes=3) if other else subject()


def flawed_net(flaw: str, *, other: bool = False) -> ToyNet:
    """Return a trained model with a flaw put into its forward pass."""
    sound = trained(**OTHER) if other else trained()
    model = ToyNet(sound.kind, sound.config.num_labels, flaw)
    model.load_state_dict(sound.state_dict())
    return model.eval()


def flawed(flaw: str, *, other: bool = False, **fields: Any) -> Subject:
    """Return a subject whose model has a flaw."""
    return subject(flawed_net(flaw, other=other), classes=3 if other else 2, **fields)
