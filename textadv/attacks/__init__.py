"""Text attacks: the table of them, and how one is built from a name and fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from textadv.attacks.base import Attack, Example, NoCandidatesError, Search
from textadv.attacks.checklist import CheckListInvariance
from textadv.attacks.clare import CLARE
from textadv.attacks.deepwordbug import DeepWordBug, DeepWordBugAll
from textadv.attacks.engine import run
from textadv.attacks.genetic import IGA, Alzantot, FastGenetic
from textadv.attacks.hard_label import HardLabel
from textadv.attacks.imperceptible import (
    ImperceptibleDelete,
    ImperceptibleHomoglyph,
    ImperceptibleInvisible,
    ImperceptibleReorder,
)
from textadv.attacks.lattice_search import SynonymBeam, SynonymBestFirst, TokenGradient
from textadv.attacks.masked import BAEI, BAER, BertAttack
from textadv.attacks.pwws import PWWS, PWWSTextAttack
from textadv.attacks.records import Record, RecordFile, read_records
from textadv.attacks.reduction import InputReduction
from textadv.attacks.swarm import PSO
from textadv.attacks.synonym import RandomSubstitution, Synonym
from textadv.attacks.textbugger import Pruthi, TextBugger
from textadv.attacks.textgrad import TextGrad
from textadv.attacks.wordswap import A2T, TextFooler, TextFoolerAuthor, TextFoolerStrict
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
    "a2t": A2T,
    "alzantot": Alzantot,
    "bae-i": BAEI,
    "bae-r": BAER,
    "bert-attack": BertAttack,
    "checklist": CheckListInvariance,
    "clare": CLARE,
    "deepwordbug": DeepWordBug,
    "deepwordbug-all": DeepWordBugAll,
    "fast-genetic": FastGenetic,
    "hard-label": HardLabel,
    "iga": IGA,
    "imperceptible-delete": ImperceptibleDelete,
    "imperceptible-homoglyph": ImperceptibleHomoglyph,
    "imperceptible-invisible": ImperceptibleInvisible,
    "imperceptible-reorder": ImperceptibleReorder,
    "input-reduction": InputReduction,
    "pruthi": Pruthi,
    "pso": PSO,
    "pwws": PWWS,
    "pwws-textattack": PWWSTextAttack,
    "random-substitution": RandomSubstitution,
    "synonym": Synonym,
    "synonym-beam": SynonymBeam,
    "synonym-best-first": SynonymBestFirst,
    "textbugger": TextBugger,
    "textfooler": TextFooler,
    "textfooler-author": TextFoolerAuthor,
    "textfooler-strict": TextFoolerStrict,
    "textgrad": TextGrad,
    "token-gradient": TokenGradient,
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
