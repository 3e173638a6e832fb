"""Slow, literal attacks: one text at a time, strings and lists only, nothing shared with textadv.

Each takes a toy text whose words are separated by single spaces and returns what the engine must
report: status, reason, adversarial text and number of queries.
"""

from __future__ import annotations

import dataclasses
import random
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from textadv.resources import STOPWORDS

Scores = Callable[[list[str]], list[list[float]]]


@dataclasses.dataclass(frozen=True)
class Expected:
    status: str
    reason: str = ""
    adversarial: str | None = None
    num_queries: int = 1


class _BudgetError(Exception):
    pass


class _Oracle:
    """Ask about one text at a time and count."""

    def __init__(self, scores: Scores, text: str, label: int, budget: int | None) -> None:
        self.scores, self.label, self.budget = scores, label, budget
        self.count = 0
        self.clean = self.margin(text)

    def margin(self, text: str) -> float:
        if self.budget is not None and self.count >= self.budget:
            raise _BudgetError
        self.count += 1
        row = self.scores([text])[0]
        others = [value for label, value in enumerate(row) if label != self.label]
        first_best = row.index(max(row))
        # Only a strict other winner flips; on a tie the first class is predicted.
        return row[self.label] - max(others) - (1e-9 if first_best != self.label else 0)

    def best(self, texts: list[str]) -> tuple[str, float] | None:
        """Ask about all texts; the last one paid for is the last one looked at."""
        answers = []
        out_of_budget = False
        for text in texts:
            try:
                answers.append((self.margin(text), len(answers), text))
            except _BudgetError:
                out_of_budget = True
                break
        winner = min(answers, default=None)
        if winner is not None and winner[0] < 0:
            return winner[2], winner[0]
        if out_of_budget:
            raise _BudgetError
        return None if winner is None else (winner[2], winner[0])


def _expected(oracle: _Oracle, attack: Callable[[_Oracle], str | None]) -> Expected:
    if oracle.clean < 0:
        return Expected("wrong_before", num_queries=oracle.count)
    try:
        found = attack(oracle)
    except _BudgetError:
        return Expected("survived", "budget", None, oracle.count)
    except LookupError:
        return Expected("unresolved", "no_candidates", None, oracle.count)
    if found is None:
        return Expected("survived", "", None, oracle.count)
    return Expected("flipped", "", found, oracle.count)


def _with(words: list[str], index: int, word: str) -> str:
    return " ".join([*words[:index], word, *words[index + 1 :]])


def _greedy(
    oracle: _Oracle, words: list[str], positions: list[int], candidates: Callable[[int], list[str]]
) -> str | None:
    """Rank by [UNK], then keep the best candidate of each position that lowers the margin."""
    if not positions:
        raise LookupError
    importance = [(oracle.margin(_with(words, at, "[UNK]")), at) for at in positions]
    current, margin = list(words), oracle.clean
    for _, at in sorted(importance):
        texts = [_with(current, at, word) for word in candidates(at)]
        # The typo search filters on the running text, so it reads it through this attribute.
        winner = oracle.best(texts) if texts else None
        if winner is None:
            continue
        if winner[1] < 0:
            return winner[0]
        if winner[1] < margin:
            current, margin = winner[0].split(" "), winner[1]
            oracle.current = current  # type: ignore[attr-defined]
    return None


