"""Fine-tune Hugging Face text classifiers that survive attacks, and measure how well they do.

Names are loaded on first use, so that importing the package is instant and free of side effects.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from textadv.config import read_recipe
    from textadv.embeddings import EmbeddingPort, wrap
    from textadv.evaluate import EvaluationConfig, attack, evaluate_attacks
    from textadv.objectives import TRADES, Adversarial, Clean, FreeLB, Schedule, backward
    from textadv.perturb import FGM, FGSM, PGD, GaussianNoise, UniformNoise
    from textadv.report import RobustnessReport
    from textadv.run import run_recipe
    from textadv.trainer import Trainer
    from textadv.training import TrainingConfig
    from textadv.victim import CallableVictim, ModelVictim

_LAZY = {
    "read_recipe": "textadv.config",
    "EmbeddingPort": "textadv.embeddings",
    "wrap": "textadv.embeddings",
    "EvaluationConfig": "textadv.evaluate",
    "attack": "textadv.evaluate",
    "evaluate_attacks": "textadv.evaluate",
    "Adversarial": "textadv.objectives",
    "Clean": "textadv.objectives",
    "FreeLB": "textadv.objectives",
    "Schedule": "textadv.objectives",
    "TRADES": "textadv.objectives",
    "backward": "textadv.objectives",
    "FGM": "textadv.perturb",
    "FGSM": "textadv.perturb",
    "GaussianNoise": "textadv.perturb",
    "PGD": "textadv.perturb",
    "UniformNoise": "textadv.perturb",
    "RobustnessReport": "textadv.report",
    "run_recipe": "textadv.run",
    "Trainer": "textadv.trainer",
    "TrainingConfig": "textadv.training",
    "CallableVictim": "textadv.victim",
    "ModelVictim": "textadv.victim",
}

__all__ = [
    "FGM",
    "FGSM",
    "PGD",
    "TRADES",
    "Adversarial",
    "CallableVictim",
    "Clean",
    "EmbeddingPort",
    "EvaluationConfig",
    "FreeLB",
    "GaussianNoise",
    "ModelVictim",
    "RobustnessReport",
    "Schedule",
    "Trainer",
    "TrainingConfig",
    "UniformNoise",
    "attack",
    "backward",
    "evaluate_attacks",
    "read_recipe",
    "run_recipe",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'textadv' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
