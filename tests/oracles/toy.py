"""A toy classifier with exact arithmetic, toy texts and toy word vectors."""

from __future__ import annotations

import itertools
import random
import zlib
from pathlib import Path

import numpy as np

from textadv.attacks import Example
from textadv.victim import CallableVictim
from textadv.words import Words

CLASSES = 3
_WORDS = """film plot actor scene warm dull bright funny sad slow quick story music ending script
charm boring great awful tender clever weak strong loud quiet happy gloomy fresh stale bold"""
VOCABULARY = _WORDS.split()
FUNCTION_WORDS = ["the", "a", "is", "and", "of"]
ANCHORS = {"the": 0, "and": 1, "of": 2}


def scores(texts: list[str], scale: float = 1.0, shift: float = 0.0) -> list[list[float]]:
    """Sum a hashed weight per word, pair and class; multiples of 1/8, so sums are exact."""
    return [[scale * total + shift for total in _totals(text)] for text in texts]


def _totals(text: str) -> list[float]:
    tokens = text.split()
    pairs = [" ".join(pair) for pair in itertools.pairwise(tokens)]
    totals = []
    for label in range(CLASSES):
        units = sum(zlib.crc32(f"{label}|{token}".encode()) % 33 - 16 for token in tokens)
        units += sum(zlib.crc32(f"{label}|{pair}".encode()) % 9 - 4 for pair in pairs)
        # Words that no attack edits hold some texts in their class.
        units += 120 * sum(ANCHORS.get(token.lower()) == label for token in tokens)
        totals.append(units / 8)
    return totals


def victim(scale: float = 1.0, shift: float = 0.0) -> CallableVictim:
    return CallableVictim(lambda texts: scores(texts, scale, shift))


def texts_and_labels(count: int = 40, seed: int = 5) -> tuple[list[str], list[int]]:
    """Return texts with the predicted label, every seventh with another one."""
    rng = random.Random(seed)
    texts, labels = [], []
    for row in range(count):
        words = [
            rng.choice(FUNCTION_WORDS) if rng.random() < 0.2 else rng.choice(VOCABULARY)
            for _ in range(rng.randint(1, 9))
        ]
        words[0] = words[0].capitalize() if row % 3 == 0 else words[0]
        text = " ".join(words)
        values = scores([text])[0]
        label = values.index(max(values))
        texts.append(text)
        labels.append((label + 1) % CLASSES if row % 7 == 0 else label)
    return texts, labels


def examples(count: int = 40, seed: int = 5) -> list[Example]:
    pairs = zip(*texts_and_labels(count, seed), strict=True)
    return [
        Example(id=str(row), words=Words.of(text), label=label)
        for row, (text, label) in enumerate(pairs)
    ]


def write_vectors(folder: Path) -> Path:
    """Write a small matrix and its words; most of the vocabulary has near neighbours."""
    words = [*VOCABULARY, "Movie", "tale", "dreary", "lively"]
    matrix = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float16)
    np.save(folder / "vectors.npy", matrix)
    (folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder / "vectors.npy"