def _distance(a: str, b: str) -> int:
    """Levenshtein distance by its recursive definition, with a table."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            change = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, change)
    return table[len(a), len(b)]


def _one_each(word: str, rng: random.Random) -> list[str]:
    letters = string.ascii_letters
    typos = []
    swapped = []
    for i in range(len(word) - 1):
        letters_of = list(word)
        letters_of[i], letters_of[i + 1] = letters_of[i + 1], letters_of[i]
        if "".join(letters_of) != word:
            swapped.append("".join(letters_of))
    if swapped:
        typos.append(rng.choice(swapped))
    new = rng.choice(letters)
    replaced = []
    for i in range(len(word)):
        cased = new.upper() if word[i].isupper() else new
        if cased != word[i]:
            replaced.append(word[:i] + cased + word[i + 1 :])
    if replaced:
        typos.append(rng.choice(replaced))
    if len(word) > 1:
        typos.append(rng.choice([word[:i] + word[i + 1 :] for i in range(len(word))]))
    new = rng.choice(letters)
    typos.append(rng.choice([word[:i] + new + word[i:] for i in range(len(word) + 1)]))
    return _unique(typos, word)


def _every(word: str, letters: str) -> list[str]:
    typos = []
    for i in range(len(word) - 1):
        typos.append(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
    if len(word) > 1:
        for i in range(len(word)):
            typos.append(word[:i] + word[i + 1 :])
    for i in range(len(word)):
        for letter in letters:
            cased = letter.upper() if word[i].isupper() else letter
            typos.append(word[:i] + cased + word[i + 1 :])
    for i in range(len(word) + 1):
        for letter in letters:
            typos.append(word[:i] + letter + word[i:])
    return _unique(typos, word)


def _unique(words: list[str], original: str) -> list[str]:
    kept: list[str] = []
    for word in words:
        if word != original and word not in kept:
            kept.append(word)
    return kept


def _deepwordbug(typos: Callable[[str], list[str]], fields: Mapping[str, Any]) -> Any:
    limit = fields.get("max_distance", 30)

    def attack(oracle: _Oracle, words: list[str]) -> str | None:
        positions = [at for at, word in enumerate(words) if word.lower() not in STOPWORDS]
        oracle.current = list(words)  # type: ignore[attr-defined]

        def candidates(at: int) -> list[str]:
            current = oracle.current  # type: ignore[attr-defined]
            used = sum(_distance(a, b) for a, b in zip(words, current, strict=True))
            return [t for t in typos(words[at]) if used + _distance(words[at], t) <= limit]

        return _greedy(oracle, words, positions, candidates)

    return attack


def deepwordbug(
    scores: Scores, text: str, label: int, fields: Mapping[str, Any], rng: random.Random,
    budget: int | None,
) -> Expected:  # fmt: skip
    attack = _deepwordbug(lambda word: _one_each(word, rng), fields)
    return _expected(_Oracle(scores, text, label, budget), lambda o: attack(o, text.split(" ")))


def deepwordbug_all(
    scores: Scores, text: str, label: int, fields: Mapping[str, Any], rng: random.Random,
    budget: int | None,
) -> Expected:  # fmt: skip
    letters = fields.get("letters", string.ascii_lowercase)
    attack = _deepwordbug(lambda word: _every(word, letters), fields)
    return _expected(_Oracle(scores, text, label, budget), lambda o: attack(o, text.split(" ")))


def _synonyms(text: str, fields: Mapping[str, Any]) -> dict[int, list[str]]:
    """Brute-force cosine neighbours of every word that is no stopword."""
    path = Path(fields["vectors"])
    names = path.with_name("words.txt").read_text(encoding="utf-8").split()
    matrix = np.load(path).astype(np.float64)
    found: dict[int, list[str]] = {}
    for at, word in enumerate(text.split(" ")):
        key = word if word in names else word.lower()
        if word.lower() in STOPWORDS or key not in names:
            continue
        own = matrix[names.index(key)]
        ranked = []
        for row, name in enumerate(names):
            cosine = matrix[row] @ own / np.linalg.norm(matrix[row]) / np.linalg.norm(own)
            if name != key:
                ranked.append((-cosine, row, name))
        nearest = sorted(ranked)[: fields.get("max_candidates", 50)]
        words = [name for negative, _, name in nearest if -negative >= fields["min_cosine"]]
        if word[0].isupper():
            words = [name[0].upper() + name[1:] for name in words]
        if words:
            found[at] = words
    return found


def synonym(
    scores: Scores, text: str, label: int, fields: Mapping[str, Any], rng: random.Random,
    budget: int | None,
) -> Expected:  # fmt: skip
    lattice = _synonyms(text, fields)
    return _expected(
        _Oracle(scores, text, label, budget),
        lambda oracle: _greedy(oracle, text.split(" "), sorted(lattice), lattice.__getitem__),
    )


def random_substitution(
    scores: Scores, text: str, label: int, fields: Mapping[str, Any], rng: random.Random,
    budget: int | None,
) -> Expected:  # fmt: skip
    lattice = _synonyms(text, fields)

    def attack(oracle: _Oracle) -> str | None:
        if not lattice:
            raise LookupError
        tries = len(lattice) + sum(len(words) for words in lattice.values())
        while tries > 0:
            texts = []
            for _ in range(min(8, tries)):
                words = text.split(" ")
                count = rng.randint(1, len(lattice))
                for at in rng.sample(sorted(lattice), count):
                    words[at] = rng.choice(lattice[at])
                texts.append(" ".join(words))
            tries -= len(texts)
            winner = oracle.best(texts)
            if winner is not None and winner[1] < 0:
                return winner[0]
        return None

    return _expected(_Oracle(scores, text, label, budget), attack)


ORACLES: dict[str, Callable[..., Expected]] = {
    "deepwordbug": deepwordbug,
    "deepwordbug-all": deepwordbug_all,
    "random-substitution": random_substitution,
    "synonym": synonym,
}
