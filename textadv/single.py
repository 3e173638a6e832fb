"""Attack one text and say word by word what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from textadv.attacks import Record
from textadv.attacks.examples import check_examples, make_examples
from textadv.diff import Change, word_diff
from textadv.errors import DataError, shown
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.victim import as_victim, label_ids

__all__ = ["SingleResult", "attack_one"]


@dataclasses.dataclass(frozen=True)
class SingleResult:
    """What one attack did to one text.

    Args:
        record: Status, texts, predictions and queries.
        changes: For each column the pieces that stayed, went and came, in order; empty unless a
            text was found.
        scores: Probability of each class for the text and for the one found.
    """

    record: Record
    changes: list[list[Change]]
    scores: list[list[float]]


def attack_one(
    model: Any,
    text: str | Sequence[str],
    label: int | str | None = None,
    attacks: Sequence[str | Mapping[str, Any]] = ("deepwordbug",),
    *,
    query_budget: int | None = 2000,
    seed: int = 0,
) -> list[SingleResult]:
    """Attack one text with one or several attacks, and return their results in the same order.

    Args:
        model: What `textadv.victim.as_victim` takes.
        text: A string, or one per column.
        label: The gold label, as a class id or a name of the model's; by default the class that
            the model predicts.
        attacks: Names, or mappings with fields, as in `EvaluationConfig`.
        query_budget: Most queries of each attack.
        seed: Of attacks that draw.

    Raises:
        DataError: A text that the model cannot score or that is empty, or a label it does not have.

    Example:
        >>> def scores(texts):
        ...     return [[2.0 * ("good" in text) - 1.0, 0.0] for text in texts]
        >>> attack_one(scores, "a good film")[0].changes[0][0]
        ('same', 'a ')
    """
    victim = as_victim(model)
    columns = (text,) if isinstance(text, str) else tuple(text)
    (checked,) = make_examples([columns], [0])
    check_examples(victim, [checked])
    clean = victim.logits([checked.words.texts])
    if not torch.isfinite(clean).all():
        raise DataError("text", got=shown(columns[0]), expected="one that the model can score")
    gold = int(clean[0].argmax()) if label is None else label_ids(victim, [label])[0]
    config = EvaluationConfig(attacks=attacks, query_budget=query_budget, seed=seed)
    report = evaluate_attacks(victim, make_examples([columns], [gold]), config)
    asked = list(config.build())
    records = sorted(report.records, key=lambda record: asked.index(record.attack))
    return [_result(victim, record, clean) for record in records]


def _result(victim: Any, record: Record, clean: torch.Tensor) -> SingleResult:
    scores = [clean[0].softmax(dim=0).tolist()]
    changed = record.adversarial_text
    if changed is None:
        return SingleResult(record, [], scores)
    scores.append(victim.logits([changed])[0].softmax(dim=0).tolist())
    pairs = zip(record.text, changed, strict=True)
    return SingleResult(record, [word_diff(before, after) for before, after in pairs], scores)
