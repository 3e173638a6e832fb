"""Fine-tune Hugging Face text classifiers that survive attacks, and measure how well they do.

Names are loaded on first use, so that importing the package is instant and free of side effects.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from textadv.embeddings import EmbeddingPort, wrap
    from textadv.objectives import TRADES, Adversarial, Clean, FreeLB, Schedule, backward
    from textadv.perturb import FGM, FGSM, PGD, GaussianNoise, UniformNoise

_LAZY = {
    "Adversarial": "textadv.objectives",
    "Clean": "textadv.objectives",
    "FreeLB": "textadv.objectives",
    "TRADES": "textadv.objectives",
    "Schedule": "textadv.objectives",
    "backward": "textadv.objectives",
    "EmbeddingPort": "textadv.embeddings",
    "FGM": "textadv.perturb",
    "FGSM": "textadv.perturb",
    "GaussianNoise": "textadv.perturb",
    "PGD": "textadv.perturb",
    "UniformNoise": "textadv.perturb",
    "wrap": "textadv.embeddings",
}

__all__ = [
    "FGM",
    "FGSM",
    "PGD",
    "TRADES",
    "Adversarial",
    "Clean",
    "EmbeddingPort",
    "FreeLB",
    "GaussianNoise",
    "Schedule",
    "UniformNoise",
    "backward",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'textadv' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
