"""Measure accuracy under attack: sample, attack, and write the records and the report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textadv import metrics
from textadv.attacks import build_attack, run
from textadv.attacks.base import Attack, Example, attack_config, attack_identity, config_hash
from textadv.attacks.examples import (
    check_examples,
    make_examples,
    sample_examples,
    sample_hash,
)
from textadv.attacks.records import Record
from textadv.errors import ConfigError, shown
from textadv.perturb import Perturbation
from textadv.report import AttackResult, RobustnessReport
from textadv.shards import Processes, collect_records
from textadv.victim import Victim, as_victim, label_ids

__all__ = ["EvaluationConfig", "attack", "evaluate_attacks", "make_examples", "sample_examples"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The `evaluation` block of a recipe.

    Args:
        attacks: Names, or mappings `{name: ..., field: value, ...}`. A mapping may give an `alias`
            to be recorded under, so that one attack can run with several settings.
        perturbations: Embedding-space perturbations under which accuracy is measured as well, on
            the same sample, and on the validation data during training.
        num_examples: Size of the sample.
        query_budget: Most queries per example and attack; None for no limit.
        seed: Of the sample and of the attacks.
        width: Searches that run at once. Changes the speed, not the outcome.
        cache_size: Texts whose scores are remembered. Changes the speed, not the outcome.
        max_length: Longest input of the model in tokens; None for what the model can read.
        batch_tokens: Most tokens in one forward pass; None for what suits the device.
        timeout: Most seconds for one step of a search or one call of the model; what takes longer
            is `unresolved`. None for no limit.
    """

    attacks: Sequence[str | Mapping[str, Any]] = ("deepwordbug", "synonym")
    perturbations: Sequence[Perturbation] = ()
    num_examples: int = 1000
    query_budget: int | None = 2000
    seed: int = 0
    width: int = 128
    cache_size: int = 16384
    max_length: int | None = None
    batch_tokens: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_examples", "query_budget", "width", "max_length", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"evaluation.{name}", got=shown(value), expected="an integer")
            if value is not None and value < 1:
                raise ConfigError(f"evaluation.{name}", got=str(value), expected=">= 1")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError("evaluation.timeout", got=shown(self.timeout), expected="> 0")
        if isinstance(self.attacks, str):
            raise ConfigError("evaluation.attacks", got=shown(self.attacks), expected="a list")
        self.build()

    def build(self) -> dict[str, Attack]:
        """Return the attacks by the name they are recorded under."""
        built: dict[str, Attack] = {}
        for spec in self.attacks:
            fields = {"name": spec} if isinstance(spec, str) else dict(spec)
            if "name" not in fields:
                raise ConfigError("evaluation.attacks", got=shown(spec), expected="a `name` in it")
            name = str(fields.pop("name"))
            alias = str(fields.pop("alias", name))
            if alias in built:
                raise ConfigError(
                    "evaluation.attacks", got=f"{alias!r} twice", fix="give one of them an `alias`"
                )
            built[alias] = build_attack(name, fields)
        return built


def evaluate_attacks(
    victim: Victim,
    examples: Sequence[Example],
    config: EvaluationConfig,
    output_dir: str | Path | None = None,
    progress: Callable[[Record], None] | None = None,
    *,
    model: str = "",
    data: str = "",
    attacks: Mapping[str, Attack] | None = None,
    processes: Processes | None = None,
    commands: Sequence[str] = (),
) -> RobustnessReport:
    """Attack a sample of the examples and return the report.

    With an output directory, `records.jsonl` is written as searches end and a second call goes on
    where the first was stopped; `report.json` and `report.md` are written at the end.

    Args:
        progress: Called with every new record.
        model: Name of the model in the report.
        data: Name of the data in the report.
        attacks: Attacks by name, instead of those the configuration names.
        processes: An `Accelerator` or `PartialState` whose processes all make this call and share
            the examples between them; needs an output directory. Records and report are the same
            for any number of processes.
        commands: What repeats the run, for the report.

    Raises:
        DataError: No examples, or labels the model does not have.
        ResourceError: An attack lacks a resource; before the first query.
        OutputExistsError: The directory holds the records of another run.
    """
    sample = sample_examples(examples, config.num_examples, config.seed)
    check_examples(victim, sample)
    chosen = dict(config.build() if attacks is None else attacks)
    for one in chosen.values():
        one.prepare()
    header = {
        "config_hash": config_hash(
            [config.seed, config.query_budget, config.max_length]
            + [[name, attack_identity(one)] for name, one in sorted(chosen.items())]
        ),
        "data_hash": sample_hash(sample),
        "model": model,
    }
    options: dict[str, Any] = {
        "width": config.width,
        "query_budget": config.query_budget,
        "seed": config.seed,
        "cache_size": config.cache_size,
        "timeout": config.timeout,
    }

    def records(share: Sequence[Example], skip: frozenset[tuple[str, str]]) -> Iterable[Record]:
        for record in run(chosen, victim, share, skip=skip, **options):
            yield record
            if progress is not None:
                progress(record)

    path = Path(output_dir) / "records.jsonl" if output_dir is not None else None
    found = collect_records(path, header, sample, records, processes)
    place = {example.id: row for row, example in enumerate(sample)}
    found = sorted(found, key=lambda record: (place[record.id], record.attack))
    report = dataclasses.replace(
        _report(found, sample, chosen, config, model, data, header["data_hash"]),
        commands=tuple(commands),
    )
    if output_dir is not None and (processes is None or processes.process_index == 0):
        report.save(output_dir)
    return report


