"""Answer what searches ask beside scores, merged over all searches of a tick."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from textadv.attacks.base import Example
from textadv.attacks.requests import Fill, Gradients, Guess, Service, Similar, Slopes
from textadv.attacks.scorer import Failure, reason_of
from textadv.errors import shown
from textadv.language import COSINE_GRID, load_encoder, load_masked_lm
from textadv.rounding import rounded
from textadv.victim import Victim
from textadv.whitebox import TextGradient
from textadv.words import Words

__all__ = ["answer_gradients", "answer_services"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Reply = TypeVar("Reply")

# Norms and gains are rounded, so that what differs in the last bits alone is tied.
GRID = 2.0**-14


def answer_services(requests: Sequence[Service]) -> list[Any]:
    """Return the answer to each request, or a `Failure`; equal kinds share one model call."""
    groups: dict[Hashable, list[int]] = {}
    for place, request in enumerate(requests):
        kind: Hashable = (type(request), request.model, getattr(request, "top_k", None))
        groups.setdefault(kind, []).append(place)
    answers: list[Any] = [None] * len(requests)
    for places in groups.values():
        replies = _pinned(_ask_models, [requests[place] for place in places])
        for place, reply in zip(places, replies, strict=True):
            answers[place] = reply
    return answers


def answer_gradients(
    victim: Victim, asked: Sequence[tuple[Example, Gradients, int]]
) -> list[list[Slopes | None] | Failure]:
    """Return the slopes at the first texts of each request, None at those not paid for.

    Each request is a call of its own, so that no slope depends on the other searches.

    Args:
        victim: Has `gradients` and `word_vectors`.
        asked: The example, its request, and how many of its texts are paid for.
    """

    def slopes(one: list[tuple[Example, Gradients, int]]) -> list[list[Slopes | None]]:
        ((example, request, count),) = one
        paid = request.texts[:count]
        texts, labels = [words.texts for words in paid], [example.label] * count
        found = victim.gradients(texts, labels)  # type: ignore[attr-defined]
        known = [
            _slopes(victim, example, words, request, slope)
            for words, slope in zip(paid, found, strict=True)
        ]
        return [[*known, *[None] * (len(request.texts) - count)]]

    return [answer for one in asked for answer in _pinned(slopes, [one])]


def _pinned(
    function: Callable[[list[Item]], list[Reply]], items: list[Item]
) -> list[Reply | Failure]:
    """Call a function on many items; when it raises, halve down to the items behind it."""
    if not items:
        return []
    try:
        return list(function(items))
    except Exception as error:
        if len(items) == 1:
            logger.warning("a request cannot be answered: %s", shown(error))
            return [Failure(reason_of(error))]
    half = len(items) // 2
    return [*_pinned(function, items[:half]), *_pinned(function, items[half:])]


def _ask_models(requests: list[Any]) -> list[Any]:
    """Answer requests of one kind to one model."""
    first = requests[0]
    if isinstance(first, Similar):
        pairs = [pair for request in requests for pair in request.pairs]
        cosines = load_encoder(first.model).similarities(pairs)
        steps = [round(cosine / COSINE_GRID) * COSINE_GRID for cosine in cosines]
        return _split(steps, [len(request.pairs) for request in requests])
    if isinstance(first, Fill):
        gaps = [gap for request in requests for gap in request.gaps]
        words = load_masked_lm(first.model).fill(gaps, first.top_k)
        return _split(words, [len(request.gaps) for request in requests])
    if isinstance(first, Guess):
        texts = [(request.text, request.spans) for request in requests]
        return load_masked_lm(first.model).guess(texts, first.top_k)
    raise TypeError(f"{type(first).__name__} is no request")


def _split(answers: list[Reply], sizes: list[int]) -> list[list[Reply]]:
    source = iter(answers)
    return [[next(source) for _ in range(size)] for size in sizes]


def _slopes(
    victim: Any, example: Example, words: Words, request: Gradients, found: TextGradient
) -> Slopes:
    """Sum token slopes over words and score every candidate to first order."""
    scale = 1 / example.spread
    tokens = [
        [at for at, (place, left, right) in enumerate(found.spans)
         if place == column and left < end and right > start]
        for column, start, end in words.spans
    ]  # fmt: skip
    gradient = found.gradient.double() * scale
    norms = [float(gradient[own].mean(dim=0).abs().sum()) if own else 0.0 for own in tokens]
    unit = max(norms, default=0.0) * GRID or 1.0
    gains: dict[int, list[float]] = {}
    for index, candidates in request.candidates.items():
        own = tokens[index]
        if not own or not candidates:
            gains[index] = [0.0] * len(candidates)
            continue
        change = victim.word_vectors(list(candidates)).double() - found.embedding[
            own
        ].double().mean(dim=0)
        fall = -(change @ gradient[own].sum(dim=0))
        gains[index] = rounded(fall, GRID).tolist()
    return Slopes(found.logits, [round(norm / unit) * unit for norm in norms], gains)
