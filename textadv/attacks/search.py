"""The parts searches are built from, as generators to delegate to with `yield from`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor

from textadv.attacks.base import Example, Search
from textadv.attacks.meaning import Allowed
from textadv.attacks.requests import Gradients, Request
from textadv.words import Words

__all__ = ["Ranked", "best", "climb", "greedy", "rank", "rank_by_gradient"]

Ranked: TypeAlias = Generator[Request, Any, list[int]]


def rank(
    example: Example,
    positions: Sequence[int],
    by: Literal["unk", "delete"],
    unknown: str = "[UNK]",
) -> Ranked:
    """Order positions by how much the margin falls without the word; ties by position.

    Args:
        by: Replace the word with `unknown`, or delete it.

    Costs one query per position.
    """
    words = example.words
    if by == "unk":
        variants = [words.replace(index, unknown) for index in positions]
    else:
        variants = [words.delete(index) for index in positions]
    margins = example.margins((yield variants))
    order = sorted(range(len(positions)), key=lambda place: margins[place])
    return [positions[place] for place in order]


def rank_by_gradient(example: Example, positions: Sequence[int]) -> Ranked:
    """Order positions by the L1 norm of the mean gradient over their tokens; ties by position.

    Costs one query.
    """
    (slopes,) = yield Gradients([example.words])
    if slopes is None:
        return list(positions)
    return sorted(positions, key=lambda index: -slopes.norms[index])


def best(
    example: Example, scores: Tensor, similarities: Sequence[float] | None = None
) -> tuple[int, float, bool] | None:
    """Return index, margin and success of the best answered row; None when there is none.

    Any row that flips the prediction comes before any that does not, whatever the order of
    margins, and of those the most similar; then the lowest margin, then the first row.
    """
    margins, flips = example.margins(scores), example.flips(scores)
    if not margins:
        return None
    closeness = similarities if similarities is not None else [0.0] * len(margins)

    def key(row: int) -> tuple[bool, float, float]:
        return not flips[row], -closeness[row] if flips[row] else 0.0, margins[row]

    index = min(range(len(margins)), key=key)
    return index, margins[index], flips[index]


def greedy(
    example: Example,
    order: Iterable[int],
    propose: Callable[[Words, int], list[Words]],
) -> Search:
    """Climb with candidates that need no service.

    Args:
        order: Positions of the original text, most important first.
        propose: The current text with its candidate edits at a position, best first.
    """

    def proposal(words: Words, index: int) -> Allowed:
        texts = propose(words, index)
        return texts, [0.0] * len(texts)
        yield []

    return (yield from climb(example, order, proposal))


def climb(
    example: Example,
    order: Iterable[int],
    propose: Callable[[Words, int], Allowed],
    *,
    accept: Literal["current", "clean"] = "current",
    max_modified: float | None = None,
) -> Search:
    """Visit positions in turn and keep the best edit of each that lowers the margin.

    Stops at the first position where some candidate changes the prediction. Positions are those of
    the original text and are followed through insertions and deletions.

    Args:
        order: Positions of the original text, most important first.
        propose: The current text with its candidate edits at a position, best first.
        accept: What the margin of an edit must be below: that of the current or the clean text.
        max_modified: Most words modified; None for any number.
    """
    current, margin = example.words, example.clean_margin
    for origin in order:
        if max_modified is not None and current.num_modified >= max_modified:
            return None
        index = current.position(origin)
        if index is None:
            continue
        candidates, similarities = yield from propose(current, index)
        if not candidates:
            continue
        found = best(example, (yield candidates), similarities)
        if found is not None and found[2]:
            return candidates[found[0]]
        limit = margin if accept == "current" else example.clean_margin
        if found is not None and found[1] < limit:
            current, margin = candidates[found[0]], found[1]
    return None
