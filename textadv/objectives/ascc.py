"""ASCC: train on the worst mixture of synonyms."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import Divergence
from textadv.monitors import Monitor
from textadv.objectives.consistency import Consistency
from textadv.objectives.point import Point
from textadv.perturb import Perturbation, SynonymHull

__all__ = ["ASCC"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ASCC(Consistency):
    """Minimise the clean loss plus the divergence at the worst point of the words' synonym hulls.

    Gradients of that point reach the embeddings of all candidates, so that words and their synonyms
    are trained to mean the same.

    Args:
        perturbation: `synonym-hull`, with its table of candidates.

    Cost: (6 + 2T) / 3 clean steps with T inner steps: 5.33 for T = 5, plus the look-ups.
    Known failure: it protects against swaps in its own table only.
    Source: Dong et al., ICLR 2021, equation 9 (beta 4 in the TextDefender code).
    """

    perturbation: Perturbation = dataclasses.field(default_factory=SynonymHull)
    divergence: Divergence = "kl"
    lambda_adv: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.perturbation, SynonymHull) or self.site != "word":
            raise ConfigError(
                "ascc: perturbation", got="another", expected="synonym-hull, at the word embeddings"
            )

    def find(
        self,
        port: EmbeddingPort,
        batch: Batch,
        generator: torch.Generator,
        clean: Tensor | None,
    ) -> Point:
        """Return the worst mixture, with gradients to the candidates' embeddings."""
        hull, there = self.perturbation, port.at(self.site)
        if not isinstance(hull, SynonymHull):
            raise TypeError("ASCC climbs in a SynonymHull")
        texts = batch if self.center is None else self.center(port, batch, generator)
        monitor = Monitor()
        target = self.target(port, batch, clean)
        z = hull.bind(there, texts).search(
            there,
            texts,
            self.inner_loss(there, texts, target),
            generator,
            self.inner_mode,
            monitor=monitor,
        )
        delta = hull.bind(there, texts, trainable=True).delta(z)
        return Point(port=there, batch=texts, delta=delta, monitor=monitor)
