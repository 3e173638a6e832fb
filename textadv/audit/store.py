"""An audit in the directory of the run it judges, and what ties it to the run's records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textadv.attacks.base import Example
from textadv.attacks.examples import sample_hash
from textadv.audit.finding import AuditReport
from textadv.details import with_details
from textadv.errors import DataError, shown
from textadv.files import parse_json, read_plain
from textadv.report import RobustnessReport
from textadv.results import Results

__all__ = ["FILE", "check_data", "read_ratings", "save_audit", "with_audit"]

FILE = "audit.json"
SCHEMA_VERSION = 1


def with_audit(results: Results, audit: AuditReport) -> RobustnessReport:
    """Return the report of an evaluation with the audit and the details in it."""
    return dataclasses.replace(
        with_details(results), audit={**audit.to_dict(), "records": results.digest}
    )


def save_audit(
    results: Results, audit: AuditReport, folder: str | Path, *, update_report: bool = True
) -> Path:
    """Write `audit.json`, and the audit into `report.json` and `report.md` beside it.

    Args:
        results: What was audited.
        audit: The findings.
        folder: The run, or another directory for the audit alone.
        update_report: Whether to write the two reports.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report = with_audit(results, audit)
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": audit.model,
        "data": report.data,
        "data_hash": report.data_hash,
        **(report.audit or {}),
        "versions": dict(report.versions),
    }
    path = folder / FILE
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    if update_report:
        report.save(folder)
    return path


def check_data(results: Results, examples: Sequence[Example], where: str) -> None:
    """Refuse an evaluation whose examples are not those of the data they are said to come from.

    Args:
        results: The evaluation.
        examples: All examples of the data, in their order.
        where: What the data are called, for the error.

    Raises:
        DataError: Ids, texts or labels that differ; the first of them is named.
    """
    by_id = {example.id: example for example in examples}
    texts, labels = results.texts, results.labels
    problem = ""
    if absent := sorted(set(texts) - set(by_id)):
        problem = f"{len(absent)} of {len(texts)} ids are not in it, such as {shown(absent[0])}"
    elif odd := [name for name in texts if by_id[name].words.texts != texts[name]]:
        problem = f"{len(odd)} texts differ, such as that of id {shown(odd[0])}"
    elif odd := [name for name in labels if by_id[name].label != labels[name]]:
        problem = f"{len(odd)} labels differ, such as that of id {shown(odd[0])}"
    else:
        found = sample_hash([example for example in examples if example.id in texts])
        if results.report.data_hash and found != results.report.data_hash:
            problem = f"its sample has the hash {found}, not {results.report.data_hash}"
    if problem:
        raise DataError(
            where,
            got=f"other data than the records of {shown(results.source)[1:-1]}: {problem}",
            expected="the data that were evaluated",
            fix="name that file, or evaluate again if the records were edited",
        )


def read_ratings(path: str | Path) -> list[bool]:
    """Read which of the rated successes keep their label.

    Args:
        path: JSON lines; `valid` in each says whether the raters kept the label.

    Raises:
        DataError: No such file, or a line without a `valid` that is true or false.
    """
    path, found = Path(path), []
    lines = read_plain(path, "ratings, one JSON object per line").decode("utf-8", "replace")
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            value = parse_json(line)["valid"]
        except (ValueError, KeyError, TypeError) as error:
            value = error
        if not isinstance(value, bool):
            raise DataError(
                f"{path} line {number}",
                got=shown(line),
                expected='an object with "valid": true or false',
            )
        found.append(value)
    return found
