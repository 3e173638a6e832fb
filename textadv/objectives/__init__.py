"""Training objectives. A new one is a file here and a line in `OBJECTIVES`."""

from __future__ import annotations

from textadv.objectives.adversarial import Adversarial
from textadv.objectives.base import Clean, Objective, Term, backward
from textadv.objectives.freelb import FreeLB
from textadv.objectives.schedule import Schedule
from textadv.objectives.trades import TRADES

__all__ = [
    "OBJECTIVES",
    "TRADES",
    "Adversarial",
    "Clean",
    "FreeLB",
    "Objective",
    "Schedule",
    "Term",
    "backward",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "clean": Clean,
    "adversarial": Adversarial,
    "freelb": FreeLB,
    "trades": TRADES,
}
