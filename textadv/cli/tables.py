"""What is built in, as text: lists, cards, and the table of a report."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from textadv.errors import unknown_name

__all__ = ["card_of", "list_builtin", "report_notes", "report_table"]


def list_builtin(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Return `{kind: {name: one line}}` for one kind, or all."""
    tables = {
        name: {entry: _summary(value) for entry, value in table.items()}
        for name, table in _tables().items()
        if kind in (None, name)
    }
    if kind in (None, "recipes"):
        tables["recipes"] = _recipes()
    return tables


def card_of(name: str) -> str:
    """Return the card of anything built in: its docstring, and its settings with their defaults."""
    from textadv.config import find_recipe

    for kind, table in _tables().items():
        if name in table:
            return f"{name} ({kind.removesuffix('s')})\n\n{_card(table[name])}"
    if name in _recipes():
        return find_recipe(name).read_text(encoding="utf-8")
    known = [entry for rows in list_builtin().values() for entry in rows]
    raise unknown_name("name", name, known)


def report_table(report: Any) -> Table:
    """Return clean accuracy, and accuracy under each attack and perturbation, as a table."""
    n = report.num_examples
    preliminary = " (preliminary: fewer than 100)" if n < 100 else ""
    # Of a path the name tells most, and a title as wide as the table.
    data = Path(report.data).name if Path(report.data).suffix else report.data
    title = Text(f"{data}, n = {n}{preliminary}")
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("", no_wrap=True)
    for heading in ("accuracy", "95 % interval", "success", "queries", "unresolved"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("clean", *_rate(report.clean_accuracy, report.clean_interval))
    for name, result in report.attacks.items():
        table.add_row(
            name,
            *_rate(result.accuracy_under_attack, result.interval),
            "-" if result.attack_success_rate is None else f"{result.attack_success_rate:.1%}",
            "-" if result.mean_queries is None else f"{result.mean_queries:.0f}",
            str(result.counts["unresolved"]),
        )
    if report.worst_case and len(report.attacks) > 1:
        worst = report.worst_case
        table.add_row("worst case", *_rate(worst["accuracy"], worst["interval"]))
    for name, found in report.embedding.items():
        label = f"{name.split('-')[0]} {found['norm']} {found['epsilon']}"
        table.add_row(label, *_rate(found["accuracy"], found["interval"]))
    return table


def report_notes(report: Any) -> list[str]:
    """Return what a reader of the figures should know: unresolved texts, budgets, cut texts."""
    from textadv.details import coverage_notes

    notes = []
    n = report.num_examples
    for name, result in report.attacks.items():
        reasons = dict(result.reasons)
        if spent := reasons.pop("budget", 0):
            notes.append(
                f"{name}: {spent} of {n} texts survived because their {result.query_budget} "
                "queries were used up"
            )
        reasons.pop("reduced", None)
        if reasons:
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
            notes.append(
                f"{name}: {result.counts['unresolved']} of {n} texts unresolved, which counts "
                f"neither as flipped nor as survived: {listed}"
            )
    notes += coverage_notes(report)
    unread = {one.id: one.num_unread_words for one in report.records if one.num_unread_words}
    if unread:
        notes.append(
            f"{len(unread)} of {n} texts are longer than the model reads: {sum(unread.values())} "
            "words behind the cut were not edited"
        )
    return notes


def _rate(value: float, interval: Any) -> tuple[str, str]:
    low, high = interval
    return f"{value:.1%}", f"{100 * low:.1f} to {100 * high:.1f}"


def _tables() -> dict[str, dict[str, Any]]:
    from textadv.attacks import ATTACKS
    from textadv.objectives import OBJECTIVES
    from textadv.perturb import PERTURBATIONS

    return {
        "perturbations": dict(PERTURBATIONS),
        "objectives": dict(OBJECTIVES),
        "attacks": dict(ATTACKS),
    }


def _recipes() -> dict[str, str]:
    """Return the shipped recipes with the first comment line of each."""
    from textadv.config import shipped_recipes

    found = {}
    for name, path in shipped_recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        found[name] = first.lstrip("# ") if first.startswith("#") else ""
    return found


def _summary(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _card(kind: Any) -> str:
    lines = [inspect.getdoc(kind) or "", "", "Settings:"]
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        hint = hints[field.name]
        name = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
        shown = "required" if default is dataclasses.MISSING else repr(default)
        lines.append(f"  {field.name}: {name} = {shown}".replace("typing.", ""))
    return "\n".join(lines)
