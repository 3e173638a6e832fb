"""What an attack is: a frozen dataclass whose search proposes texts and is sent scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Generator
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from textadv.words import Words

__all__ = [
    "Attack",
    "Example",
    "NoCandidatesError",
    "Search",
    "attack_config",
    "config_hash",
]

# Margins are rounded to this share of the spread of the clean logits. Arithmetic noise between
# batch shapes is far below it, so texts that a model cannot tell apart stay tied at every width.
MARGIN_GRID = 2.0**-14

Search: TypeAlias = Generator[list[Words], Tensor, Words | None]
"""Yields texts to score, is sent logits `(N, C)` for them, returns an adversarial text or None.

When the query budget pays for only part of a request, the other rows are NaN, and the next request
ends the search.
"""


class NoCandidatesError(Exception):
    """Raised by a search when no word of the text has any candidate: `unresolved`, not robust."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One text to attack.

    Args:
        id: Unique within a data set; results and random streams are tied to it.
        words: The text.
        label: The gold label.
        clean: Logits `(C,)` of the unchanged text, filled in by the engine before a search starts.
    """

    id: str
    words: Words
    label: int
    clean: Tensor | None = None

    def margins(self, scores: Tensor) -> list[float]:
        """Return gold logit minus largest other logit of each row: the lower, the more adversarial.

        The unit is the spread of the clean logits and values are rounded to `MARGIN_GRID`, so
        scaling or shifting all logits changes nothing. Rows that were not answered get infinity.

        Shape:
            scores: `(N, C)`.
        """
        if not len(scores):
            return []
        clean = self.clean if self.clean is not None else scores[0]
        spread = float(clean.max() - clean.min()) or 1.0
        others = scores.double().clone()
        gold = others[:, self.label].clone()
        others[:, self.label] = -torch.inf
        margins = ((gold - others.amax(dim=1)) / (spread * MARGIN_GRID)).round() * MARGIN_GRID
        result: list[float] = margins.nan_to_num(nan=torch.inf, posinf=torch.inf).tolist()
        return result

    def flips(self, scores: Tensor) -> list[bool]:
        """Return for each row whether another class than the gold one is predicted."""
        answered = ~scores.isnan().any(dim=1)
        result: list[bool] = ((scores.argmax(dim=1) != self.label) & answered).tolist()
        return result

    @property
    def clean_margin(self) -> float:
        """The margin of the unchanged text."""
        if self.clean is None:
            raise ValueError(f"example {self.id}: no clean logits yet")
        return self.margins(self.clean[None])[0]


class Attack(Protocol):
    """A frozen dataclass: its fields are its configuration, its docstring is its card."""

    def prepare(self) -> None:
        """Load what the attack needs, or raise `ResourceError`, before the first query."""
        ...

    def search(self, example: Example, rng: random.Random) -> Search:
        """Attack one example that is classified right.

        A search does no input or output, holds no model and draws from `rng` alone. What it
        returns is scored again by the engine before it counts.
        """
        ...


def attack_config(attack: Attack) -> dict[str, Any]:
    """Return the class name and every field of an attack, ready for JSON."""
    if not dataclasses.is_dataclass(attack):
        return {"class": type(attack).__name__, "repr": repr(attack)}
    return {"class": type(attack).__name__, **dataclasses.asdict(attack)}


def config_hash(config: object) -> str:
    """Return a short hash of anything JSON can hold, independent of key order."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
