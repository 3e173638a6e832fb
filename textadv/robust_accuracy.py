"""Accuracy under attack as a metric of the Hugging Face `evaluate` library.

`RobustAccuracy()` works as it is; `evaluate.load(module_path())` loads the same by path, without a
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate

from textadv.errors import DataError, shown
from textadv.metrics import (
    Status,
    accuracy_under_attack,
    attack_success_rate,
    outcome_counts,
    wilson_interval,
    worst_case,
)

__all__ = ["RobustAccuracy", "module_path"]

UNRESOLVED = -1
DESCRIPTION = """Clean accuracy, accuracy under attack (over all examples) and attack success rate
(over the examples that are right before), with 95 % Wilson intervals."""
INPUTS = """
Args:
    predictions: Predicted class of each unchanged text.
    adversarial_predictions: Predicted class of each attacked text, and the unchanged prediction
        where the attack found nothing; -1 where it ended in an error. With the configuration
        `"several"`, a list per example with one prediction per attack, of which the worst counts.
    references: Gold labels.
Returns:
    clean_accuracy, accuracy_under_attack, attack_success_rate (None when nothing was right before),
    clean_interval, interval, num_examples, and the counts wrong_before, flipped, survived and
    unresolved, which add up to num_examples.
Examples:
    >>> metric = RobustAccuracy(keep_in_memory=True)
    >>> figures = metric.compute(
    ...     predictions=[0, 1, 1, 0], adversarial_predictions=[0, 0, 1, 1], references=[0, 1, 1, 1]
    ... )
    >>> figures["clean_accuracy"], figures["accuracy_under_attack"]
    (0.75, 0.5)
    >>> round(figures["attack_success_rate"], 3)
    0.333
"""
CITATION = ""


def module_path() -> str:
    """Return the path to give to `evaluate.load`."""
    return str(Path(__file__))


class RobustAccuracy(evaluate.Metric):
    """Compute clean accuracy, accuracy under attack and attack success rate.

    See the module's docstring and `RobustAccuracy().inputs_description`.

    Raises:
        DataError: From `compute`, for examples without an attack's prediction.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "several"):
            raise DataError(
                "robust_accuracy configuration",
                got=shown(self.config_name),
                expected="'default' (one attack) or 'several'",
            )
        one = datasets.Value("int64")
        several = self.config_name == "several"
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": one,
                    "adversarial_predictions": datasets.Sequence(one) if several else one,
                    "references": one,
                }
            ),
        )

    def _compute(
        self,
        *,
        predictions: Sequence[int],
        adversarial_predictions: Sequence[Any],
        references: Sequence[int],
    ) -> dict[str, Any]:
        statuses = []
        rows = zip(predictions, adversarial_predictions, references, strict=True)
        for row, (clean, attacked, label) in enumerate(rows):
            found = attacked if isinstance(attacked, list) else [attacked]
            if not found:
                raise DataError(
                    f"adversarial_predictions, row {row}", got="none", expected="one per attack"
                )
            statuses.append(worst_case([_status(clean, one, label) for one in found]))
        n = len(statuses)
        counts = outcome_counts(statuses, n)
        right = n - counts["wrong_before"]
        return {
            "clean_accuracy": right / n,
            "accuracy_under_attack": accuracy_under_attack(counts),
            "attack_success_rate": attack_success_rate(counts),
            "clean_interval": list(wilson_interval(right, n)),
            "interval": list(wilson_interval(counts["survived"], n)),
            "num_examples": n,
            **counts,
        }


def _status(clean: int, attacked: int, label: int) -> Status:
    if clean != label:
        return "wrong_before"
    if attacked == UNRESOLVED:
        return "unresolved"
    return "survived" if attacked == label else "flipped"