def attack(
    model: Any,
    texts: Sequence[str | Sequence[str]],
    labels: Sequence[int | str],
    attacks: Sequence[str | Mapping[str, Any]] = ("deepwordbug",),
    *,
    query_budget: int | None = 2000,
    seed: int = 0,
    output_dir: str | Path | None = None,
    data: str = "",
    editable: Sequence[int] | None = None,
    progress: Callable[[Record], None] | None = None,
) -> RobustnessReport:
    """Attack texts and return the report.

    `print` shows it. `.attacks[name]` holds the figures of each attack (`accuracy_under_attack`
    with its interval, `attack_success_rate`, `mean_queries`, `counts`, ...), `.worst_case` those of
    all together, and `.records` one record per text and attack with both texts.

    Args:
        model: A model directory or Hub id, a `Victim` such as `ModelVictim(model, tokenizer)`, a
            Transformers pipeline, a scikit-learn classifier of raw texts, or a function from a
            list of texts to logits.
        texts: Strings, or one sequence of strings per text, for instance `(premise, hypothesis)`.
        labels: Gold labels: class ids, names of the model's classes, or values of a scikit-learn
            classifier's `classes_`.
        attacks: Names, or mappings with fields.
        query_budget: Most queries per text and attack.
        seed: Of attacks that draw.
        output_dir: Where `records.jsonl` and the report go, if anywhere.
        data: Name of the data in the report.
        editable: Columns an attack may edit; all by default.
        progress: Called with every new record.

    Raises:
        TextAdvError: For anything wrong with model, texts, labels, attacks or their resources,
            before the first query.

    Example:
        >>> def scores(texts):
        ...     return [[2.0 * ("good" in text) - 1.0, 0.0] for text in texts]
        >>> report = attack(scores, ["a good film", "good"], [0, 0], ["deepwordbug", "pruthi"])
        >>> report.attacks["deepwordbug"].accuracy_under_attack, report.worst_case["accuracy"]
        (0.0, 0.0)
        >>> [(record.attack, record.status) for record in report.records][:2]
        [('deepwordbug', 'flipped'), ('pruthi', 'flipped')]
    """
    config = EvaluationConfig(
        attacks=attacks, num_examples=max(len(texts), 1), query_budget=query_budget, seed=seed
    )
    victim = as_victim(model)
    examples = make_examples(texts, label_ids(victim, labels), editable=editable)
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    name = getattr(model, "__name__", name)
    return evaluate_attacks(victim, examples, config, output_dir, progress, model=name, data=data)


def _report(
    records: Sequence[Record],
    sample: Sequence[Example],
    attacks: Mapping[str, Attack],
    config: EvaluationConfig,
    model: str,
    data: str,
    data_hash: str,
) -> RobustnessReport:
    n = len(sample)
    by_attack: dict[str, list[Record]] = {name: [] for name in attacks}
    statuses: dict[str, list[metrics.Status]] = {example.id: [] for example in sample}
    for record in records:
        by_attack[record.attack].append(record)
        statuses[record.id].append(record.status)
    right = {record.id for record in records if record.prediction == record.label}
    worst = metrics.outcome_counts(map(metrics.worst_case, statuses.values()), n) if attacks else {}
    names = ("textadv", "torch", "transformers")
    return RobustnessReport(
        model=model,
        data=data,
        num_examples=n,
        seed=config.seed,
        clean_accuracy=len(right) / n,
        clean_interval=metrics.wilson_interval(len(right), n),
        attacks={name: _result(by_attack[name], attacks[name], n, config) for name in attacks},
        worst_case={
            "accuracy": metrics.accuracy_under_attack(worst),
            "interval": metrics.wilson_interval(worst["survived"], n),
            "counts": worst,
            "attacks": list(attacks),
        }
        if attacks
        else None,
        versions={name: _version(name) for name in names},
        data_hash=data_hash,
        records=tuple(records),
    )


def _result(
    records: Sequence[Record], one: Attack, n: int, config: EvaluationConfig
) -> AttackResult:
    counts = metrics.outcome_counts((record.status for record in records), n)
    flipped = [record for record in records if record.status == "flipped"]
    queries = [float(r.num_queries) for r in records if r.status in ("flipped", "survived")]
    reasons = Counter(record.reason for record in records if record.reason)
    return AttackResult(
        accuracy_under_attack=metrics.accuracy_under_attack(counts),
        interval=metrics.wilson_interval(counts["survived"], n),
        attack_success_rate=metrics.attack_success_rate(counts),
        mean_queries=metrics.mean(queries),
        median_queries=metrics.median(queries),
        query_budget=config.query_budget,
        counts=counts,
        reasons=dict(sorted(reasons.items())),
        modified_word_rate=metrics.mean(
            [record.num_modified_words / max(record.num_words, 1) for record in flipped]
        ),
        config=attack_config(one),
        config_hash=config_hash(attack_identity(one)),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
