"""Input reduction: how few words keep the prediction."""

from __future__ import annotations

import dataclasses
import random

from textadv.attacks.base import Checked, Example, NoCandidatesError, OutOfQueriesError, Search

__all__ = ["InputReduction"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputReduction(Checked):
    """Delete words one by one, always the one that is missed least, while the prediction stays.

    Not an attack on accuracy: nothing is ever flipped. An example `survived` with the reason
    `reduced`, and the adversarial text is what is left; a model that is sure of a few words that
    mean nothing to a reader is overconfident.

    Source: Feng et al., Pathologies of Neural Models Make Interpretations Difficult, EMNLP 2018,
    arXiv 1804.07781.

    Deviations: greedy, without the paper's beam.

    Cost: 1 + n + (n - 1) + ..., for n words that may be deleted, until the prediction would change.
    """

    goal = "keep"

    def prepare(self) -> None:
        """Need nothing."""

    def search(self, example: Example, rng: random.Random) -> Search:
        """Delete the least missed word until every deletion changes the prediction."""
        current = example.words
        if len(current.editable_positions) < 2:
            raise NoCandidatesError
        while len(current.editable_positions) > 1:
            texts = [current.delete(at) for at in current.editable_positions]
            try:
                scores = yield texts
            except OutOfQueriesError:
                break
            margins, flips = example.margins(scores), example.flips(scores)
            kept = [
                row for row, flip in enumerate(flips) if not flip and margins[row] < float("inf")
            ]
            if not kept:
                break
            current = texts[max(kept, key=lambda row: (margins[row], -row))]
        return current if current is not example.words else None
