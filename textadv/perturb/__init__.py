"""Perturbations of input embeddings. A new one is a file here and a line in `PERTURBATIONS`."""

from __future__ import annotations

from textadv.perturb.apgd import APGD
from textadv.perturb.base import Perturbation, maximize
from textadv.perturb.candidates import Substitution
from textadv.perturb.carlini_wagner import CarliniWagner
from textadv.perturb.gradient import FGM, FGSM, FGSMRS, PGD
from textadv.perturb.hull import SynonymHull
from textadv.perturb.momentum import MIM
from textadv.perturb.mtdnn import MTDNN
from textadv.perturb.nearest import nearest_tokens
from textadv.perturb.noise import GaussianNoise, UniformNoise
from textadv.perturb.power import PowerIteration
from textadv.perturb.token_aware import TokenAware

__all__ = [
    "APGD",
    "FGM",
    "FGSM",
    "FGSMRS",
    "MIM",
    "MTDNN",
    "PERTURBATIONS",
    "PGD",
    "CarliniWagner",
    "GaussianNoise",
    "Perturbation",
    "PowerIteration",
    "Substitution",
    "SynonymHull",
    "TokenAware",
    "UniformNoise",
    "maximize",
    "nearest_tokens",
]

PERTURBATIONS: dict[str, type[Perturbation]] = {
    "fgsm": FGSM,
    "fgsm-rs": FGSMRS,
    "fgm": FGM,
    "pgd": PGD,
    "power-iteration": PowerIteration,
    "token-aware": TokenAware,
    "synonym-hull": SynonymHull,
    "mim": MIM,
    "apgd": APGD,
    "carlini-wagner": CarliniWagner,
    "mtdnn": MTDNN,
    "uniform-noise": UniformNoise,
    "gaussian-noise": GaussianNoise,
}
