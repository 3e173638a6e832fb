"""Perturbations of input embeddings. A new one is a file here and a line in `PERTURBATIONS`."""

from __future__ import annotations

from textadv.perturb.base import Perturbation, maximize
from textadv.perturb.gradient import FGM, FGSM, PGD
from textadv.perturb.noise import GaussianNoise, UniformNoise

__all__ = [
    "FGM",
    "FGSM",
    "PERTURBATIONS",
    "PGD",
    "GaussianNoise",
    "Perturbation",
    "UniformNoise",
    "maximize",
]

PERTURBATIONS: dict[str, type[Perturbation]] = {
    "fgsm": FGSM,
    "fgm": FGM,
    "pgd": PGD,
    "uniform-noise": UniformNoise,
    "gaussian-noise": GaussianNoise,
}
