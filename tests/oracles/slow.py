"""What slow, literal attacks share: one text at a time, strings and lists, nothing of textadv."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.oracles import toy
from tests.oracles.attacks import Expected, _synonyms
from textadv.resources import STOPWORDS

GRID = 2.0**-10
FINE_GRID = 2.0**-14
COSINE_GRID = 2.0**-12
LOGIT_GRID = 2.0**-9

Fields = Mapping[str, Any]
Tokens = list[tuple[str, int]]
"""Words with the index of the original word each stands for, -1 for inserted ones."""


class BudgetError(Exception):
    pass


class FoundError(Exception):
    """Ends the attack with a text."""

    def __init__(self, text: str) -> None:
        self.text = text


@dataclasses.dataclass
class Slow:
    """Ask about one text at a time and count."""

    scores: Callable[[list[str]], list[list[float]]]
    text: str
    label: int
    fields: Fields
    rng: random.Random
    budget: int | None
    count: int = 0
    exhausted: bool = False

    def __post_init__(self) -> None:
        self.words = self.text.split(" ")
        self.spread = 1.0
        row = self.logits(self.text)
        self.spread = (max(row) - min(row)) or 1.0
        self.wrong = self.flips(row)
        self.clean = self.margin(row)

    def logits(self, text: str) -> list[float]:
        if self.budget is not None and self.count >= self.budget:
            raise BudgetError
        self.count += 1
        return self.scores([text])[0]

    def margin(self, row: Sequence[float]) -> float:
        others = [value for at, value in enumerate(row) if at != self.label]
        return round((row[self.label] - max(others)) / self.spread / GRID) * GRID

    def flips(self, row: Sequence[float]) -> bool:
        return list(row).index(max(row)) != self.label

    def ask(self, texts: Iterable[str]) -> list[float]:
        """Return margins; out of budget at once when not all can be paid for."""
        return [self.margin(self.logits(text)) for text in texts]

    def try_all(
        self, texts: Sequence[str], closeness: Sequence[float] | None = None, raises: bool = True
    ) -> list[float]:
        """Return margins, or end with the closest of the texts that flip among those paid for."""
        margins: list[float] = []
        flipped: list[tuple[float, float, int]] = []
        for at, text in enumerate(texts):
            try:
                row = self.logits(text)
            except BudgetError:
                if flipped:
                    break
                if raises:
                    raise
                self.exhausted = True
                margins += [float("inf")] * (len(texts) - at)
                break
            margins.append(self.margin(row))
            if self.flips(row):
                flipped.append((-closeness[at] if closeness else 0.0, margins[-1], at))
        if flipped:
            raise FoundError(texts[min(flipped)[2]])
        return margins


def oracle(function: Callable[[Slow], str | None]) -> Callable[..., Expected]:
    """Turn a literal attack into a function that returns what the engine must report."""

    def run(
        scores: Any, text: str, label: int, fields: Fields, rng: random.Random, budget: int | None
    ) -> Expected:
        slow = Slow(scores, text, label, fields, rng, budget)
        if slow.wrong:
            return Expected("wrong_before", num_queries=slow.count)
        try:
            found = function(slow)
        except FoundError as end:
            found = end.text
        except BudgetError:
            return Expected("survived", "budget", None, slow.count)
        except LookupError:
            return Expected("unresolved", "no_candidates", None, slow.count)
        if found is None:
            return Expected("survived", "budget" if slow.exhausted else "", None, slow.count)
        return Expected("flipped", "", found, slow.count)

    return run


def with_word(words: Sequence[str], at: int, word: str) -> str:
    return " ".join([*words[:at], word, *words[at + 1 :]])


def is_stop(word: str) -> bool:
    return word.lower() in STOPWORDS


def cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


def lattice(text: str, fields: Fields) -> dict[int, list[str]]:
    """Return candidates by position from vectors, sememes or the masked model."""
    words, limit = text.split(" "), fields["max_candidates"]
    source = fields["source"]
    if source == "vectors":
        return _synonyms(text, fields)
    found = {}
    for at, word in enumerate(words):
        if is_stop(word):
            continue
        if source == "sememes":
            names = same_sememes(word.lower(), fields["sememes"])
        else:
            names = guessed(fields["masked_lm"], text, at, limit)
        kept: list[str] = []
        for name in (cased(name, word) for name in names):
            if name.lower() != word.lower() and name not in kept:
                kept.append(name)
        if kept:
            found[at] = kept[:limit]
    return found


def same_sememes(word: str, path: str) -> list[str]:
    table = json.loads(Path(path).read_text())
    found: list[str] = []
    for sense in table.get(word, []):
        for other, senses in table.items():
            if other != word and other not in found and set(sense) in map(set, senses):
                found.append(other)
    return found


@functools.cache
def model(path: str, kind: str) -> tuple[Any, Any]:
    import transformers

    loaded = getattr(transformers, kind).from_pretrained(path, dtype=torch.float32).eval()
    return loaded, transformers.AutoTokenizer.from_pretrained(path)


@functools.cache
def masked_logits(path: str, ids: tuple[int, ...]) -> list[list[float]]:
    loaded, _ = model(path, "AutoModelForMaskedLM")
    with torch.no_grad():
        logits = loaded(input_ids=torch.tensor([ids])).logits[0]
    return (torch.round(logits / LOGIT_GRID) * LOGIT_GRID).tolist()


def top(row: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(row)), key=lambda at: (-row[at], at))[:count]


def fill(path: str, text: str, count: int) -> list[tuple[str, float]]:
    """Return the whole words among the best tokens for the one `[MASK]` of a text."""
    _, tokenizer = model(path, "AutoModelForMaskedLM")
    ids = tokenizer(text)["input_ids"]
    row = masked_logits(path, tuple(ids))[ids.index(tokenizer.mask_token_id)]
    chances = torch.softmax(torch.tensor(row), dim=0).tolist()
    names = tokenizer.convert_ids_to_tokens(list(range(len(row))))
    special = tokenizer.all_special_ids
    best = [at for at in top(row, count) if names[at].isalpha() and at not in special]
    return [(names[at], chances[at]) for at in best]


@functools.cache
def guessed(path: str, text: str, at: int, count: int) -> list[str]:
    """Return what the masked model would rather read in the place of a word."""
    _, tokenizer = model(path, "AutoModelForMaskedLM")
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, words = encoded["input_ids"], text.split(" ")
    start = len(" ".join(words[:at])) + (at > 0)
    stop = start + len(words[at])
    own = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < stop and b > start]
    rows = masked_logits(path, tuple(ids))
    names = tokenizer.convert_ids_to_tokens(list(range(len(rows[0]))))
    if len(own) == 1:
        best = top(rows[own[0]], count)
        return [names[i] for i in best if names[i].isalpha() and i not in tokenizer.all_special_ids]
    combos: list[list[int]] = [[]]
    for place in own:
        combos = [[*combo, piece] for combo in combos for piece in top(rows[place], 4)]
    ranked = []
    for order, combo in enumerate(combos[:24]):
        logits = torch.tensor(masked_logits(path, tuple(combo)))
        loss = float(torch.nn.functional.cross_entropy(logits, torch.tensor(combo)))
        ranked.append((round(loss / LOGIT_GRID), order, combo))
    found: list[str] = []
    for _, _, combo in sorted(ranked):
        word = "".join(
            names[piece][2:] if names[piece].startswith("##") else " " + names[piece]
            for piece in combo
        ).strip()
        if word.isalpha() and word not in found:
            found.append(word)
    return found


@functools.cache
def sentence_vector(path: str, text: str) -> np.ndarray:
    loaded, tokenizer = model(path, "AutoModel")
    with torch.no_grad():
        hidden = loaded(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
    vector = hidden[0].mean(dim=0)
    return (vector / vector.norm()).numpy()


def cosine(path: str, first: str, second: str) -> float:
    value = float(sentence_vector(path, first) @ sentence_vector(path, second))
    return round(value / COSINE_GRID) * COSINE_GRID


def window(words: Sequence[str], at: int, size: int | None) -> str:
    if size is None:
        return " ".join(words)
    start = max(0, min(at - size // 2, len(words) - size))
    return " ".join(words[start : start + size])


def tag(words: Sequence[str], at: int) -> str:
    """Return the universal tag by the toy tagger's rules."""
    penn: list[str] = []
    for word in words[: at + 1]:
        after_determiner = bool(penn) and penn[-1] == "DT"
        penn.append(toy.TAGS.get(word, "JJ" if after_determiner else "NN"))
    groups = {"NN": "NOUN", "VB": "VERB", "VBZ": "VERB", "JJ": "ADJ", "DT": "DET", "IN": "ADP"}
    return {**groups, "CC": "CONJ"}[penn[at]]


def same_kind(old: str, new: str, rule: str) -> bool:
    return old == new or (rule == "noun-verb" and {old, new} == {"NOUN", "VERB"})
