"""Which columns of a table hold the texts, the label and the id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from textadv.data.readers import Table
from textadv.errors import DataError, shown

__all__ = ["Columns", "choose_columns"]

_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
_TEXTS = (
    *("text", "sentence", "content", "review", "review_text", "review_body", "comment"),
    *("comment_text", "tweet", "message", "document", "body", "utterance", "post", "sms"),
)
_LABELS = (
    *("label", "labels", "target", "targets", "class", "category", "sentiment", "intent"),
    *("gold_label", "label_id", "topic", "score", "y"),
)
_IDS = ("id", "idx", "guid", "uid", "example_id", "text_id")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Name the columns that are read.

    Args:
        text: One column, or two for sentence pairs.
        label: The label column.
        id: The id column, or None to make ids from the texts.
        guessed: What was guessed, in words; empty when both were given.
    """

    text: list[str]
    label: str
    id: str | None
    guessed: str = ""


def choose_columns(
    table: Table, *, text: Sequence[str] | None = None, label: str | None = None
) -> Columns:
    """Check the columns that were asked for, and guess the rest from well-known names.

    Args:
        table: The source.
        text: One or two text columns, or None to guess.
        label: Label column, or None to guess.

    Raises:
        DataError: A column does not exist, or a guess is impossible or ambiguous; the message lists
            the columns and names the option to set.
    """
    for kind, name in [("text", name) for name in text or ()] + (
        [("label", label)] if label else []
    ):
        if name not in table.columns:
            raise _missing(table, kind, name)
    by_name = {name.strip().casefold(): name for name in reversed(table.columns)}
    identifier = next((by_name[name] for name in _IDS if name in by_name), None)
    if identifier == label or identifier in (text or ()):
        identifier = None
    found_label = label or _guess_label(table, by_name, taken=text or ())
    found_text = list(text or _guess_text(table, by_name, taken=(found_label, identifier)))
    guesses = ([] if text else [f"text from {', '.join(map(shown, found_text))}"]) + (
        [] if label else [f"label from {shown(found_label)}"]
    )
    guessed = f"{table.name}: guessed {' and '.join(guesses)}" if guesses else ""
    return Columns(text=found_text, label=found_label, id=identifier, guessed=guessed)


def _guess_label(table: Table, by_name: dict[str, str], taken: Sequence[str]) -> str:
    found = [by_name[name] for name in _LABELS if name in by_name and by_name[name] not in taken]
    if len(found) != 1:
        raise _unclear(table, "label", found)
    return found[0]


def _guess_text(
    table: Table, by_name: dict[str, str], taken: Sequence[str | None]
) -> tuple[str, ...]:
    free = {key: name for key, name in by_name.items() if name not in taken}
    pairs = [(free[a], free[b]) for a, b in _PAIRS if a in free and b in free]
    paired = {name for pair in pairs for name in pair}
    singles = [(free[name],) for name in _TEXTS if name in free and free[name] not in paired]
    found: list[tuple[str, ...]] = [*pairs, *singles]
    if not found and len(free) == 1:
        return tuple(free.values())
    if len(found) != 1:
        raise _unclear(table, "text", ["+".join(names) for names in found])
    return found[0]


def _missing(table: Table, kind: str, name: str) -> DataError:
    near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    return DataError(
        f"{table.name}: {kind} column",
        got=f"no column {shown(name)}",
        expected="one of " + _listed(table.columns),
        fix=f"set data.{kind} (--{kind}-column)" + (f", to {shown(near[0])}?" if near else ""),
    )


def _unclear(table: Table, kind: str, candidates: Sequence[str]) -> DataError:
    listed = "columns " + _listed(table.columns)
    return DataError(
        f"{table.name}: {kind} column",
        got=f"{listed}, of which {_listed(candidates)} are possible" if candidates else listed,
        expected=f"one clear {kind} column" if candidates else f"a well-known {kind} column name",
        fix=f"set data.{kind} (--{kind}-column)",
    )


def _listed(names: Sequence[str]) -> str:
    return shown(", ".join(names), 240).strip("'\"")
