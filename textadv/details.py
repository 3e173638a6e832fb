"""Figures that follow from the records: by class, as a confusion matrix, and by query budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from textadv.attacks.records import Record
from textadv.metrics import wilson_interval
from textadv.quality import filtered, quality
from textadv.report import AttackResult, RobustnessReport
from textadv.results import Results
from textadv.statistics import query_curve

__all__ = ["coverage_notes", "details", "with_details"]

MOST_CLASSES = 200
"""Classes up to which they are listed one by one: the tables grow with their square."""


def with_details(results: Results, encoder: str | None = None) -> RobustnessReport:
    """Return the report with its details worked out from the records.

    Args:
        results: The report and its records.
        encoder: Sentence encoder to measure the similarity of changed texts with, where the report
            does not have it.
    """
    report = results.report
    attacks = {
        name: result if result.quality else _with_quality(results, name, encoder)
        for name, result in report.attacks.items()
    }
    return dataclasses.replace(report, attacks=attacks, details=details(results))


def coverage_notes(report: RobustnessReport) -> list[str]:
    """Say where an attack had nothing to try on a fifth of the texts or more.

    That happens when texts are in another language than the attack is made for; such texts count as
    unresolved and never as robust.
    """
    notes = []
    for name, result in report.attacks.items():
        attacked = report.num_examples - result.counts.get("wrong_before", 0)
        found = result.reasons.get("no_candidates", 0)
        if found * 5 >= attacked > 0:
            notes.append(
                f"{name}: no candidates in {found} of {attacked} texts, which count as unresolved, "
                "not as robust; is the attack made for the language of these texts?"
            )
    return notes


def _with_quality(results: Results, name: str, encoder: str | None) -> AttackResult:
    own = [record for record in results.records if record.attack == name]
    found = quality(own, encoder, similarity=encoder is not None)
    result, n = results.report.attacks[name], results.report.num_examples
    if "dissimilar" in found:
        found |= filtered(result.counts["survived"], found["dissimilar"], n)
    return dataclasses.replace(result, quality=found)


def details(results: Results) -> dict[str, Any]:
    """Return what the records say beyond the totals.

    Returns:
        `group`: the headline's group of attacks. `classes`: for each gold label `label`,
        `num_examples`, `right`, `standing` and `interval`; none of more than `MOST_CLASSES`.
        `confusion`: counts by gold and predicted label, `clean` and `under_attack` (the first flip
        of each example; `unknown` counts flips without a text). `query_curves`: for each attack
        pairs of budget and examples that stand.
    """
    group = results.headline
    labels = results.labels
    predicted = {record.id: record.prediction for record in results.records}
    attacks = results.groups[group] if group is not None else ()
    standing = (
        {name: status == "survived" for name, status in results.statuses(group).items()}
        if group is not None
        else results.right
    )
    attacked, unknown = _attacked(results.records, attacks, predicted)
    found = [*labels.values(), *predicted.values(), *attacked.values()]
    size = 1 + max((label for label in found if label is not None), default=0)
    size = size if size <= MOST_CLASSES else 0
    members: list[list[str]] = [[] for _ in range(size)]
    for name, label in labels.items() if size else ():
        members[label].append(name)
    return {
        "group": group,
        "classes": [
            {
                "label": label,
                "num_examples": len(own),
                "right": sum(results.right[name] for name in own),
                "standing": (stand := sum(standing[name] for name in own)),
                "interval": list(wilson_interval(stand, len(own))),
            }
            for label, own in enumerate(members)
        ],
        "confusion": {
            "clean": _matrix(labels, predicted, size),
            "under_attack": _matrix(labels, attacked, size),
            "unknown": unknown,
        },
        "query_curves": {
            name: [[point.budget, point.survived] for point in query_curve(results.outcomes(name))]
            for name in results.report.attacks
        },
    }


def _attacked(
    records: Iterable[Record], attacks: Iterable[str], predicted: dict[str, int | None]
) -> tuple[dict[str, int | None], int]:
    """Return the prediction of each example under attack, and how many flips have none."""
    found = dict(predicted)
    flipped: set[str] = set()
    unknown: set[str] = set()
    for record in records:
        if record.attack not in attacks or record.status != "flipped" or record.id in flipped:
            continue
        if record.adversarial_prediction is None:
            unknown.add(record.id)
        else:
            flipped.add(record.id)
            found[record.id] = record.adversarial_prediction
    for name in unknown - flipped:
        found[name] = None
    return found, len(unknown - flipped)


def _matrix(gold: dict[str, int], predicted: dict[str, int | None], size: int) -> list[list[int]]:
    counts = [[0] * size for _ in range(size)]
    for name, label in gold.items():
        guess = predicted[name]
        if guess is not None and size:
            counts[label][guess] += 1
    return counts
