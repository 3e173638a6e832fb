"""Victims around a victim, and text attacks run again on a few examples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from textadv.attacks import run
from textadv.attacks.base import Attack, Example
from textadv.attacks.records import Record
from textadv.audit.finding import NotRunnableError
from textadv.audit.probe import Probe
from textadv.seeding import derive
from textadv.victim import Victim
from textadv.words import Words

__all__ = ["Blind", "Counting", "Fragile", "Scaled", "TextProbe", "lattice"]

FRAGILE = 20


class _Around:
    """A victim that asks another one; what the other can do besides, it can."""

    def __init__(self, victim: Victim) -> None:
        self.victim = victim

    def __getattr__(self, name: str) -> Any:
        return getattr(self.victim, name)

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return what the victim answers."""
        return self.victim.logits(texts)


class Counting(_Around):
    """Remember the distinct texts that were asked about."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.texts: set[tuple[str, ...]] = set()

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Note the texts and pass them on."""
        self.texts.update(texts)
        return self.victim.logits(texts)


class Scaled(_Around):
    """Multiply all logits, which changes no prediction."""

    def __init__(self, victim: Victim, factor: float) -> None:
        super().__init__(victim)
        self.factor = factor

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return scaled logits."""
        return self.factor * self.victim.logits(texts)


class Blind(_Around):
    """Hide how near a text is to flipping, and show only whether it did.

    A search that is guided by these scores tries the same candidates in a random order.
    """

    def __init__(self, victim: Victim, seed: int) -> None:
        super().__init__(victim)
        self.seed = seed

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return the right prediction of every text with a random margin."""
        found = self.victim.logits(texts)
        rows = torch.zeros_like(found)
        for row, text in enumerate(texts):
            size = 1 + (derive(self.seed, "blind", *text) % 1000) / 1000
            rows[row, int(found[row].argmax())] = size
        return rows


class Fragile:
    """Answer with their label on the texts it was given, and with another on any other text.

    Args:
        examples: All of one label.
        num_labels: Classes.
    """

    def __init__(self, examples: Sequence[Example], num_labels: int) -> None:
        self.labels = {example.words.texts: example.label for example in examples}
        self.num_labels = num_labels

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return one row per text."""
        rows = [self.labels.get(text) for text in texts]
        if len(gold := set(self.labels.values())) != 1:
            raise ValueError(f"examples of {len(gold)} labels")
        other = (gold.pop() + 1) % self.num_labels
        answers = torch.tensor([other if label is None else label for label in rows])
        return torch.nn.functional.one_hot(answers, self.num_labels).float()


class TextProbe:
    """A text attack of a subject, run again under other conditions.

    Args:
        probe: What the rules share; make one with `TextProbe.of`, so that its runs are shared too.
        name: The attack; the first of the claim by default.
    """

    def __init__(self, probe: Probe, name: str | None = None) -> None:
        self.probe, self.subject, self.config = probe, probe.subject, probe.config
        if not self.subject.attacks:
            raise NotRunnableError("no text attack is part of the claim")
        self.name = name if name is not None else next(iter(self.subject.attacks))

    @classmethod
    def of(cls, probe: Probe, name: str | None = None) -> TextProbe:
        """Return the probe of an attack, the same one for every rule that asks."""
        made = cls(probe, name)
        found: TextProbe = probe.shared.setdefault(f"text attack {made.name}", made)
        return found

    @property
    def attack(self) -> Attack:
        """That attack."""
        return self.subject.attacks[self.name]

    @property
    def budget(self) -> int | None:
        """Its query budget."""
        return self.subject.budgets.get(self.name)

    @functools.cached_property
    def examples(self) -> list[Example]:
        """The examples it is run on again: some that it was run on and that were right before."""
        own = {
            record.id
            for record in self.subject.records
            if record.attack == self.name and record.status != "wrong_before"
        }
        return self._drawn([one for one in self.subject.examples if one.id in own or not own])

    @functools.cached_property
    def sample(self) -> list[Example]:
        """Examples for what no record decides: those, and others where few were left to it."""
        own = {example.id for example in self.examples}
        others = self._drawn([one for one in self.subject.examples if one.id not in own])
        return [*self.examples, *others][: self.config.num_texts]

    def _drawn(self, examples: list[Example]) -> list[Example]:
        found = sorted(examples, key=lambda one: derive(self.config.seed, "texts", one.id))
        return found[: self.config.num_texts]

    @functools.cached_property
    def again(self) -> tuple[list[Record], list[int]]:
        """New records, one per example, and the distinct texts the victim saw for each."""
        records, seen = [], []
        for example in self.examples:
            victim = Counting(self.subject.victim)
            records += self.run(victim, [example], cache_size=0)
            seen.append(len(victim.texts))
        return records, seen

    def run(
        self,
        victim: Victim,
        examples: Sequence[Example] | None = None,
        *,
        budget: int | None = -1,
        cache_size: int = 16384,
    ) -> list[Record]:
        """Run the attack on a victim and return the records in the order of the examples."""
        chosen = self.examples if examples is None else examples
        found = {
            record.id: record
            for record in run(
                {self.name: self.attack},
                victim,
                chosen,
                query_budget=self.budget if budget == -1 else budget,
                seed=self.subject.seed,
                cache_size=cache_size,
            )
        }
        return [found[example.id] for example in chosen]

    def standing(self, victim: Victim) -> int:
        """Return how many examples the attack does not flip."""
        return sum(record.status != "flipped" for record in self.run(victim))

    @functools.cached_property
    def fragile(self) -> list[Record]:
        """Records of the attack on a victim that any change flips."""
        size = self.probe.victim_logits.shape[1]
        alike = [dataclasses.replace(example, label=0) for example in self.sample[:FRAGILE]]
        return self.run(Fragile(alike, size), alike)


def lattice(attack: Attack, words: Words) -> Mapping[int, Sequence[str]] | None:
    """Return candidates by position, None for attacks that cannot say without asking a model."""
    asks = getattr(attack, "source", "") == "masked-lm"
    method = None if asks else getattr(attack, "lattice", None)
    found = method(words) if method is not None else None
    return found if isinstance(found, Mapping) else None
