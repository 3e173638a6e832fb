"""A finished evaluation: its report and its records, read back and checked against each other."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from textadv.attacks.records import Record, read_records
from textadv.errors import DataError
from textadv.metrics import Status
from textadv.report import RobustnessReport
from textadv.statistics import worst_statuses

__all__ = ["WORST_CASE", "Results", "group_title", "load_results"]

logger = logging.getLogger(__name__)

WORST_CASE = "worst case"
TITLES = {
    WORST_CASE: "the worst of all attacks",
    "words": "word attacks",
    "char": "character attacks",
    "unicode": "Unicode attacks",
    "embedding": "embedding attacks",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """A report with the records behind it.

    Args:
        report: The figures.
        records: One per example and attack that was tried on it.
        source: Where it was read from.
    """

    report: RobustnessReport
    records: Sequence[Record]
    source: str = ""

    @property
    def name(self) -> str:
        """The model, or the place of the results when the report does not name it."""
        return self.report.model or self.source or "unnamed model"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Attacks whose outcomes are taken together, the headline's among them, by name.

        A cascade states its groups. Without one, every attack is a group, and all of them together
        are one if there are several.
        """
        if self.report.cascade is not None:
            groups: Mapping[str, Mapping[str, Sequence[str]]] = self.report.cascade["groups"]
            return {name: tuple(group["attacks"]) for name, group in groups.items()}
        found: dict[str, tuple[str, ...]] = {name: (name,) for name in self.report.attacks}
        return found if len(found) < 2 else {**found, WORST_CASE: tuple(found)}

    @property
    def headline(self) -> str | None:
        """The group the main figure is about; None without any attack."""
        groups = list(self.groups)
        if self.report.cascade is not None:
            stated = self.report.cascade["headline"]["group"]
            return stated if stated in groups else None
        return groups[-1] if groups else None

    @functools.cached_property
    def labels(self) -> dict[str, int]:
        """The gold label of each example, by id."""
        return {record.id: record.label for record in self.records}

    @functools.cached_property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """The unchanged text of each example, by id."""
        return {record.id: record.text for record in self.records}

    @functools.cached_property
    def right(self) -> dict[str, bool]:
        """Whether the unchanged text is classified right, by id."""
        return {record.id: record.prediction == record.label for record in self.records}

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the records, whatever their order: what an audit of them is tied to."""
        total = hashlib.sha256()
        for line in sorted(record.to_line() for record in self.records):
            total.update(line.encode())
        return total.hexdigest()[:16]

    def outcomes(self, attack: str) -> list[Record]:
        """Return one record per example for an attack.

        In a cascade, examples that were decided earlier in the attack's group have no record of
        their own: the one that decided them stands in, with no queries, so that it counts as
        broken from the start.
        """
        own = {record.id: record for record in self.records if record.attack == attack}
        if len(own) == self.report.num_examples:
            return list(own.values())
        group = next(members for members in self.groups.values() if attack in members)
        for record in self.records:
            if record.attack in group and record.status != "survived":
                own.setdefault(record.id, dataclasses.replace(record, attack=attack, num_queries=0))
        return list(own.values())

    def statuses(self, group: str) -> dict[str, Status]:
        """Return the worst case of each example over a group of attacks.

        Raises:
            DataError: Some examples have no record: the evaluation was not finished.
        """
        attacks = self.groups[group]
        found = worst_statuses(record for record in self.records if record.attack in attacks)
        if len(found) != self.report.num_examples:
            raise DataError(
                f"{self.source or 'results'}: {group}",
                got=f"records of {len(found)} examples",
                expected=f"{self.report.num_examples}, as the report says",
                fix="finish the evaluation: start it again with the same output directory",
            )
        return found


def group_title(group: str) -> str:
    """Return what a group of attacks is called in a sentence: `under ...`."""
    return TITLES.get(group, group)


def load_results(path: str | Path) -> Results:
    """Read an evaluation from its directory.

    An audit of other records than these is left out, with a warning.

    Raises:
        DataError: No report or records there, damaged ones, or records of another report.
    """
    folder = Path(path)
    report = RobustnessReport.load(folder)
    file = (folder if folder.is_dir() else folder.parent) / "records.jsonl"
    records = read_records(file)
    ids = {record.id for record in records}
    if records and len(ids) != report.num_examples:
        raise DataError(
            str(file),
            got=f"records of {len(ids)} examples",
            expected=f"{report.num_examples}, as report.json beside it says",
            fix="finish the evaluation, or do not mix two runs in one directory",
        )
    found = Results(report=report, records=tuple(records), source=str(path))
    audited = (report.audit or {}).get("records", "")
    if audited and audited != found.digest:
        logger.warning("%s: the audit is left out, its records have changed: audit again", path)
        found = dataclasses.replace(found, report=dataclasses.replace(report, audit=None))
    return found
