"""What a search may ask for: scores, gradients, masked-LM proposals, sentence similarities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from textadv.words import Words

__all__ = ["Fill", "Gradients", "Guess", "Request", "Service", "Similar", "Slopes"]


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Ask for the slope of the margin at some texts; answered with a list of `Slopes | None`.

    Each text costs one query. None stands for a text that the budget did not pay for.

    Args:
        texts: Where the slope is wanted.
        candidates: Substitutes by position, the same for every text.
    """

    texts: list[Words]
    candidates: Mapping[int, Sequence[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Slopes:
    """The slope of the margin at one text, in the margin's unit.

    Args:
        logits: The logits `(C,)` at the text.
        norms: For each word the L1 norm of the mean gradient over its tokens; 0 for a word that
            the model does not read.
        gains: For each candidate how far the margin falls if it is put in, to first order.
    """

    logits: Tensor
    norms: list[float]
    gains: dict[int, list[float]]


@dataclasses.dataclass(frozen=True)
class Fill:
    """Ask a masked language model what stands in gaps; no query.

    Answered with a list per gap of `(word, probability)` pairs, most probable first: those of its
    `top_k` tokens that are whole words of letters.

    Args:
        model: Directory of the model; see `textadv.resources.find`.
        gaps: What stands before and after each gap.
        top_k: Tokens looked at, before those that are no words are left out.
    """

    model: str | None
    gaps: list[tuple[str, str]]
    top_k: int


@dataclasses.dataclass(frozen=True)
class Guess:
    """Ask a masked language model for other words in places of an unmasked text; no query.

    Answered with a list of words per span, best first. Words of one token are ranked by their
    logit; longer ones by the perplexity of the first 24 combinations of 4 pieces per token.

    Args:
        model: Directory of the model.
        text: The text.
        spans: Start and end of the words asked about.
        top_k: Tokens looked at for each word of one token.
    """

    model: str | None
    text: str
    spans: list[tuple[int, int]]
    top_k: int


@dataclasses.dataclass(frozen=True)
class Similar:
    """Ask a sentence encoder for the cosine of pairs of texts; no query.

    Args:
        model: Directory of the encoder.
        pairs: The texts.
    """

    model: str | None
    pairs: list[tuple[str, str]]


Service: TypeAlias = Fill | Guess | Similar
Request: TypeAlias = list[Words] | Gradients | Service
