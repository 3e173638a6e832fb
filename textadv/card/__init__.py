"""The model card of a run."""

from __future__ import annotations

from textadv.card.render import render_card

__all__ = ["render_card"]
