"""Training objectives. A new one is a file here and a line in `OBJECTIVES`."""

from __future__ import annotations

from textadv.objectives.adversarial import Adversarial, Hybrid, Latent, NEFTune
from textadv.objectives.ascc import ASCC
from textadv.objectives.base import Clean, Objective, Term, backward
from textadv.objectives.consistency import (
    ALUM,
    R3F,
    SMARTMTDNN,
    VAT,
    Consistency,
    SiFT,
    SMARTPaper,
)
from textadv.objectives.creat import CreAT
from textadv.objectives.flooding import Flooding
from textadv.objectives.free import FreeAT
from textadv.objectives.freelb import VILLA, FreeLB, FreeLBPlusPlus
from textadv.objectives.history import FAT
from textadv.objectives.mart import MART
from textadv.objectives.point import PointObjective
from textadv.objectives.r4f import R4F
from textadv.objectives.rdrop import RDrop
from textadv.objectives.schedule import Schedule
from textadv.objectives.smart import SMART
from textadv.objectives.tavat import TAVAT
from textadv.objectives.trades import TRADES
from textadv.objectives.weight_space import AWP, SAM, SAMFGM

__all__ = [
    "ALUM",
    "ASCC",
    "AWP",
    "FAT",
    "MART",
    "OBJECTIVES",
    "R3F",
    "R4F",
    "SAM",
    "SAMFGM",
    "SMART",
    "SMARTMTDNN",
    "TAVAT",
    "TRADES",
    "VAT",
    "VILLA",
    "Adversarial",
    "Clean",
    "Consistency",
    "CreAT",
    "Flooding",
    "FreeAT",
    "FreeLB",
    "FreeLBPlusPlus",
    "Hybrid",
    "Latent",
    "NEFTune",
    "Objective",
    "PointObjective",
    "RDrop",
    "SMARTPaper",
    "Schedule",
    "SiFT",
    "Term",
    "backward",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "clean": Clean,
    "adversarial": Adversarial,
    "latent": Latent,
    "hybrid": Hybrid,
    "freelb": FreeLB,
    "freelb++": FreeLBPlusPlus,
    "villa": VILLA,
    "tavat": TAVAT,
    "free": FreeAT,
    "fat": FAT,
    "trades": TRADES,
    "mart": MART,
    "consistency": Consistency,
    "vat": VAT,
    "smart": SMART,
    "smart-paper": SMARTPaper,
    "smart-mtdnn": SMARTMTDNN,
    "alum": ALUM,
    "sift": SiFT,
    "creat": CreAT,
    "ascc": ASCC,
    "awp": AWP,
    "sam": SAM,
    "sam-fgm": SAMFGM,
    "r3f": R3F,
    "r4f": R4F,
    "rdrop": RDrop,
    "neftune": NEFTune,
    "flooding": Flooding,
}
