"""Scores of distinct texts, cached across searches, with errors pinned to the texts behind them."""

from __future__ import annotations

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch

from textadv.attacks.deadline import deadline
from textadv.errors import DataError, shown
from textadv.victim import Victim

__all__ = ["Answer", "Failure", "Scorer", "Texts", "reason_of"]

logger = logging.getLogger(__name__)

Texts: TypeAlias = tuple[str, ...]
"""One text: a string per column."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """What the victim answered for a text that it cannot score."""

    reason: str


Answer: TypeAlias = list[float] | Failure


class Scorer:
    """Score distinct texts once, remember recent ones, and pin errors to the texts behind them."""

    def __init__(self, victim: Victim, cache_size: int, timeout: float | None = None) -> None:
        self.victim, self.cache_size, self.timeout = victim, cache_size, timeout
        self.noise = float(getattr(victim, "noise", 0.0))
        self.num_scored = 0
        self._cache: OrderedDict[Texts, list[float]] = OrderedDict()
        self._alone: OrderedDict[Texts, list[float]] = OrderedDict()

    def score(self, texts: Iterable[Texts]) -> dict[Texts, Answer]:
        """Return the logits of each distinct text, or why there are none."""
        wanted = dict.fromkeys(texts)
        answers: dict[Texts, Answer] = {}
        for text in wanted:
            if text in self._cache:
                self._cache.move_to_end(text)
                answers[text] = self._cache[text]
        missing = [text for text in wanted if text not in answers]
        for text, answer in zip(missing, self.ask(missing), strict=True):
            answers[text] = answer
            self._keep(self._cache, text, answer)
        return answers

    def alone(self, text: Texts) -> Answer:
        """Return the logits that a text gets in a call of its own, which no other text can move."""
        if text in self._alone:
            self._alone.move_to_end(text)
            return self._alone[text]
        (answer,) = self.ask([text])
        self._keep(self._alone, text, answer)
        return answer

    def ask(self, texts: Sequence[Texts]) -> list[Answer]:
        """Ask the victim without the cache; halve a call that raises down to the guilty texts."""
        if not texts:
            return []
        try:
            with deadline(self.timeout):
                scores = self.victim.logits(texts)
        except DataError:
            raise  # scores of the wrong kind: no text is guilty
        except Exception as error:
            if len(texts) == 1:
                logger.warning("the victim cannot score %s: %s", shown(texts[0]), shown(error))
                return [Failure(reason_of(error))]
            half = len(texts) // 2
            return self.ask(texts[:half]) + self.ask(texts[half:])
        self.num_scored += len(texts)
        if scores.ndim != 2 or len(scores) != len(texts) or scores.shape[1] < 2:
            raise DataError(
                "victim scores",
                got=f"shape {tuple(scores.shape)} for {len(texts)} texts",
                expected=f"({len(texts)}, number of classes), at least 2 classes",
            )
        finite = torch.isfinite(scores).all(dim=1).tolist()
        rows: list[list[float]] = scores.float().tolist()
        return [
            row if good else Failure("error: scores are NaN or infinite")
            for row, good in zip(rows, finite, strict=True)
        ]

    def _keep(self, cache: OrderedDict[Texts, list[float]], text: Texts, answer: Answer) -> None:
        if not isinstance(answer, Failure):
            cache[text] = answer
        while len(cache) > self.cache_size:
            cache.popitem(last=False)


def reason_of(error: Exception) -> str:
    """Return the reason to record for an example that ended with `error`."""
    return f"error: {type(error).__name__}: {shown(str(error), 200)[1:-1]}"
