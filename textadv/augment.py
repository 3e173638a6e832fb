"""Perturbed copies of texts, for training: random edits, without a model under attack."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from textadv.attacks.candidates import SynonymLattice
from textadv.attacks.chars import all_typos, lookalikes, slips
from textadv.attacks.checklist import CheckListInvariance
from textadv.attacks.constraints import attackable
from textadv.attacks.services import answer_services
from textadv.errors import ConfigError, DataError, shown, unknown_name
from textadv.seeding import python_random
from textadv.words import Words

__all__ = ["SOURCES", "augment_rows", "augment_text"]

Perturb: TypeAlias = Callable[[Words, int, random.Random], Words]
"""Edits up to a number of words of a text."""


def augment_rows(
    rows: Iterable[Mapping[str, Any]],
    source: str = "wordnet",
    *,
    columns: Sequence[str] = ("text",),
    copies: int = 1,
    rate: float = 0.1,
    seed: int = 0,
    keep: bool = True,
    fields: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    r"""Yield every row and behind it its perturbed copies; labels and other columns stay.

    A copy that would equal the original, because no word has a candidate, is left out. What a row
    becomes depends on the seed and its number alone.

    Args:
        rows: The data.
        source: A key of `SOURCES`.
        columns: Columns that hold text.
        copies: Copies of each row.
        rate: Share of the words edited, rounded up.
        seed: Where the random streams derive from.
        keep: Whether the originals are yielded too.
        fields: Settings of the source, such as the paths of its resources.

    Raises:
        ConfigError: An unknown source or field, or a number out of range.
        DataError: A row without one of the columns, or whose value is no string.
        ResourceError: The source lacks a resource; before the first row.

    Example:
        >>> [ascii(row["text"]) for row in augment_rows([{"text": "a fine film"}], "lookalikes")]
        ["'a fine film'", "'a fine f\\u0456lm'"]
    """
    if copies < 1 or not 0 < rate <= 1:
        raise ConfigError(
            "augment", got=f"copies {copies}, rate {rate}", expected="copies >= 1, 0 < rate <= 1"
        )
    perturb = _source(source, fields or {})
    return _augmented(rows, perturb, tuple(columns), copies, rate, seed, keep)


def augment_text(
    text: str,
    source: str = "wordnet",
    *,
    rate: float = 0.1,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
) -> str:
    """Return one perturbed copy of a text, or the text itself if no word has a candidate."""
    return _perturbed(
        text, _source(source, fields or {}), rate, python_random(seed, "augment", 0, 0)
    )


def _augmented(
    rows: Iterable[Mapping[str, Any]],
    perturb: Perturb,
    columns: tuple[str, ...],
    copies: int,
    rate: float,
    seed: int,
    keep: bool,
) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        for column in columns:
            if not isinstance(row.get(column), str):
                raise DataError(
                    f"row {number}, {shown(column)}",
                    got=shown(row.get(column)),
                    expected="a string",
                )
        if keep:
            yield dict(row)
        for copy in range(copies):
            rng = python_random(seed, "augment", number, copy)
            changed = {column: _perturbed(row[column], perturb, rate, rng) for column in columns}
            if any(changed[column] != row[column] for column in columns):
                yield {**row, **changed}


def _perturbed(text: str, perturb: Perturb, rate: float, rng: random.Random) -> str:
    words = Words.of(text)
    return perturb(words, math.ceil(rate * len(words)), rng).texts[0]


def _source(name: str, fields: Mapping[str, Any]) -> Perturb:
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES, where="augment")
    return SOURCES[name](fields)


def _each_word(edits: Callable[[str, random.Random], list[str]]) -> Callable[..., Perturb]:
    """Return a source that edits words one by one."""

    def source(fields: Mapping[str, Any]) -> Perturb:
        if fields:
            raise unknown_name("field", next(iter(fields)), [], where="augment")

        def perturb(words: Words, count: int, rng: random.Random) -> Words:
            places = attackable(words)
            rng.shuffle(places)
            changes: dict[int, str] = {}
            for at in places:
                options = edits(words.words[at], rng)
                if options and len(changes) < count:
                    changes[at] = rng.choice(options)
            return words.replace_many(changes)

        return perturb

    return source


def _lattice(kind: Any) -> Callable[..., Perturb]:
    """Return a source that substitutes words from a lattice."""

    def source(fields: Mapping[str, Any]) -> Perturb:
        known = ("wordnet", "vectors", "sememes", "masked_lm", "max_candidates", "min_cosine")
        for field in fields:
            if field not in known:
                raise unknown_name("field", field, known, where="augment")
        lattice = SynonymLattice(source=kind, **{"max_candidates": 10, **fields})
        lattice.prepare()

        def perturb(words: Words, count: int, rng: random.Random) -> Words:
            found = _served(lattice, words)
            places = rng.sample(sorted(found), min(count, len(found)))
            return words.replace_many({at: rng.choice(found[at]) for at in places})

        return perturb

    return source


def _served(lattice: SynonymLattice, words: Words) -> dict[int, list[str]]:
    """Return the lattice of a text, answering what it asks of a model."""
    proposing = lattice.propose(words)
    reply: Any = None
    while True:
        try:
            request: Any = proposing.send(reply)
        except StopIteration as stop:
            found: dict[int, list[str]] = stop.value
            return found
        (reply,) = answer_services([request])


def _invariant(fields: Mapping[str, Any]) -> Perturb:
    edits = CheckListInvariance(**fields).edits

    def perturb(words: Words, count: int, rng: random.Random) -> Words:
        for _ in range(count):
            options = edits(words, rng)
            if not options:
                break
            words = rng.choice(options)
        return words

    return perturb


SOURCES: dict[str, Callable[..., Perturb]] = {
    "checklist": _invariant,
    "keyboard": _each_word(slips),
    "lookalikes": _each_word(lambda word, rng: lookalikes(word)),
    "masked-lm": _lattice("masked-lm"),
    "sememes": _lattice("sememes"),
    "typos": _each_word(lambda word, rng: all_typos(word)),
    "vectors": _lattice("vectors"),
    "wordnet": _lattice("wordnet"),
}
"""What edits come from: characters, synonyms, a masked language model, or invariances."""
