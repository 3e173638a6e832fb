"""Accuracy under attack in text and in embedding space, on one sample of one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from textadv.attacks import Example, Record
from textadv.batching import Encoded
from textadv.embeddings import wrap
from textadv.errors import ConfigError
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.report import RobustnessReport
from textadv.shards import Processes
from textadv.validation import measure_perturbations
from textadv.victim import ModelVictim

__all__ = ["evaluate_victim"]


def evaluate_victim(
    victim: ModelVictim,
    sample: Sequence[Example],
    config: EvaluationConfig,
    output_dir: str | Path,
    *,
    name: str,
    data_name: str,
    progress: Callable[[Record], None] | None = None,
    processes: Processes | None = None,
    commands: Sequence[str] = (),
) -> RobustnessReport:
    """Attack a victim in text and embedding space on the same sample, and write the report.

    Args:
        victim: The model.
        sample: The examples, all of them.
        config: The `evaluation` block.
        output_dir: Gets `records.jsonl`, `report.json` and `report.md`.
        name: Name of the model in the report.
        data_name: Name of the data in the report.
        progress: Told about each finished attack record.
        processes: A launch whose processes share the examples; the first of them alone measures
            the perturbations.
        commands: What repeats the run, for the report.

    Raises:
        ConfigError: Perturbations of one label of a multi-label model.
    """
    if config.perturbations and victim.output is not None:
        raise ConfigError(
            "perturbations",
            got="one label of a multi-label model",
            expected="text attacks alone: perturbations climb the loss of all labels",
        )
    report = evaluate_attacks(
        victim,
        sample,
        config,
        output_dir,
        progress,
        model=name,
        data=data_name,
        processes=processes,
        commands=commands,
    )
    if config.perturbations and (processes is None or processes.process_index == 0):
        encoded = Encoded.from_examples(sample, victim.tokenizer, max_length=victim.max_length)
        figures = measure_perturbations(
            wrap(victim.model, victim.tokenizer), encoded, config.perturbations, seed=config.seed
        )
        report = dataclasses.replace(report, embedding=figures)
        report.save(output_dir)
    return report
