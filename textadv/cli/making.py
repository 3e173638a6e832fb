"""Commands that make what to train and attack with: augment, counterfit."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textadv.cli.common import console, named, print_notes, print_text, settings_of, value_of
from textadv.errors import ConfigError, DataError, ResourceError, shown

if TYPE_CHECKING:
    from textadv.data.columns import Columns

__all__ = ["augment", "counterfit"]

Rows = list[dict[str, Any]]
BUDGET = 2000


def augment(arguments: argparse.Namespace) -> None:
    """Write perturbed copies of a data set."""
    from textadv.cli.rows import open_rows, write_rows

    write = write_rows(Path(arguments.out), exact=arguments.exact)
    only = {"rate": "source", "model": "attack", "query_budget": "attack", "label_name": "attack"}
    for option, kind in only.items():
        if getattr(arguments, option) is not None and getattr(arguments, kind) is None:
            raise ConfigError(
                f"--{option.replace('_', '-')}",
                got=f"no --{kind}",
                expected=f"it with --{kind} alone",
            )
    if arguments.attack is not None and arguments.model is None:
        raise ConfigError("--model", got="nothing", expected="the model to attack")
    settings = settings_of(arguments.overrides)
    arguments.split = arguments.split or "train"
    columns, rows = open_rows(arguments)
    if arguments.source is not None:
        written = write(_random(arguments, settings, columns, rows))
    else:
        written = write(_found(arguments, settings, columns, rows))
    originals = 0 if arguments.only_copies else len(rows)
    print_text(f"{len(rows)} rows, {written - originals} copies: {arguments.out}")


def _random(
    arguments: argparse.Namespace,
    settings: dict[str, dict[str, Any]],
    columns: Columns,
    rows: Rows,
) -> Iterator[dict[str, Any]]:
    """Return rows and copies with random edits."""
    from textadv.augment import augment_rows
    from textadv.cli.opening import editable_columns

    fields = settings.pop(arguments.source, {})
    _refuse_others(settings)
    places = editable_columns(arguments, len(columns.text))
    return augment_rows(
        rows,
        arguments.source,
        columns=[name for at, name in enumerate(columns.text) if places is None or at in places],
        copies=arguments.copies,
        rate=0.1 if arguments.rate is None else arguments.rate,
        seed=arguments.seed,
        keep=not arguments.only_copies,
        fields=fields,
        id_column=columns.id,
    )


def _found(
    arguments: argparse.Namespace,
    settings: dict[str, dict[str, Any]],
    columns: Columns,
    rows: Rows,
) -> Iterator[dict[str, Any]]:
    """Return rows and the texts that attacks find."""
    from textadv.augment import adversarial_rows
    from textadv.cli.live import AttackTable
    from textadv.cli.opening import (
        editable_columns,
        open_victim,
        prepared,
        read_examples,
        read_space,
    )
    from textadv.evaluate import EvaluationConfig

    attacks = named(arguments.attack, settings)
    _refuse_others(settings)
    prepared(EvaluationConfig(attacks=attacks).build())
    examples = read_examples(arguments, read_space(arguments))
    victim = open_victim(arguments)
    names = [attack["name"] for attack in attacks]
    statuses: Counter[str] = Counter()
    with AttackTable(console, "attack", names, len(rows) * arguments.copies) as table:

        def progress(record: Any) -> None:
            table.on_record(record)
            statuses[record.status] += 1

        yield from adversarial_rows(
            rows,
            victim,
            attacks,
            columns=columns.text,
            labels=[example.label for example in examples],
            copies=arguments.copies,
            seed=arguments.seed,
            keep=not arguments.only_copies,
            query_budget=arguments.query_budget or BUDGET,
            editable=editable_columns(arguments, len(columns.text)),
            id_column=columns.id,
            progress=progress,
        )
    counts = ", ".join(f"{status.replace('_', ' ')} {n}" for status, n in statuses.most_common())
    print_notes([f"searches: {counts}"])


def _refuse_others(settings: dict[str, dict[str, Any]]) -> None:
    """Refuse settings of what does not run."""
    if settings:
        raise ConfigError(
            f"override {next(iter(settings))}",
            got="settings of something that does not run",
            expected="a name given to --source or --attack",
        )


def counterfit(arguments: argparse.Namespace) -> None:
    """Make counter-fitted vectors and say what moved."""
    from textadv import settings
    from textadv.counterfit import (
        Counterfit,
        fit_of,
        make_counterfit,
        read_pairs,
        wordnet_pairs,
    )
    from textadv.resources import find
    from textadv.vectors import load_vectors

    fields = {}
    for override in arguments.overrides:
        field, _, text = override.partition("=")
        fields[field] = value_of(field, text)
    config: Counterfit = settings.build(Counterfit, fields, "counterfit", {})
    if not Path(arguments.vectors).exists():
        raise ResourceError(
            f"vectors {shown(arguments.vectors)}",
            got="no such file",
            expected="a .npy matrix beside words.txt, or a word2vec or GloVe text file",
        )
    path = str(find("vectors", arguments.vectors).resolve())
    if (arguments.synonyms is None) != (arguments.antonyms is None):
        missing = "antonyms" if arguments.antonyms is None else "synonyms"
        raise ConfigError(f"--{missing}", got="nothing", expected="both lists, or neither")
    if arguments.synonyms is None:
        synonyms, antonyms = wordnet_pairs()
    else:
        synonyms, antonyms = read_pairs(arguments.synonyms), read_pairs(arguments.antonyms)
    if not synonyms and not antonyms:
        raise DataError("--synonyms, --antonyms", got="no pairs", expected="some")
    before = load_vectors(path)
    started = time.monotonic()
    with console.status("counter-fitting"):
        after = make_counterfit(
            path,
            Path(arguments.output_dir).resolve(),
            synonyms=synonyms,
            antonyms=antonyms,
            config=config,
        )
    fit = fit_of(before, after, synonyms, antonyms)
    print_text(
        f"{fit.words} words, {fit.moved} of them moved in {time.monotonic() - started:.0f} s; "
        f"mean cosine to their old vectors {fit.kept:.3f}"
    )
    for kind, count, cosines in (
        ("synonyms", fit.synonyms, fit.synonym_cosine),
        ("antonyms", fit.antonyms, fit.antonym_cosine),
    ):
        figures = "" if cosines is None else f", mean cosine {cosines[0]:.3f} -> {cosines[1]:.3f}"
        pairs = "pair" if count == 1 else "pairs"
        print_text(f"{kind}: {count} {pairs} with vectors{figures}")
    print_text(f"vectors: {arguments.output_dir}   (set TEXTADV_VECTORS to it)")
