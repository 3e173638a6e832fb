"""Honest toy models, and flaws planted in models, attacks and claims."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tests.models import WORDS, make_tokenizer
from textadv.attacks import Example
from textadv.attacks.base import Search
from textadv.attacks.chars import one_typo_each
from textadv.attacks.constraints import attackable
from textadv.attacks.deepwordbug import DeepWordBug
from textadv.attacks.examples import make_examples
from textadv.audit import AuditConfig, Subject, subject_of_model
from textadv.batching import Encoded
from textadv.embeddings import EmbeddingPort
from textadv.evaluate import EvaluationConfig, evaluate_attacks
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


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A subject, and for a planted flaw the rule that must catch it."""

    name: str
    make: Callable[[], Subject]
    rule: str = ""


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


@functools.cache
def honest() -> Subject:
    """Return the honest subject that most flaws are planted in."""
    return subject()


def flawed_net(flaw: str, **fields: Any) -> Subject:
    """Return a trained model with a flaw put into its forward pass."""
    model = ToyNet("mean", 2, flaw)
    model.load_state_dict(trained().state_dict())
    return subject(model.eval(), **fields)


# Honest models: kinds, numbers of classes, seeds, with and without adversarial training.

HONEST = [
    Specimen(f"{kind}-{classes}{'-robust' if robust else ''}-{seed}", functools.partial(
        lambda kind, classes, seed, robust: subject(
            trained(kind, classes, seed, robust=robust), classes=classes
        ),
        kind, classes, seed, robust,
    ))
    for kind, classes, seed, robust in [
        ("mean", 2, 0, False),
        ("mean", 2, 1, True),
        ("max", 2, 2, False),
        ("convolution", 2, 3, False),
        ("gru", 2, 4, False),
        ("gru", 3, 5, True),
        ("mean", 3, 6, True),
        ("convolution", 3, 7, True),
        ("max", 3, 12, False),
        ("bert", 2, 8, False),
        ("distilbert", 2, 9, False),
        ("roberta", 3, 10, False),
    ]
]  # fmt: skip


