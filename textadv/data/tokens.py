"""What a tokenizer makes of the texts: how many it cuts, and what it cannot see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["token_notes"]

MOST_TEXTS = 2000
MOST_CHARACTERS = 20_000
# Zero width, soft hyphen, direction marks, and controls that are not white space.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)


def token_notes(
    name: str, texts: Sequence[Sequence[str]], tokenizer: Any, max_length: int
) -> list[str]:
    """Say how many texts are cut, how long they are, and which characters leave no trace.

    Of many texts an evenly spaced sample of `MOST_TEXTS` is read, the first `MOST_CHARACTERS`
    characters of each.

    Args:
        name: What the texts are called.
        texts: One or two strings each.
        tokenizer: A Transformers tokenizer.
        max_length: Longest input in tokens.
    """
    step = -(-len(texts) // MOST_TEXTS) or 1
    sample = [[column[:MOST_CHARACTERS] for column in text] for text in texts[::step]]
    if not sample:
        return []
    notes = []
    lengths = [len(row) for row in _encode(sample, tokenizer)]
    cut = sum(length > max_length for length in lengths)
    of = f"of {len(sample)} texts" if step == 1 else f"of a sample of {len(sample)} texts"
    if cut:
        p95 = int(np.percentile(lengths, 95, method="higher"))
        notes.append(
            f"{name}: {cut / len(sample):.1%} {of} have more than {max_length} tokens and are "
            f"cut; 95 % have at most {p95}"
        )
    marked = [text for text in sample if any(map(_INVISIBLE.search, text))]
    if marked:
        plain = [[_INVISIBLE.sub("", column) for column in text] for text in marked]
        pairs = zip(_encode(marked, tokenizer), _encode(plain, tokenizer), strict=True)
        dropped = sum(one == other for one, other in pairs)
        notes.append(
            f"{name}: {len(marked)} {of} hold invisible characters; "
            f"in {dropped} the tokenizer drops them"
        )
    return notes


def _encode(texts: Sequence[Sequence[str]], tokenizer: Any) -> list[list[int]]:
    columns = [list(column) for column in zip(*texts, strict=True)]
    rows: list[list[int]] = tokenizer(*columns, truncation=False, verbose=False)["input_ids"]
    return rows
