"""Commands that train: quickstart, train, check."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from textadv.cli.common import console, print_notes, print_text
from textadv.cli.tables import report_notes, report_table

__all__ = ["check", "quickstart", "train"]


def quickstart(arguments: argparse.Namespace) -> None:
    """Run the main job."""
    from textadv.cli.quickstart import run_quickstart

    run_quickstart(Path(arguments.output_dir), arguments.max_minutes, console)


def train(arguments: argparse.Namespace) -> None:
    """Train from a recipe."""
    from textadv.cli.live import AttackTable
    from textadv.cli.progress import TrainProgress
    from textadv.config import find_recipe, read_recipe
    from textadv.run import run_recipe

    run = Path(arguments.recipe)
    if arguments.resume and (run / "recipe.yaml").is_file():
        path, name = run / "recipe.yaml", run.name
        folder = Path(arguments.output_dir or run)
    else:
        path = find_recipe(arguments.recipe)
        name = path.stem if path.stem != "train" else path.parent.name
        folder = Path(arguments.output_dir or Path("runs") / name)
    recipe = read_recipe(path, _anchored(arguments.overrides))
    training = TrainProgress(console, name)
    attacks, count = recipe.evaluation.build(), recipe.evaluation.num_examples
    with training, AttackTable(console, "attack", attacks, count, after=training) as attacking:
        result = run_recipe(
            recipe,
            folder,
            base_dir=path.parent,
            resume=arguments.resume,
            callback=training,
            progress=attacking.on_record,
        )
    print_notes(result.notes)
    if result.report is not None:
        console.print(report_table(result.report))
        print_notes(report_notes(result.report))
    console.print(f"model: {folder / 'model'}   report: {folder / 'report.md'}", soft_wrap=True)


def check(arguments: argparse.Namespace) -> None:
    """Check recipes."""
    from textadv.config import as_dict, find_recipe, read_recipe
    from textadv.run import check_recipe

    for name in arguments.recipes:
        path = find_recipe(name)
        recipe = read_recipe(path)
        objective = as_dict(recipe.objective)["name"]
        line = f"ok  {path}: {recipe.model.name}, objective {objective}"
        if not arguments.no_data:
            data = check_recipe(recipe, path.parent)
            sizes = ", ".join(f"{split} {len(rows)}" for split, rows in data.splits.items())
            line += f"; {sizes}; {data.labels.num_labels} labels"
            print_notes(data.notes)
        print_text(line)


def _anchored(overrides: Any) -> Any:
    """Make data files named on the command line relative to where the command runs."""
    anchored = []
    for override in overrides:
        key, _, value = override.partition("=")
        local = key in ("data.train", "data.validation", "data.test") and Path(value).is_file()
        anchored.append(f"{key}={Path(value).resolve()}" if local else override)
    return anchored
