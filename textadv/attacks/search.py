"""The parts searches are built from, as generators to delegate to with `yield from`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Literal, TypeAlias

from torch import Tensor

from textadv.attacks.base import Example, Search
from textadv.words import Words

__all__ = ["Ranked", "best", "greedy", "rank"]

Ranked: TypeAlias = Generator[list[Words], Tensor, list[int]]


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


def best(example: Example, scores: Tensor) -> tuple[int, float, bool] | None:
    """Return index, margin and success of the best answered row; None when there is none.

    Any row that flips the prediction comes before any that does not, whatever the order of
    margins; then the lowest margin, then the first row.
    """
    margins, flips = example.margins(scores), example.flips(scores)
    if not margins:
        return None
    index = min(range(len(margins)), key=lambda row: (not flips[row], margins[row]))
    return index, margins[index], flips[index]


def greedy(
    example: Example,
    order: Iterable[int],
    propose: Callable[[Words, int], list[Words]],
) -> Search:
    """Visit positions in turn and keep the best edit of each that lowers the margin.

    Stops at the first position where some candidate changes the prediction. Positions are those of
    the original text and are followed through insertions and deletions.

    Args:
        order: Positions of the original text, most important first.
        propose: The current text with its candidate edits at a position, best first.
    """
    current, margin = example.words, example.clean_margin
    for origin in order:
        index = current.position(origin)
        candidates = propose(current, index) if index is not None else []
        if not candidates:
            continue
        found = best(example, (yield candidates))
        if found is not None and found[2]:
            return candidates[found[0]]
        if found is not None and found[1] < margin:
            current, margin = candidates[found[0]], found[1]
    return None