# Flaws of gradient attacks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descend(PGD):
    """Goes the wrong way."""

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        return super().ascend(z, -grad, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idle(PGD):
    """Does not move."""

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        return z


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPadding(PGD):
    """Moves everything but the words."""

    def start(self, embeds: Any, mask: Any, generator: Any) -> Any:
        return super().start(embeds, ~mask, generator)

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        return super().ascend(z, grad, ~mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TooFar(PGD):
    """Leaves the ball by half."""

    def finish(self, z: Any, mask: Any) -> Any:
        return 1.5 * z


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overshoot(PGD):
    """Turns back in its last step."""

    def finish(self, z: Any, mask: Any) -> Any:
        return -z


def attacked_by(kind: type[PGD], **fields: Any) -> Subject:
    options = {"norm": "l2", "epsilon": 0.3, "num_steps": 20, "loss": "margin", **fields}
    return dataclasses.replace(honest(), perturbation=kind(**options))


# Flaws of text attacks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoCandidates(DeepWordBug):
    """Proposes nothing."""

    def search(self, example: Example, rng: random.Random) -> Search:
        yield []
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unchecked(DeepWordBug):
    """States a distance and does not keep it."""

    max_distance: int = 1

    def search(self, example: Example, rng: random.Random) -> Search:
        return (yield from DeepWordBug(max_distance=99).search(example, rng))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backwards(DeepWordBug):
    """Keeps the typo that helps the model most."""

    def search(self, example: Example, rng: random.Random) -> Search:
        current = example.words
        for at in attackable(current):
            candidates = [
                current.replace(at, typo) for typo in one_typo_each(current.words[at], rng)
            ]
            scores = yield candidates
            margins = example.margins(scores)
            best = max(range(len(margins)), key=margins.__getitem__)
            if margins[best] < 0:
                return candidates[best]
            if margins[best] > example.clean_margin:
                current = candidates[best]
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByProbability(DeepWordBug):
    """Follows probabilities, which saturate, instead of margins."""

    def search(self, example: Example, rng: random.Random) -> Search:
        current, best = example.words, float(example.clean.softmax(0)[example.label])
        for at in attackable(current):
            candidates = [
                current.replace(at, typo) for typo in one_typo_each(current.words[at], rng)
            ]
            scores = yield candidates
            found = scores.float().softmax(1)[:, example.label].tolist()
            place = min(range(len(found)), key=found.__getitem__)
            if example.flips(scores)[place]:
                return candidates[place]
            if found[place] < best - 1e-3:
                current, best = candidates[place], found[place]
        return None


def with_attack(attack: Any, model: Any = None) -> Subject:
    """Return a claim made with an attack that is in no table."""
    own = victim_of(trained() if model is None else model)
    config = EvaluationConfig(num_examples=120, query_budget=None)
    report = evaluate_attacks(own, examples(), config, attacks={"own": attack})
    return dataclasses.replace(
        honest() if model is None else subject(model),
        attacks={"own": attack},
        budgets={"own": None},
        records=report.records,
        report=report,
    )


# Flaws of victims.


class Short:
    """Reads the first three words alone, and does not say so."""

    def __init__(self, victim: ModelVictim) -> None:
        self.victim = victim

    def logits(self, texts: Any) -> Any:
        return self.victim.logits([(" ".join(text[0].split()[:3]),) for text in texts])


class Failing:
    """Fails on some texts."""

    def __init__(self, victim: ModelVictim) -> None:
        self.victim = victim

    def logits(self, texts: Any) -> Any:
        if any("story" in text[0] for text in texts):
            raise RuntimeError("out of luck")
        return self.victim.logits(texts)


# Flaws of claims.


def another_models_records() -> Subject:
    """The records are those of another model, as a stale cache leaves them."""
    other = subject(trained("gru", 2, 4))
    return dataclasses.replace(honest(), records=other.records, report=other.report)


def fewer_queries() -> Subject:
    own = honest()
    records = [
        dataclasses.replace(
            r, num_queries=r.num_queries // 3, num_unique_queries=r.num_unique_queries // 3
        )
        for r in own.records
    ]
    return dataclasses.replace(own, records=records)


def contaminated() -> Subject:
    own = honest()
    leaked = [example.words.texts[0].upper() + " ." for example in own.examples[:20]]
    return dataclasses.replace(own, train_texts=[*(own.train_texts or ()), *leaked])


def static_set() -> Subject:
    own = honest()
    records = [
        dataclasses.replace(r, num_queries=1, num_unique_queries=1) if r.adversarial_text else r
        for r in own.records
    ]
    return dataclasses.replace(own, records=records)


def best_case() -> Subject:
    """The headline is the easiest of two attacks."""
    own = subject(
        attacks=("deepwordbug", {"name": "deepwordbug", "alias": "one", "max_distance": 1})
    )
    best = max(a.accuracy_under_attack for a in own.report.attacks.values())
    worst = {**own.report.worst_case, "accuracy": best}
    return dataclasses.replace(own, report=dataclasses.replace(own.report, worst_case=worst))


FLAWS = [
    Specimen("rounded embeddings", lambda: flawed_net("rounded"), "A4"),
    Specimen("detached graph", lambda: flawed_net("detached"), "A4"),
    Specimen("gradients dead, seen by transfer", lambda: flawed_net("rounded"), "A9"),
    Specimen("gradients dead, seen by search", lambda: flawed_net("rounded"), "A8"),
    Specimen("wrong sign", lambda: attacked_by(Descend), "A7"),
    Specimen("wrong sign, seen by the self-test", lambda: attacked_by(Descend), "A16"),
    Specimen("no-op attack", lambda: attacked_by(Idle), "A5"),
    Specimen("no-op attack without a bound", lambda: attacked_by(Idle), "A6"),
    Specimen("padding only", lambda: attacked_by(OnPadding), "A5"),
    Specimen("tiny steps", lambda: attacked_by(PGD, step_size=1e-4), "A5"),
    Specimen("outside the ball", lambda: attacked_by(TooFar), "A5"),
    Specimen("too few steps", lambda: attacked_by(PGD, num_steps=2, step_size=0.06), "A13"),
    Specimen("last iterate kept", lambda: attacked_by(Overshoot), "A14"),
    Specimen(
        "saturated logits",
        lambda: flawed_net("saturated", perturbation=PGD(epsilon=0.3, num_steps=20)),
        "A10",
    ),
    Specimen(
        "saturated logits, seen by temperature",
        lambda: flawed_net("saturated", perturbation=PGD(epsilon=0.3, num_steps=20)),
        "A11",
    ),
    Specimen("dropout left on", lambda: flawed_net("dropout"), "A1"),
    Specimen("probabilities", lambda: flawed_net("probabilities"), "A2"),
    Specimen("constant model", lambda: flawed_net("constant"), "A3"),
    Specimen("autograd in the forward pass", lambda: flawed_net("autograd"), "A28"),
    Specimen("random numbers in the forward pass", lambda: flawed_net("noise"), "A28"),
    Specimen(
        "logits scaled under a search by probabilities",
        lambda: with_attack(ByProbability(), _scaled()),
        "A11",
    ),
    Specimen("no candidates", lambda: with_attack(NoCandidates()), "A19"),
    Specimen("no candidates, seen by the self-test", lambda: with_attack(NoCandidates()), "A16"),
    Specimen("constraint accepts all", lambda: with_attack(Unchecked()), "A20"),
    Specimen("search goes backwards", lambda: with_attack(Backwards()), "A17"),
    Specimen("small query budget", lambda: subject(query_budget=12), "A18"),
    Specimen("truncation", lambda: subject(victim=Short(victim_of(trained()))), "A22"),
    Specimen("errors", lambda: subject(victim=Failing(victim_of(trained()))), "A25"),
    Specimen("cached scores of another model", another_models_records, "A21"),
    Specimen("outcomes of another model", another_models_records, "A30"),
    Specimen("queries not counted", fewer_queries, "A29"),
    Specimen("contaminated test set", contaminated, "A23"),
    Specimen("static set", static_set, "A24"),
    Specimen("headline is the best case", best_case, "A15"),
    Specimen("too few examples", lambda: subject(examples=examples(count=40)), "A26"),
    Specimen(
        "invalid successes",
        lambda: dataclasses.replace(honest(), ratings=[True] * 15 + [False] * 45),
        "A27",
    ),
    Specimen(
        "collapsed in adversarial training",
        lambda: subject(trained("distilbert", 2, 9, robust=True)),
        "A3",
    ),
]


def _scaled() -> ToyNet:
    model = ToyNet("mean", 2, "scaled")
    model.load_state_dict(trained().state_dict())
    return model.eval()
