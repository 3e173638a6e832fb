"""Commands about finished runs: compare, report, push."""

from __future__ import annotations

import argparse

from textadv.cli.common import console

__all__ = ["compare", "push", "report"]


def compare(arguments: argparse.Namespace) -> None:
    """Compare two evaluations."""
    from textadv.compare import compare

    found = compare(arguments.first, arguments.second)
    console.print(str(found), highlight=False, markup=False, soft_wrap=True)


def report(arguments: argparse.Namespace) -> None:
    """Write the page of an evaluation."""
    from textadv.page import write_report

    files = write_report(arguments.runs, arguments.html)
    console.print(f"page: {files.html}   report: {files.markdown}", soft_wrap=True)


def push(arguments: argparse.Namespace) -> None:
    """Show what would be published, and publish it when told to."""
    from textadv import hub

    plan = hub.plan_push(arguments.run, arguments.repo_id)
    console.print(plan.listing(), highlight=False, markup=False, soft_wrap=True)
    console.print(plan.card, highlight=False, markup=False, soft_wrap=True)
    if not arguments.yes:
        console.print("dry run: nothing was sent; --yes uploads these files in one commit")
        return
    result = hub.push(plan, private=arguments.private)
    done = "published" if result.changed else "already there, nothing changed"
    console.print(f"{done}: {result.url} (commit {result.commit[:12]})", soft_wrap=True)
