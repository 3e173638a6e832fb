"""What the page's script shows: examples and attacks on them, as compact JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from textadv.attacks.records import Record
from textadv.diff import word_diff
from textadv.results import Results

__all__ = ["examples_json", "script_json"]

CODES = {"same": 0, "removed": 1, "added": 2}
NEXT_COLUMN = 3


def examples_json(results: Results, label_names: Mapping[int, str]) -> str:
    """Return attacks, labels, examples and records for the table of examples.

    A record of a changed text holds its differences as a flat list of codes and texts: 0 same, 1
    removed, 2 added, 3 the next column.
    """
    attacks = list(results.report.attacks)
    rows: dict[str, int] = {}
    examples: list[list[Any]] = []
    records: list[list[Any]] = []
    for record in results.records:
        if record.attack not in results.report.attacks:
            continue
        if record.id not in rows:
            rows[record.id] = len(examples)
            examples.append([record.id, record.label, record.prediction, list(record.text)])
        records.append(
            [
                rows[record.id],
                attacks.index(record.attack),
                record.status,
                record.adversarial_prediction,
                record.num_queries,
                record.num_modified_words,
                record.reason,
                _changes(record),
            ]
        )
    size = 1 + max((example[1] for example in examples), default=0)
    size = max(size, 1 + max(label_names, default=0))
    return script_json(
        {
            "attacks": attacks,
            "labels": [label_names.get(label, str(label)) for label in range(size)],
            "examples": examples,
            "records": records,
        }
    )


def script_json(value: Any) -> str:
    r"""Return JSON that cannot end the script element it stands in, whatever it holds.

    Example:
        >>> script_json("</script>")
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _changes(record: Record) -> Sequence[Any]:
    if record.adversarial_text is None:
        return []
    flat: list[Any] = []
    for column, (before, after) in enumerate(
        zip(record.text, record.adversarial_text, strict=True)
    ):
        if column:
            flat += [NEXT_COLUMN, ""]
        for kind, text in word_diff(before, after):
            flat += [CODES[kind], text]
    return flat
