"""Commands that say what there is: resources, list, show, env."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap

from rich.table import Table
from rich.text import Text

from textadv.cli.common import console, print_text
from textadv.cli.tables import card_of, list_builtin
from textadv.errors import unknown_name

__all__ = ["env", "list", "resources", "show"]

LABELS = 17


def resources(arguments: argparse.Namespace) -> None:
    """Say what attacks need, where it was looked for, and how to get it."""
    from textadv.attacks.listing import attack_needs, list_resources

    needs = attack_needs()
    for name in arguments.attacks:
        if name not in needs:
            raise unknown_name("attack", name, needs)
    chosen = {name: needs[name] for name in arguments.attacks or needs}
    wanted = {kind for kinds in chosen.values() for kind in kinds}
    found = [one for one in list_resources() if not arguments.attacks or one.kind in wanted]
    missing = {one.kind for one in found if one.path is None}
    lacking = {name: [k for k in kinds if k in missing] for name, kinds in chosen.items()}
    if arguments.json:
        kinds = [{**dataclasses.asdict(one), "path": one.path and str(one.path)} for one in found]
        uses = {n: {"needs": chosen[n], "missing": lacking[n]} for n in chosen}
        print(json.dumps({"resources": kinds, "attacks": uses}, indent=1))
        return
    for one in found:
        state = Text("missing", "bold red") if one.path is None else Text("found", "green")
        console.print(Text.assemble((one.kind, "bold"), "  ", state))
        where = f"{one.path}" + (f"  ({one.version})" if one.version else "")
        rows = {"what": one.what, "where": where}
        if one.path is None:
            rows = {"what": one.what, "looked for": one.looked, "how to get it": one.how}
        attacks = [name for name in one.attacks if name in chosen]
        rows["used by"] = ", ".join(attacks) or "no attack by default"
        _print_indented(rows)
    ready = [name for name, kinds in lacking.items() if not kinds]
    console.print(Text("attacks", "bold"))
    rows = {"ready": ", ".join(ready) or "none"}
    rows |= {
        f"missing {kind}": ", ".join(name for name, kinds in lacking.items() if kind in kinds)
        for kind in sorted({kind for kinds in lacking.values() for kind in kinds})
    }
    _print_indented(rows)


def _print_indented(rows: dict[str, str]) -> None:
    """Print labelled paragraphs; paths and names are never broken."""
    for label, value in rows.items():
        wrapped = textwrap.fill(
            value,
            min(console.width, 100),
            initial_indent=f"  {label:<{LABELS}}  ",
            subsequent_indent=" " * (LABELS + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        print_text(wrapped)


def list(arguments: argparse.Namespace) -> None:
    """List what is built in."""
    tables = list_builtin(arguments.kind)
    if arguments.json:
        print(json.dumps(tables, indent=1))
        return
    for kind, rows in tables.items():
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for name, summary in rows.items():
            grid.add_row(f"  {name}", Text(summary))
        console.print(Text(kind, style="bold"))
        console.print(grid)


def show(arguments: argparse.Namespace) -> None:
    """Show a card."""
    console.print(card_of(arguments.name), highlight=False, markup=False, soft_wrap=True)


def env(arguments: argparse.Namespace) -> None:
    """Show versions and hardware."""
    from textadv.launch import environment

    print(json.dumps(environment(), indent=1))
