"""Flaws planted in attacks, victims and claims."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, ClassVar

import torch

from tests.audit.toys import OTHER, PLAIN, TONES, examples, honest, subject, trained, victim_of
from textadv.attacks import Example
from textadv.attacks.base import NoCandidatesError, Search
from textadv.attacks.chars import one_typo_each
from textadv.attacks.constraints import attackable
from textadv.attacks.deepwordbug import DeepWordBug
from textadv.attacks.search import greedy
from textadv.audit import Subject
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.perturb import PGD
from textadv.victim import ModelVictim
from textadv.words import Words

# Gradient attacks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descend(PGD):
    """Goes the wrong way."""

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        return super().ascend(z, -grad, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stray(PGD):
    """Goes anywhere."""

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        noise = torch.randn(grad.shape, generator=torch.Generator().manual_seed(z.numel()))
        return super().ascend(z, noise, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idle(PGD):
    """Does not move."""

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        return z


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdleOnSome(PGD):
    """Does not move texts of an even number of words."""

    def ascend(self, z: Any, grad: Any, mask: Any) -> Any:
        odd = (mask.sum(1) % 2).to(z.dtype).view(-1, 1, 1)
        return odd * super().ascend(z, grad, mask)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shrink(PGD):
    """Returns a third of what it found."""

    def finish(self, z: Any, mask: Any) -> Any:
        return z / 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shy(PGD):
    """Gives up in balls of more than `limit`."""

    limit: float = 1.0

    def finish(self, z: Any, mask: Any) -> Any:
        return z if (self.epsilon or 0) <= self.limit else 0 * z


def attacked_by(kind: type[PGD], *, other: bool = False, **fields: Any) -> Subject:
    """Return an honest subject under a gradient attack of this kind."""
    options = {"norm": "l2", "epsilon": 0.3, "num_steps": 20, "loss": "margin", **fields}
    return dataclasses.replace(honest(other=other), perturbation=kind(**options))


# Text attacks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoCandidates(DeepWordBug):
    """Proposes nothing."""

    def search(self, example: Example, rng: random.Random) -> Search:
        yield []
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewCandidates(DeepWordBug):
    """Knows one word in a dozen texts."""

    def search(self, example: Example, rng: random.Random) -> Search:
        if "superb" not in example.words.words:
            raise NoCandidatesError
        return (yield from super().search(example, rng))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unchecked(DeepWordBug):
    """States a distance and does not keep it."""

    max_distance: int = 1

    def search(self, example: Example, rng: random.Random) -> Search:
        return (yield from DeepWordBug(max_distance=99).search(example, rng))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OffTheLattice(DeepWordBug):
    """States synonyms and uses words of the other tone."""

    def lattice(self, words: Words) -> dict[int, list[str]]:
        return {
            at: [other for other in tone if other != words.words[at]]
            for at in attackable(words)
            for tone in [PLAIN, *TONES]
            if words.words[at] in tone
        }

    def search(self, example: Example, rng: random.Random) -> Search:
        def propose(words: Words, index: int) -> list[Words]:
            return [words.replace(index, word) for tone in TONES for word in tone]

        return (yield from greedy(example, attackable(example.words), propose))


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unseeded(DeepWordBug):
    """Gives up on half of the texts, drawn from one stream that goes on from text to text."""

    stream: ClassVar[random.Random] = random.Random()

    def search(self, example: Example, rng: random.Random) -> Search:
        if self.stream.random() < 0.5:
            return None
        return (yield from super().search(example, rng))


def unseeded() -> Subject:
    """Return a claim whose searches share their random stream."""
    Unseeded.stream.seed(0)
    return with_attack(Unseeded(), other=True)


def with_attack(attack: Any, model: Any = None, *, other: bool = False) -> Subject:
    """Return a claim made with an attack that is in no table."""
    plain = model is None
    model = (trained(**OTHER) if other else trained()) if plain else model
    classes = int(model.config.num_labels)
    config = EvaluationConfig(num_examples=120, query_budget=None)
    report = evaluate_attacks(victim_of(model), examples(classes), config, attacks={"own": attack})
    return dataclasses.replace(
        honest(other=other) if plain else subject(model, classes=classes),
        attacks={"own": attack},
        budgets={"own": None},
        records=report.records,
        report=report,
    )


# Victims.


class Short:
    """Reads the first words alone, and does not say so."""

    def __init__(self, victim: ModelVictim, length: int) -> None:
        self.victim, self.length = victim, length

    def logits(self, texts: Any) -> Any:
        return self.victim.logits([(" ".join(text[0].split()[: self.length]),) for text in texts])


class Failing:
    """Fails on texts with a word."""

    def __init__(self, victim: ModelVictim, word: str) -> None:
        self.victim, self.word = victim, word

    def logits(self, texts: Any) -> Any:
        if any(self.word in text[0].split() for text in texts):
            raise RuntimeError("out of luck")
        return self.victim.logits(texts)


# Claims.


def another_models_records(share: float = 1.0) -> Subject:
    """Return records some of which are another model's, as a stale cache leaves them."""
    own, other = honest(), subject(trained("gru", 2, 4))
    ids = [example.id for example in own.examples]
    stale = set(ids[: round(share * len(ids))])
    records = [r for r in other.records if r.id in stale]
    records += [r for r in own.records if r.id not in stale]
    return dataclasses.replace(own, records=records, report=other.report)


def fewer_queries(share: float, *, other: bool = False) -> Subject:
    """Return records that count a share of the queries."""
    own = honest(other=other)
    records = [
        dataclasses.replace(
            r,
            num_queries=int(share * r.num_queries),
            num_unique_queries=int(share * r.num_unique_queries),
        )
        for r in own.records
    ]
    return dataclasses.replace(own, records=records)


def contaminated(count: int, *, other: bool = False) -> Subject:
    """Return a subject with some of its examples in the training data, in capitals."""
    own = honest(other=other)
    leaked = [example.words.texts[0].upper() + " ." for example in own.examples[:count]]
    return dataclasses.replace(own, train_texts=[*(own.train_texts or ()), *leaked])


def static_set(every: int = 1, *, other: bool = False) -> Subject:
    """Return records some successes of which no search on this model found."""
    own = honest(other=other)
    records = [
        dataclasses.replace(r, num_queries=1, num_unique_queries=1)
        if r.adversarial_text and not row % every
        else r
        for row, r in enumerate(own.records)
    ]
    return dataclasses.replace(own, records=records)


def best_case() -> Subject:
    """Return a claim whose headline is the easiest of two attacks."""
    own = subject(
        attacks=("deepwordbug", {"name": "deepwordbug", "alias": "one", "max_distance": 1})
    )
    best = max(a.accuracy_under_attack for a in own.report.attacks.values())
    worst = {**own.report.worst_case, "accuracy": best}
    return dataclasses.replace(own, report=dataclasses.replace(own.report, worst_case=worst))


def one_flip_forgotten() -> Subject:
    """Return a report that counts one flip as survived, which its records deny."""
    own = honest(other=True)
    ((name, result),) = own.report.attacks.items()
    counts = dict(result.counts)
    counts["flipped"] -= 1
    counts["survived"] += 1
    better = dataclasses.replace(
        result, counts=counts, accuracy_under_attack=counts["survived"] / own.report.num_examples
    )
    report = dataclasses.replace(own.report, attacks={name: better}, worst_case=None)
    return dataclasses.replace(own, report=report)
