"""One function per command: read arguments, call the library, print."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textadv.cli.tables import card_of, list_builtin, report_table
from textadv.errors import ConfigError, shown

__all__ = [
    "attack",
    "check",
    "compare",
    "env",
    "evaluate",
    "list",
    "push",
    "quickstart",
    "report",
    "show",
    "train",
]

console = Console()


def quickstart(arguments: argparse.Namespace) -> None:
    """Run the main job."""
    from textadv.cli.quickstart import run_quickstart

    run_quickstart(Path(arguments.output_dir), arguments.max_minutes, console)


def train(arguments: argparse.Namespace) -> None:
    """Train from a recipe."""
    from textadv.cli.progress import AttackProgress, TrainProgress
    from textadv.config import find_recipe, read_recipe
    from textadv.run import run_recipe

    path = find_recipe(arguments.recipe)
    recipe = read_recipe(path, _anchored(arguments.overrides))
    name = path.stem if path.stem != "train" else path.parent.name
    folder = Path(arguments.output_dir or Path("runs") / name)
    total = recipe.evaluation.num_examples * len(recipe.evaluation.attacks)
    with (
        AttackProgress(console, "attack", total) as attacking,
        TrainProgress(console, name) as training,
    ):
        result = run_recipe(
            recipe,
            folder,
            base_dir=path.parent,
            resume=arguments.resume,
            callback=training,
            progress=attacking.on_record,
        )
    _print_notes(result.notes)
    if result.report is not None:
        console.print(report_table(result.report))
    console.print(f"model: {folder / 'model'}   report: {folder / 'report.md'}", soft_wrap=True)


def attack(arguments: argparse.Namespace) -> None:
    """Attack a stored model."""
    from textadv.cli.progress import AttackProgress
    from textadv.config import build
    from textadv.evaluate import EvaluationConfig
    from textadv.run import evaluate_model

    settings = _settings(arguments.overrides)
    config: EvaluationConfig = build(
        EvaluationConfig,
        {
            "attacks": _named(arguments.attack, settings),
            "perturbations": _named(arguments.perturbation, settings),
            "num_examples": arguments.num_examples,
            "seed": arguments.seed,
            "query_budget": arguments.query_budget,
            "max_length": arguments.max_length,
        },
        "attack",
    )
    if settings:
        raise ConfigError(
            f"override {next(iter(settings))}",
            got="settings of something that does not run",
            expected="a name given to --attack or --perturbation",
        )
    victim, data = _opened(arguments)
    examples = data.splits["examples"]
    total = min(config.num_examples, len(examples)) * len(config.attacks)
    with AttackProgress(console, "attack", total) as progress:
        report = evaluate_model(
            victim.model,
            victim.tokenizer,
            examples,
            data.labels,
            config,
            max_length=victim.max_length,
            output_dir=arguments.output_dir,
            name=arguments.model,
            data_name=arguments.data,
            progress=progress.on_record,
        )
    if report is not None:
        console.print(report_table(report))
    _print_outputs(Path(arguments.output_dir))


def evaluate(arguments: argparse.Namespace) -> None:
    """Attack a stored model with a cascade."""
    from textadv.cascade import evaluate_cascade, get_cascade
    from textadv.cli.progress import AttackProgress
    from textadv.evaluate import make_examples

    cascade = get_cascade("quick-v1" if arguments.quick else arguments.cascade)
    victim, data = _opened(arguments)
    columns = data.splits["examples"].with_format(None)[:]
    examples = make_examples(columns["text"], columns["label"], ids=columns["id"])
    total = (arguments.num_examples or cascade.num_examples) * len(cascade.stages)
    with AttackProgress(console, cascade.name, total) as progress:
        report = evaluate_cascade(
            victim,
            examples,
            cascade,
            arguments.output_dir,
            progress.on_record,
            mode="individual" if arguments.individual else "survivors",
            num_examples=arguments.num_examples,
            seed=arguments.seed,
            model=arguments.model,
            data=arguments.data,
        )
    console.print(report.to_markdown(), highlight=False, markup=False, soft_wrap=True)
    _print_outputs(Path(arguments.output_dir))


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
            _print_notes(data.notes)
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def env(arguments: argparse.Namespace) -> None:
    """Show versions and hardware."""
    from textadv.launch import environment

    print(json.dumps(environment(), indent=1))


def _opened(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Check directory and data, then load the model; all from the arguments they share."""
    from textadv.classifier import ModelVictim
    from textadv.data import LabelSpace, load_examples
    from textadv.models import load_config
    from textadv.run import claim_folder

    folder = Path(arguments.output_dir)
    claim_folder(folder, resume=(folder / "records.jsonl").exists())
    data = load_examples(
        arguments.data,
        split=arguments.split,
        text=arguments.text_column.split(",") if arguments.text_column else None,
        label=arguments.label_column,
        label_space=LabelSpace.from_model(load_config(arguments.model, arguments.revision)),
    )
    _print_notes(data.notes)
    victim = ModelVictim.load(
        arguments.model, revision=arguments.revision, max_length=arguments.max_length
    )
    return victim, data


def _print_outputs(folder: Path) -> None:
    line = f"report: {folder / 'report.md'}   records: {folder / 'records.jsonl'}"
    console.print(line, soft_wrap=True)


def _print_notes(notes: Any) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _settings(overrides: Any) -> dict[str, dict[str, Any]]:
    """Read `name.field=value` arguments into one mapping per name."""
    settings: dict[str, dict[str, Any]] = {}
    for override in overrides:
        path, sign, text = override.partition("=")
        name, dot, field = path.rpartition(".")
        if not (sign and dot and name and field):
            raise ConfigError(
                f"override {shown(override)}", expected="name.field=value, such as pgd.epsilon=0.3"
            )
        settings.setdefault(name, {})[field] = yaml.safe_load(text)
    return settings


def _named(names: str | None, settings: dict[str, dict[str, Any]]) -> Any:
    """Turn `a,b` into mappings with a name, taking their settings out of `settings`."""
    chosen = [name.strip() for name in (names or "").split(",") if name.strip()]
    return [{"name": name, **settings.pop(name, {})} for name in chosen]


def _anchored(overrides: Any) -> Any:
    """Make data files named on the command line relative to where the command runs."""
    anchored = []
    for override in overrides:
        key, _, value = override.partition("=")
        local = key in ("data.train", "data.validation", "data.test") and Path(value).is_file()
        anchored.append(f"{key}={Path(value).resolve()}" if local else override)
    return anchored
