"""What an attack is: a frozen dataclass whose search proposes texts and is sent scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import typing
from collections.abc import Generator
from typing import Any, Literal, Protocol, TypeAlias, get_args, get_origin

import torch
from torch import Tensor

from textadv import resources
from textadv.attacks.requests import Request
from textadv.errors import ConfigError, shown
from textadv.rounding import near_edge, rounded
from textadv.words import Words

__all__ = [
    "Attack",
    "Checked",
    "Example",
    "NoCandidatesError",
    "OutOfQueriesError",
    "Search",
    "attack_config",
    "attack_goal",
    "attack_identity",
    "attack_resources",
    "config_hash",
    "ranged",
]

# Margins are rounded to this share of the spread of the clean logits, so that texts that a model
# cannot tell apart are tied. A finer grid has more texts near an edge, which are scored twice.
MARGIN_GRID = 2.0**-10

Search: TypeAlias = Generator[Request, Any, Words | None]
"""Yields requests (see `textadv.attacks.requests`), returns an adversarial text or None.

A list of texts is answered with logits `(N, C)`. When the query budget pays for only part of it,
the other rows are NaN, and `OutOfQueriesError` is raised at the next request to the victim. A
search that has something to return by then catches it.
"""


class NoCandidatesError(Exception):
    """Raised by a search when no word of the text has any candidate: `unresolved`, not robust."""


class OutOfQueriesError(Exception):
    """Thrown into a search that asks for more than its budget; it may return what it has."""


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
        margins = rounded(self._raw_margins(scores), MARGIN_GRID)
        result: list[float] = margins.nan_to_num(nan=torch.inf, posinf=torch.inf).tolist()
        return result

    def unsettled(self, scores: Tensor, noise: float) -> list[int]:
        """Return the rows whose margin or flip could be another if noise moved the scores.

        Args:
            scores: `(N, C)`.
            noise: Most that a logit moves, as a share of the largest one or of 1.
        """
        if not len(scores):
            return []
        margins = self._raw_margins(scores)
        # A margin is the difference of two logits.
        reach = 2 * noise * scores.abs().amax(dim=1).double().clamp_min(1.0) / self.spread
        unsure = near_edge(margins, MARGIN_GRID, reach) | (margins.abs() <= reach)
        return [int(row) for row in (unsure & ~margins.isnan()).nonzero()]

    def _raw_margins(self, scores: Tensor) -> Tensor:
        others = scores.double().clone()
        gold = others[:, self.label].clone()
        others[:, self.label] = -torch.inf
        return (gold - others.amax(dim=1)) / self.spread

    def flips(self, scores: Tensor) -> list[bool]:
        """Return for each row whether another class than the gold one is predicted."""
        answered = ~scores.isnan().any(dim=1)
        result: list[bool] = ((scores.argmax(dim=1) != self.label) & answered).tolist()
        return result

    @property
    def spread(self) -> float:
        """Largest minus smallest clean logit, the unit of margins; 1 if they are all equal."""
        return float(self._clean.max() - self._clean.min()) or 1.0

    @property
    def clean_margin(self) -> float:
        """The margin of the unchanged text."""
        return self.margins(self._clean[None])[0]

    @property
    def _clean(self) -> Tensor:
        if self.clean is None:
            raise ValueError(f"example {self.id}: no clean logits yet")
        return self.clean


class Attack(Protocol):
    """A frozen dataclass: its fields are its configuration, its docstring is its card.

    It may also have `needs()`, the resources it reads as a path or None by kind (a key of
    `textadv.resources.KINDS`); `white_box = True` if it asks for gradients; and `goal = "keep"` if
    a success must leave the prediction as it is.
    """

    def prepare(self) -> None:
        """Load what the attack needs, or raise `ResourceError`, before the first query."""
        ...

    def search(self, example: Example, rng: random.Random) -> Search:
        """Attack one example that is classified right.

        A search does no input or output, holds no model and draws from `rng` alone. What it
        returns is scored again by the engine before it counts.
        """
        ...


def ranged(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """Return a dataclass field whose value `Checked` keeps between `low` and `high`."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """Refuse values that do not fit their annotation: choices, flags, and numbers in a range.

    Integers must be at least 1 where the field gives no other range.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Settings(Checked):
        ...     order: Literal["up", "down"] = "up"
        >>> Settings(order="left")
        Traceback (most recent call last):
        textadv.errors.ConfigError: Settings.order: got 'left', expected 'up' or 'down'
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            self._check(field, hints[field.name], getattr(self, field.name))

    def _check(self, field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
        allowed = get_args(hint) if type(None) in get_args(hint) else (hint,)
        if value is None and type(None) in allowed:
            return
        choices = [
            choice for kind in allowed if get_origin(kind) is Literal for choice in get_args(kind)
        ]
        where = f"{type(self).__name__}.{field.name}"
        if choices and value not in choices:
            expected = " or ".join(map(repr, choices))
            raise ConfigError(where, got=shown(value), expected=expected)
        if bool in allowed and not isinstance(value, bool):
            raise ConfigError(where, got=shown(value), expected="true or false")
        number = int if int in allowed else float if float in allowed else None
        if number is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, number)):
            raise ConfigError(where, got=shown(value), expected=f"a number ({number.__name__})")
        low = field.metadata.get("low", 1 if number is int else None)
        high = field.metadata.get("high")
        if (low is not None and value < low) or (high is not None and value > high):
            span = f">= {low}" if high is None else f"{low} to {high}"
            raise ConfigError(where, got=shown(value), expected=span)


def attack_config(attack: Attack) -> dict[str, Any]:
    """Return the class name and every field of an attack, ready for JSON."""
    if not dataclasses.is_dataclass(attack):
        return {"class": type(attack).__name__, "repr": repr(attack)}
    return {"class": type(attack).__name__, **dataclasses.asdict(attack)}


def attack_resources(attack: Attack) -> dict[str, str | None]:
    """Return what an attack reads, by the kind of resource, with the path it was given if any."""
    needs = getattr(attack, "needs", None)
    return {} if needs is None else dict(needs())


def attack_goal(attack: Attack) -> Literal["flip", "keep"]:
    """Return whether a success changes the prediction or, as in input reduction, keeps it."""
    goal: Literal["flip", "keep"] = getattr(attack, "goal", "flip")
    return goal


def attack_identity(attack: Attack) -> dict[str, Any]:
    """Return what decides an attack's outcome: its fields, with resources by content, not path.

    Raises:
        ResourceError: A resource is missing.
    """
    needs = attack_resources(attack)
    config = {
        k: v for k, v in attack_config(attack).items() if k.replace("_", "-") not in resources.KINDS
    }
    contents = {
        kind: resources.content_hash(resources.find(kind, path)) for kind, path in needs.items()
    }
    return {**config, "resources": contents}


def config_hash(config: object) -> str:
    """Return a short hash of anything JSON can hold, independent of key order."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
