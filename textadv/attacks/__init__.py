"""Text attacks: the table of them, and how one is built from a name and fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from textadv.attacks.base import Attack, Example, NoCandidatesError, Search
from textadv.attacks.deepwordbug import DeepWordBug, DeepWordBugAll
from textadv.attacks.engine import run
from textadv.attacks.records import Record, RecordFile, read_records
from textadv.attacks.synonym import RandomSubstitution, Synonym
from textadv.errors import unknown_name

__all__ = [
    "ATTACKS",
    "Attack",
    "Example",
    "NoCandidatesError",
    "Record",
    "RecordFile",
    "Search",
    "build_attack",
    "read_records",
    "run",
]

ATTACKS: dict[str, type[Any]] = {
    "deepwordbug": DeepWordBug,
    "deepwordbug-all": DeepWordBugAll,
    "random-substitution": RandomSubstitution,
    "synonym": Synonym,
}


def build_attack(name: str, fields: Mapping[str, Any] | None = None) -> Attack:
    """Return the attack of that name with some of its fields set.

    Raises:
        ConfigError: An unknown name or field, with the nearest known one, or a bad value.

    Example:
        >>> build_attack("deepwordbug", {"max_distance": 10}).max_distance
        10
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    known = [field.name for field in dataclasses.fields(ATTACKS[name])]
    for field in fields or {}:
        if field not in known:
            raise unknown_name("field", field, known, where=f"attack {name}")
    attack: Attack = ATTACKS[name](**(fields or {}))
    return attack
