"""The command that tries to refute a robustness figure: audit."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from textadv.cli.common import console, names_of, print_notes, print_text
from textadv.cli.opening import editable_columns, label_map_of
from textadv.errors import ConfigError, DataError, TextAdvError, shown
from textadv.files import exists

if TYPE_CHECKING:
    from textadv.attacks import Example
    from textadv.audit import AuditReport, Finding, Subject
    from textadv.classifier import ModelVictim
    from textadv.results import Results

__all__ = ["audit", "findings_table"]

CLAIM_EXAMPLES = 500
QUERY_BUDGET = 2000
STYLES = {"PASS": "green", "INCONCLUSIVE": "magenta", "FLAG": "yellow", "FAIL": "bold red"}
"""From what can be passed over to what cannot."""


def audit(arguments: argparse.Namespace) -> None:
    """Audit a run, or a model on data."""
    from textadv.audit import QUICK, AuditConfig, NotSupportedError, save_audit
    from textadv.audit import audit as check

    target = Path(arguments.target)
    rules = names_of(arguments.rules) or None
    config = QUICK if arguments.quick else AuditConfig()
    config = dataclasses.replace(config, seed=arguments.seed)
    if arguments.num_examples is not None:
        if arguments.num_examples < 1:
            raise ConfigError("--num-examples", got=str(arguments.num_examples), expected=">= 1")
        config = dataclasses.replace(config, num_examples=arguments.num_examples)
    of_run = (target / "report.json").is_file()
    results, subject = _run(arguments) if of_run else _model(arguments)
    with _progress(len(rules) if rules else None, quiet=arguments.json) as progress:
        report = check(subject, config, rules=rules, progress=progress)
    path = None
    if arguments.output_dir is not None:
        path = save_audit(results, report, arguments.output_dir, update_report=not of_run)
    elif of_run and rules is None:
        # Some of the rules alone are no verdict on a run.
        path = save_audit(results, report, target)
    if arguments.json:
        print(json.dumps({"model": report.model, **report.to_dict()}, indent=1))
    else:
        print_text(f"audit of {shown(report.model, 200)[1:-1]}, {report.num_examples} examples")
        console.print(findings_table(report))
        style = "bold" if report.exit_code == 0 else "bold red"
        console.print(Text(report.verdict, style=style))
        if path is not None:
            print_text(f"audit: {path}")
    if report.exit_code:
        raise NotSupportedError(
            f"the claim about {shown(report.model, 200)[1:-1]}",
            got=f"{report.verdict}: {', '.join(report.named('FAIL'))}",
            expected="no rule that fails",
        )


def findings_table(report: AuditReport) -> Table:
    """Return the findings as a table that fits 80 columns, what needs attention at its end."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("figure, and advice", overflow="fold")
    for one in sorted(report.findings, key=lambda one: list(STYLES).index(one.outcome)):
        words = Text(shown(one.title, 200)[1:-1], style="bold")
        words.append(f"\n{shown(one.figure, 400)[1:-1]}", style="not bold")
        if one.advice:
            words.append(f"\n-> {shown(one.advice, 200)[1:-1]}", style="not bold italic")
        table.add_row(one.rule, Text(one.outcome, style=STYLES[one.outcome]), words)
    return table


def _run(arguments: argparse.Namespace) -> tuple[Results, Subject]:
    """Return a finished evaluation and the subject it makes."""
    from textadv.audit import check_data, subject_of_run
    from textadv.results import load_results

    folder = Path(arguments.target)
    results = load_results(folder)
    name = arguments.model or results.report.model
    if arguments.model is None and (folder / "model").is_dir():
        name = str(folder / "model")
    recipe = _recipe(folder)
    victim = _victim(arguments, name, None if recipe is None else recipe.data.max_length)
    if arguments.data is not None:
        check_data(results, _examples(arguments, victim, arguments.data, "--data"), "--data")
    width = max(map(len, results.texts.values()), default=1)
    return results, subject_of_run(
        results,
        victim,
        editable=editable_columns(arguments, width),
        **_evidence(arguments, victim, name),
    )


