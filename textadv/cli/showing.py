"""What attacks did to one text, for a person to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from textadv.attacks.chars import LOOKALIKES
from textadv.diff import Change, marked, visible
from textadv.single import SingleResult

__all__ = ["show_results"]

STRANGE = frozenset(LOOKALIKES.values())
STYLES = {"removed": "red strike", "added": "bold green"}


def show_results(
    console: Console, results: Sequence[SingleResult], names: Sequence[Any] = ()
) -> None:
    """Print the prediction for a text, and what each attack made of it.

    Where there is colour, words that went are struck through in red and those that came are green;
    elsewhere they stand in `[-...-]` and `{+...+}`.

    Args:
        console: Where to print.
        results: From `textadv.single.attack_one`.
        names: What the model calls its classes.
    """
    record, scores = results[0].record, results[0].scores
    said = "nothing" if record.prediction is None else _class(record.prediction, scores[0], names)
    label = names[record.label] if record.label < len(names) else record.label
    _print(console, f"the model says {said}; label: {label}")
    if record.num_unread_words:
        _print(
            console,
            f"note: {record.num_unread_words} of {record.num_words} words are behind the longest "
            "input of the model; no attack edits them",
        )
    width = max(len(one.record.attack) for one in results)
    for one in results:
        _print(console, f"\n{one.record.attack:<{width}}  {_outcome(one, names)}", style="bold")
        for number, changes in enumerate(one.changes, start=1):
            place = f"{number}: " if len(one.changes) > 1 else ""
            console.print(Text("  " + place) + _diff(console, changes), soft_wrap=True)


def _outcome(one: SingleResult, names: Sequence[Any]) -> str:
    """Return how an attack ended, in words."""
    record = one.record
    queries = f"{record.num_queries} {'query' if record.num_queries == 1 else 'queries'}"
    if record.adversarial_text is None:
        reasons = {
            "": {
                "survived": "survived",
                "wrong_before": "wrong before any attack",
            }.get(record.status, record.status),
            "budget": "survived: all queries are used up",
            "no_candidates": "unresolved: no word has a candidate",
            "replay": "unresolved: the text found does not change the prediction again",
        }
        return f"{reasons.get(record.reason, f'unresolved: {record.reason}')}, {queries}"
    prediction = record.adversarial_prediction
    said = "" if prediction is None else _class(prediction, one.scores[1], names)
    changed = f"{record.num_modified_words} of {record.num_words} words changed"
    kept = "reduced, still" if record.status == "survived" else "flipped to"
    return f"{kept} {said}: {changed}, {queries}"


def _class(index: int, scores: Sequence[float], names: Sequence[Any]) -> str:
    name = names[index] if index < len(names) else index
    return f"{name} ({scores[index]:.1%})"


def _diff(console: Console, changes: Sequence[Change]) -> Text:
    if console.color_system is None or console.no_color:
        return Text(marked(changes, STRANGE))
    text = Text()
    for kind, piece in changes:
        shown = visible(piece) if kind == "same" else visible(piece, plain=" ", strange=STRANGE)
        text.append(shown, style=STYLES.get(kind, ""))
    return text


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
