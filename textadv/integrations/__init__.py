"""Use objectives from other trainers."""

from __future__ import annotations

from textadv.integrations.transformers import AdversarialTrainer, AdversarialTrainerMixin

__all__ = ["AdversarialTrainer", "AdversarialTrainerMixin"]
