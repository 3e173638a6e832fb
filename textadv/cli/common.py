"""What commands share: the console, the notes they print, and `name.field=value` settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textadv.cli.console import SafeConsole
from textadv.errors import ConfigError, shown
from textadv.settings import parse_yaml

__all__ = [
    "console",
    "named",
    "names_of",
    "print_notes",
    "print_outputs",
    "print_text",
    "settings_of",
    "value_of",
]

console = SafeConsole()
"""Where all commands print; silent in all processes of a launch but the first."""


def print_text(text: str) -> None:
    """Print a text as it is: no markup, no colours, no line breaks of ours."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_notes(notes: Iterable[str]) -> None:
    """Print what a reader should know, a line each."""
    for note in notes:
        print_text(f"note: {note}")


def print_outputs(folder: Path) -> None:
    """Say where the report and the records are."""
    print_text(f"report: {folder / 'report.md'}   records: {folder / 'records.jsonl'}")


def settings_of(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `name.field=value` arguments into one mapping per name."""
    settings: dict[str, dict[str, Any]] = {}
    for override in overrides:
        path, sign, text = override.partition("=")
        name, dot, field = path.rpartition(".")
        if not (sign and dot and name and field):
            raise ConfigError(
                f"override {shown(override)}", expected="name.field=value, such as pgd.epsilon=0.3"
            )
        settings.setdefault(name, {})[field] = value_of(path, text)
    return settings


def value_of(where: str, text: str) -> Any:
    """Read the value of an override."""
    return parse_yaml(text, f"override {where}")


def names_of(text: str | None) -> list[str]:
    """Split names at commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def named(names: str | None, settings: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn `a,b` into mappings with a name, taking their settings out of `settings`."""
    return [{"name": name, **settings.pop(name, {})} for name in names_of(names)]
