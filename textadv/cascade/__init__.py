"""A frozen cascade of attacks: what it is, how it runs, and the figures that come of it."""

from __future__ import annotations

from textadv.cascade.definition import (
    CASCADES,
    FROZEN,
    GROUPS,
    TRACKS,
    Ball,
    Cascade,
    Stage,
    get_cascade,
)
from textadv.cascade.run import evaluate_cascade

__all__ = [
    "CASCADES",
    "FROZEN",
    "GROUPS",
    "TRACKS",
    "Ball",
    "Cascade",
    "Stage",
    "evaluate_cascade",
    "get_cascade",
]
