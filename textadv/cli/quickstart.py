"""`textadv quickstart`: train clean and robust, attack both, compare."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from textadv import quickstart
from textadv.cli.live import AttackTable
from textadv.cli.progress import TrainProgress
from textadv.config import find_recipe, read_recipe
from textadv.errors import ConfigError
from textadv.report import RobustnessReport
from textadv.run import claim_folder, run_recipe

__all__ = ["run_quickstart"]


def run_quickstart(folder: Path, max_minutes: float, console: Console) -> None:
    """Run the main job in `folder`, in about `max_minutes` at most, and print one table."""
    if not max_minutes > 0:
        raise ConfigError("--max-minutes", got=str(max_minutes), expected="a number > 0")
    claim_folder(folder, resume=False)
    recipes = {name: read_recipe(find_recipe(f"quickstart/{name}")) for name in ("clean", "robust")}
    sizes = quickstart.write_news(folder / "data")
    console.print(
        f"data: BBC News, {sizes['train']} texts to train on, {sizes['test']} to test; five topics",
        highlight=False,
    )
    texts = [row["text"] for row in quickstart.news()]
    epochs, examples = quickstart.fit_budget(
        max_minutes,
        quickstart.seconds_per_batch(texts),
        num_train=sizes["train"],
        epochs=int(recipes["clean"].training.epochs),
        num_examples=recipes["clean"].evaluation.num_examples,
    )
    console.print(
        f"plan: two models, {epochs} epochs each, then {examples} test texts under attack",
        highlight=False,
    )
    reports: dict[str, RobustnessReport] = {}
    minutes: dict[str, float] = {}
    for name, recipe in recipes.items():
        recipe = dataclasses.replace(
            recipe,
            training=dataclasses.replace(recipe.training, epochs=float(epochs)),
            evaluation=dataclasses.replace(recipe.evaluation, num_examples=examples),
        )
        started = time.monotonic()
        training = TrainProgress(console, f"{name}: train")
        attacks = recipe.evaluation.build()
        with (
            training,
            AttackTable(console, f"{name}: attack", attacks, examples, after=training) as attacking,
        ):
            result = run_recipe(
                recipe,
                folder / name,
                base_dir=folder / "data",
                callback=training,
                progress=attacking.on_record,
            )
        if result.report is None:
            raise RuntimeError("the quickstart has one class per text")
        reports[name] = result.report
        minutes[name] = (time.monotonic() - started) / 60
    text = quickstart.compare(reports, minutes)
    if importlib.util.find_spec("matplotlib") is not None:
        quickstart.plot(reports, folder / "accuracy.png")
    (folder / "report.md").write_text(text, encoding="utf-8")
    console.print(_table(reports))
    console.print(
        f"report: {folder / 'report.md'}   robust model: {folder / 'robust' / 'model'}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"next: textadv push {folder / 'robust'} YOU/NAME   (a dry run, until you add --yes)",
        highlight=False,
        soft_wrap=True,
    )


def _table(reports: dict[str, RobustnessReport]) -> Any:
    first = next(iter(reports.values()))
    table = Table(title=f"Accuracy on the same {first.num_examples} texts", title_justify="left")
    table.add_column("")
    for name in reports:
        table.add_column(f"{name} training", justify="right")
    for label, figures in quickstart.rows(reports):
        table.add_row(label, *(quickstart.cell(*figure) for figure in figures))
    return table
