"""Perturbed copies of texts, for training: random edits, or what attacks on a model find."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from textadv.attacks import Record, build_attack, run
from textadv.attacks.candidates import SynonymLattice
from textadv.attacks.chars import all_typos, lookalikes, slips
from textadv.attacks.checklist import CheckListInvariance
from textadv.attacks.constraints import attackable
from textadv.attacks.examples import check_examples, make_examples
from textadv.attacks.services import answer_services
from textadv.errors import ConfigError, DataError, shown, unknown_name
from textadv.seeding import python_random
from textadv.victim import as_victim, label_ids
from textadv.words import Words

__all__ = ["SOURCES", "adversarial_rows", "augment_rows", "augment_text"]

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
    id_column: str | None = None,
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
        id_column: Column whose values become strings, those of copies with `-1`, `-2`, ... added.

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
    return _augmented(rows, perturb, tuple(columns), copies, rate, seed, keep, id_column)


def adversarial_rows(
    rows: Sequence[Mapping[str, Any]],
    model: Any,
    attacks: Sequence[str | Mapping[str, Any]],
    *,
    columns: Sequence[str] = ("text",),
    labels: Sequence[int | str] | None = None,
    copies: int = 1,
    seed: int = 0,
    keep: bool = True,
    query_budget: int | None = 2000,
    editable: Sequence[int] | None = None,
    id_column: str | None = None,
    progress: Callable[[Record], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield every row and behind it the texts with which attacks flip a model.

    A row that the model gets wrong, or that no attack flips, has no copies; a text that is found
    twice is kept once.

    Args:
        rows: The data.
        model: What `textadv.victim.as_victim` takes.
        attacks: Names, or mappings with a `name` and fields.
        columns: The one or two columns with the text.
        labels: Gold labels; by default the column `label`.
        copies: Times each attack is run, each with a seed of its own: most that draw nothing find
            the same text again.
        seed: The first of these seeds.
        keep: Whether the originals are yielded too.
        query_budget: Most queries per row, attack and copy.
        editable: Positions in `columns` that attacks may edit; all by default.
        id_column: Column whose values become strings, those of copies with `-1`, `-2`, ... added.
        progress: Called with the record of each attack on each row.

    Raises:
        TextAdvError: For anything wrong with model, rows, attacks or their resources, before the
            first query.

    Example:
        >>> def scores(texts):
        ...     return [[2.0 * ("good" in text) - 1.0, 0.0] for text in texts]
        >>> rows = [{"text": "a good film", "label": 0}, {"text": "dull", "label": 1}]
        >>> [row["label"] for row in adversarial_rows(rows, scores, ["deepwordbug"])]
        [0, 0, 1]
    """
    if copies < 1:
        raise ConfigError("augment", got=f"copies {copies}", expected="copies >= 1")
    for number, row in enumerate(rows):
        _check_row(number, row, columns if labels is not None else [*columns, "label"], columns)
    victim = as_victim(model)
    gold = labels if labels is not None else [row["label"] for row in rows]
    texts = [[row[column] for column in columns] for row in rows]
    examples = make_examples(texts, label_ids(victim, gold), editable=editable)
    check_examples(victim, examples)
    built = {}
    for spec in attacks:
        fields = {"name": spec} if isinstance(spec, str) else dict(spec)
        name = str(fields.pop("name"))
        built[name] = build_attack(name, fields)
    found: dict[str, list[tuple[int, str, tuple[str, ...]]]] = {one.id: [] for one in examples}
    for copy in range(copies):
        for record in run(built, victim, examples, query_budget=query_budget, seed=seed + copy):
            if progress is not None:
                progress(record)
            if record.status == "flipped" and record.adversarial_text is not None:
                found[record.id].append((copy, record.attack, record.adversarial_text))
    for row, example in zip(rows, examples, strict=True):
        if keep:
            yield _renamed(row, id_column)
        distinct = dict.fromkeys(text for _, _, text in sorted(found[example.id]))
        for number, text in enumerate(distinct, start=1):
            changed = dict(zip(columns, text, strict=True))
            yield _renamed({**row, **changed}, id_column, number)


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
    id_column: str | None,
) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        _check_row(number, row, columns, columns)
        if keep:
            yield _renamed(row, id_column)
        for copy in range(copies):
            rng = python_random(seed, "augment", number, copy)
            changed = {column: _perturbed(row[column], perturb, rate, rng) for column in columns}
            if any(changed[column] != row[column] for column in columns):
                yield _renamed({**row, **changed}, id_column, copy + 1)


def _check_row(
    number: int, row: Mapping[str, Any], columns: Sequence[str], texts: Sequence[str]
) -> None:
    """Refuse a row without one of the columns, or with a text that is no string."""
    for column in columns:
        if row.get(column) is None or (column in texts and not isinstance(row[column], str)):
            raise DataError(
                f"row {number}, {shown(column)}",
                got=shown(row.get(column)),
                expected="a string" if column in texts else "a label",
            )


def _renamed(
    row: Mapping[str, Any], id_column: str | None, copy: int | None = None
) -> dict[str, Any]:
    """Return a row whose id, if it has one, is that of the original or of a copy."""
    if id_column is None or row.get(id_column) is None:
        return dict(row)
    suffix = "" if copy is None else f"-{copy}"
    return {**row, id_column: f"{row[id_column]}{suffix}"}


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
