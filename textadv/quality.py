"""How far the texts that changed a prediction are from the originals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textadv.attacks.records import Record
from textadv.diff import edit_distance
from textadv.errors import ResourceError
from textadv.language import load_encoder
from textadv.metrics import mean, wilson_interval
from textadv.resources import find

__all__ = ["THRESHOLD", "filtered", "quality"]

THRESHOLD = 0.8
"""Cosine from which a changed text counts as similar. It holds for the encoder named beside it."""


def quality(
    records: Sequence[Record], encoder: str | None = None, *, similarity: bool = True
) -> dict[str, Any]:
    """Return how far the changed texts of one attack are from the originals.

    Args:
        records: Those of one attack.
        encoder: Directory of a sentence encoder; see `textadv.resources`.
        similarity: Whether to look for an encoder.

    Returns:
        `edit_distance`, mean characters. With an encoder also its name, `similarity` and
        `similarity_p5` (mean and 5th percentile of the cosine), `threshold`, and `dissimilar`, the
        flips below it. Empty without any changed text.
    """
    texts = [(r.text, r.adversarial_text) for r in records if r.adversarial_text is not None]
    if not texts:
        return {}
    pairs = [("\n".join(before), "\n".join(after)) for before, after in texts]
    found: dict[str, Any] = {
        "edit_distance": mean([float(edit_distance(*pair)) for pair in pairs]),
    }
    if not similarity:
        return found
    try:
        place, model = find("encoder", encoder), load_encoder(encoder)
    except ResourceError:
        if encoder is not None:
            raise
        return found
    cosines = sorted(model.similarities(pairs))
    return {
        **found,
        "encoder": place.parent.name if place.name == "model" else place.name,
        "similarity": mean(cosines),
        "similarity_p5": cosines[int(0.05 * (len(cosines) - 1))],
        "threshold": THRESHOLD,
        "dissimilar": sum(cosine < THRESHOLD for cosine in cosines),
    }


def filtered(survived: int, dissimilar: int, n: int) -> dict[str, Any]:
    """Return the accuracy when only flips to similar texts count, with its interval.

    It stands beside accuracy under attack and never in its place: what an encoder calls similar is
    not what a reader does.
    """
    standing = survived + dissimilar
    return {"filtered": standing / n, "filtered_interval": list(wilson_interval(standing, n))}