def _model(arguments: argparse.Namespace) -> tuple[Results, Subject]:
    """Attack a model, and return the evaluation and the subject it makes."""
    from textadv.audit import subject_of_model
    from textadv.cli.live import AttackTable
    from textadv.run import claim_folder

    folder = Path(arguments.target)
    if folder.is_dir() and not (folder / "config.json").is_file():
        if not (folder / "model" / "config.json").is_file():
            raise DataError(
                str(folder),
                got="neither report.json nor config.json",
                expected="the directory of a run or of a model",
            )
        folder = folder / "model"
    if arguments.data is None:
        raise ConfigError(
            "--data",
            got="none",
            expected="the examples to attack, for a model without an evaluation",
            fix=f"textadv audit {arguments.target} --data FILE",
        )
    if arguments.output_dir is not None:
        out = Path(arguments.output_dir)
        claim_folder(out, resume=(out / "records.jsonl").exists())
    name = str(folder) if folder.is_dir() else arguments.target
    victim = _victim(arguments, name)
    examples = _examples(arguments, victim, arguments.data, "--data")
    n = min(CLAIM_EXAMPLES, len(examples))
    with (
        contextlib.nullcontext()
        if arguments.json
        else AttackTable(console, "attack", ["deepwordbug"], n) as attacking
    ):
        subject = subject_of_model(
            victim,
            examples,
            num_examples=n,
            query_budget=QUERY_BUDGET,
            seed=arguments.seed,
            model=name,
            data=arguments.data,
            output_dir=arguments.output_dir,
            progress=None if attacking is None else attacking.on_record,
            **_evidence(arguments, victim, name),
        )
    return subject.results, subject


def _victim(arguments: argparse.Namespace, name: str, max_length: int | None = None) -> ModelVictim:
    from textadv.classifier import ModelVictim

    length = arguments.max_length or max_length
    try:
        return ModelVictim.load(name, revision=arguments.revision, max_length=length)
    except TextAdvError as error:
        if name in (arguments.target, arguments.model) or exists(Path(name)):
            raise
        raise DataError(
            f"{arguments.target}: model {shown(name)}",
            got=error.got or str(error),
            expected="the model that was evaluated",
            fix="name it with --model",
        ) from error


def _examples(
    arguments: argparse.Namespace, victim: ModelVictim, source: str, where: str
) -> list[Example]:
    """Return all examples of a file or data set."""
    from textadv.attacks.examples import make_examples
    from textadv.data import LabelSpace, load_examples

    training = where == "--train-data"
    data = load_examples(
        source,
        split="train" if training else arguments.split,
        text=arguments.text_column.split(",") if arguments.text_column else None,
        label=arguments.label_column,
        label_space=LabelSpace.from_model(victim.model.config),
        label_map=label_map_of(arguments),
        drop_empty=training or arguments.drop_empty,
        where=where,
    )
    columns = data.splits["examples"].with_format(None)[:]
    width = len(columns["text"][0])
    return make_examples(
        columns["text"],
        columns["label"],
        ids=columns["id"],
        editable=editable_columns(arguments, width),
    )


def _evidence(arguments: argparse.Namespace, victim: ModelVictim, name: str) -> dict[str, Any]:
    """Return what a claim rests on beside its records, as far as it is given or can be found."""
    from textadv.audit.store import read_ratings
    from textadv.classifier import ModelVictim
    from textadv.embeddings import EmbeddingPort

    found: dict[str, Any] = {"train_texts": _train_texts(arguments, victim, name)}
    if arguments.ratings is not None:
        found["ratings"] = read_ratings(arguments.ratings)
    if arguments.twin is not None:
        twin = ModelVictim.load(arguments.twin, device=victim.device)
        found["twin"] = EmbeddingPort(twin.model, twin.tokenizer)
    return found


def _train_texts(arguments: argparse.Namespace, victim: ModelVictim, name: str) -> Any:
    """Return the training texts: those given, or those of the recipe beside the model."""
    if arguments.train_data is not None:
        rows = _examples(arguments, victim, arguments.train_data, "--train-data")
        return [" ".join(row.words.texts) for row in rows]
    folder = Path(name).parent
    if (recipe := _recipe(folder)) is None:
        return None
    from textadv.run import check_recipe

    try:
        texts = check_recipe(recipe, folder).splits["train"].with_format(None)[:]["text"]
    except TextAdvError as error:
        if not arguments.json:
            print_notes([f"the training data of {folder / 'recipe.yaml'} are not read: {error}"])
        return None
    return [text if isinstance(text, str) else " ".join(text) for text in texts]


def _recipe(folder: Path) -> Any:
    """Return the recipe in a directory, if there is one."""
    from textadv.config import read_recipe

    path = folder / "recipe.yaml"
    return read_recipe(path) if path.is_file() else None


@contextlib.contextmanager
def _progress(total: int | None, *, quiet: bool) -> Iterator[Callable[[Finding], None] | None]:
    """Show which rule is being checked: a bar on a terminal, else a line for each."""
    from textadv.audit import RULES

    total = total or len(RULES)
    if quiet or not console.is_terminal:
        yield None
        return
    bar = Progress(
        TextColumn("audit"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda found: bar.update(task, advance=1, description=f"{found.rule} {found.outcome}")
