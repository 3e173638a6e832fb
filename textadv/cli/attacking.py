"""Commands that attack a stored model: attack, evaluate."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textadv.cli.common import (
    console,
    named,
    print_notes,
    print_outputs,
    print_text,
    settings_of,
)
from textadv.cli.opening import open_data, open_victim, prepared, read_space
from textadv.cli.tables import report_notes, report_table
from textadv.errors import ConfigError, LaunchError

if TYPE_CHECKING:
    from textadv.classifier import ModelVictim
    from textadv.cli.opening import Opened

__all__ = ["attack", "evaluate"]

EXAMPLE_BUDGET = 2000


def attack(arguments: argparse.Namespace) -> None:
    """Attack a stored model, or one text."""
    settings = settings_of(arguments.overrides)
    attacks = named(arguments.attack, settings)
    perturbations = named(arguments.perturbation, settings)
    if settings:
        raise ConfigError(
            f"override {next(iter(settings))}",
            got="settings of something that does not run",
            expected="a name given to --attack or --perturbation",
        )
    if arguments.example:
        _attack_example(arguments, attacks)
        return
    for option in ("data", "output_dir"):
        if getattr(arguments, option) is None:
            raise ConfigError(
                f"--{option.replace('_', '-')}",
                got="nothing",
                expected='data and a place for the records, or one text with --example "..."',
            )
    from textadv.config import build
    from textadv.evaluate import EvaluationConfig, sample_examples
    from textadv.measure import evaluate_victim

    config: EvaluationConfig = build(
        EvaluationConfig,
        {
            "attacks": attacks,
            "perturbations": perturbations,
            "num_examples": arguments.num_examples,
            "seed": arguments.seed,
            "query_budget": arguments.query_budget,
            "max_length": arguments.max_length,
            "timeout": arguments.timeout,
        },
        "attack",
    )
    opened = open_data(arguments, config.build())
    processes = _processes()
    victim = open_victim(arguments, device=processes.device if processes else None)
    _print_token_notes(opened, victim)
    sample = sample_examples(opened.examples, config.num_examples, config.seed)
    with _table(arguments, config, sample, processes) as table:
        report = evaluate_victim(
            victim,
            sample,
            config,
            arguments.output_dir,
            name=opened.name,
            data_name=arguments.data,
            progress=table.on_record if processes is None or not processes.process_index else None,
            processes=processes,
            commands=[arguments.line],
        )
    console.print(report_table(report))
    print_notes(report_notes(report))
    print_outputs(Path(arguments.output_dir))
    if processes is not None:
        processes.wait_for_everyone()
        processes.end_training()


def evaluate(arguments: argparse.Namespace) -> None:
    """Attack a stored model with a cascade."""
    from textadv.cascade import evaluate_cascade, get_cascade
    from textadv.cli.live import AttackTable

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError(
            "evaluate",
            got=f"{os.environ['WORLD_SIZE']} processes",
            expected="one: each stage of a cascade waits for the one before",
            fix="start it alone, or share single attacks with textadv attack",
        )
    cascade = get_cascade("quick-v1" if arguments.quick else arguments.cascade)
    tracks = tuple(arguments.tracks.split(",")) if arguments.tracks else None
    stages = cascade.select(tracks).stages
    opened = open_data(arguments)
    victim = open_victim(arguments)
    _print_token_notes(opened, victim)
    count = min(arguments.num_examples or cascade.num_examples, len(opened.examples))
    earlier: dict[str, list[str]] = {}
    for stage in stages:
        group = cascade.group(stage.track)
        ahead = [one.name for one in stages if cascade.group(one.track) == group]
        earlier[stage.name] = ahead[: ahead.index(stage.name)]
    with AttackTable(
        console,
        cascade.name,
        earlier,
        count,
        records=_earlier_records(arguments),
        before={} if arguments.individual else earlier,
    ) as table:
        report = evaluate_cascade(
            victim,
            opened.examples,
            cascade,
            arguments.output_dir,
            table.on_record,
            mode="individual" if arguments.individual else "survivors",
            tracks=tracks,
            num_examples=arguments.num_examples,
            seed=arguments.seed,
            model=opened.name,
            data=arguments.data,
            commands=[arguments.line],
        )
    print_text(report.to_markdown())
    print_outputs(Path(arguments.output_dir))


def _attack_example(arguments: argparse.Namespace, attacks: list[dict[str, Any]]) -> None:
    """Attack the text of --example with every attack and show what changed."""
    from textadv.cli.showing import show_results
    from textadv.evaluate import EvaluationConfig
    from textadv.single import attack_one
    from textadv.victim import label_names

    budget = arguments.query_budget or EXAMPLE_BUDGET
    prepared(EvaluationConfig(attacks=attacks, query_budget=budget).build())
    read_space(arguments)
    victim = open_victim(arguments)
    with console.status("attacking"):
        results = attack_one(
            victim,
            arguments.example,
            _label(arguments.label),
            attacks,
            query_budget=budget,
            seed=arguments.seed,
        )
    show_results(console, results, label_names(victim))


def _print_token_notes(opened: Opened, victim: ModelVictim) -> None:
    """Say what the tokenizer cuts or drops."""
    from textadv.data.tokens import token_notes

    texts = [example.words.texts for example in opened.examples]
    print_notes(token_notes("examples", texts, victim.tokenizer, victim.max_length))


def _label(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _table(arguments: argparse.Namespace, config: Any, sample: Any, processes: Any) -> Any:
    """Return the live table: of several processes, the first shows its own share."""
    from textadv.cli.live import AttackTable
    from textadv.shards import share

    label = "attack"
    if processes is not None:
        index, number = processes.process_index, processes.num_processes
        sample = share(sample, index, number)
        label = f"attack, process {index + 1} of {number}"
    own = {example.id for example in sample}
    records = [record for record in _earlier_records(arguments) if record.id in own]
    return AttackTable(console, label, config.build(), len(sample), records=records)


def _earlier_records(arguments: argparse.Namespace) -> list[Any]:
    """Return what an earlier start left; whether it belongs here is checked later."""
    from textadv.attacks import read_records

    path = Path(arguments.output_dir) / "records.jsonl"
    return read_records(path) if path.exists() else []


def _processes() -> Any:
    """Return the launch if several processes were started, joined to one group."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from textadv.launch import make_accelerator

    return make_accelerator("fp32")
