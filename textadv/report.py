"""The robustness report: measured figures with their intervals, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textadv.errors import DataError, shown
from textadv.files import read_json
from textadv.report_shape import check_report
from textadv.report_text import cell as _cell
from textadv.report_text import judgement_lines, opening_lines
from textadv.report_text import percent as _percent

__all__ = ["SCHEMA_VERSION", "AttackResult", "RobustnessReport"]

SCHEMA_VERSION = 2
# Version 1 lacks the fields that have defaults, and is read with these.
READABLE_VERSIONS = (1, 2)
PRELIMINARY_BELOW = 100

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What one attack did to the model.

    Args:
        accuracy_under_attack: Survived / all examples.
        interval: 95 % Wilson interval of it.
        attack_success_rate: Flipped / (flipped + survived); None when no example was attacked.
        mean_queries: Over the flipped and survived examples, the unchanged text counted as one.
        median_queries: Over the same.
        query_budget: Most queries per example; None for no limit.
        counts: Examples by status; they add up to all examples.
        reasons: Examples by reason, where a status has one (`budget`, `no_candidates`, ...).
        modified_word_rate: Mean share of words modified, over the flipped examples.
        config: Every field of the attack.
        config_hash: Hash of it.
        quality: How far the changed texts are from the originals, over the flipped examples:
            `edit_distance` (characters, mean), and when a sentence encoder was there `encoder`,
            `similarity`, `similarity_p5`, `threshold` and `filtered`, the accuracy when only flips
            at least as similar as the threshold count.
    """

    accuracy_under_attack: float
    interval: Interval
    attack_success_rate: float | None
    mean_queries: float | None
    median_queries: float | None
    query_budget: int | None
    counts: Mapping[str, int]
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    modified_word_rate: float | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config_hash: str = ""
    quality: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustnessReport:
    """Clean accuracy and accuracy under attack of one model on one sample.

    Args:
        model: Name, path or description of the model.
        data: Name of the data.
        num_examples: Size of the sample.
        seed: Where the random streams of the attacks derive from.
        clean_accuracy: Right before any attack / all examples.
        clean_interval: 95 % Wilson interval of it.
        attacks: Results by name.
        embedding: Accuracy under embedding-space perturbation, by name: plain dicts with `norm`,
            `epsilon`, `num_steps`, `accuracy` and `interval`.
        worst_case: Accuracy over examples that survive every attack: `accuracy`, `interval`,
            `counts`, `attacks`.
        versions: Versions of what produced the figures.
        data_hash: Hash of ids, texts and labels of the sample.
        cascade: Which frozen set of attacks was run, how, and the figures of its tracks.
        audit: Verdict and findings of the audit.
        commands: What repeats the run.
        details: Figures by class, confusion under attack and query curves; see
            `textadv.details`.
        records: One record per example and attack; not part of the JSON.
    """

    model: str
    data: str
    num_examples: int
    seed: int
    clean_accuracy: float
    clean_interval: Interval
    attacks: Mapping[str, AttackResult] = dataclasses.field(default_factory=dict)
    embedding: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    worst_case: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data_hash: str = ""
    cascade: Mapping[str, Any] | None = None
    audit: Mapping[str, Any] | None = None
    commands: Sequence[str] = ()
    details: Mapping[str, Any] | None = None
    records: Sequence[Any] = dataclasses.field(default=(), compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what `report.json` holds."""
        plain = dataclasses.asdict(dataclasses.replace(self, records=()))
        del plain["records"]
        values = {"schema_version": SCHEMA_VERSION, **plain}
        result: dict[str, Any] = json.loads(json.dumps(values))
        return result

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RobustnessReport:
        """Rebuild a report from `to_dict`.

        Raises:
            DataError: Another schema version, or fields that are missing or unknown.
        """
        version = values.get("schema_version")
        if version not in READABLE_VERSIONS:
            raise DataError(
                "report",
                got=f"schema_version {shown(version)}",
                expected=f"at most {SCHEMA_VERSION}",
                fix="read it with the textadv that wrote it, or run the evaluation again",
            )
        fields = {name: value for name, value in values.items() if name != "schema_version"}
        check_report(fields)
        try:
            fields["clean_interval"] = _interval(fields["clean_interval"])
            fields["commands"] = tuple(map(str, fields.get("commands", ())))
            fields["attacks"] = {
                name: AttackResult(**{**result, "interval": _interval(result["interval"])})
                for name, result in fields.get("attacks", {}).items()
            }
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "report", got=shown(str(error)), expected="the fields of a report"
            ) from error

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `report.json` and `report.md` and return their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=True) + "\n"
        paths = folder / "report.json", folder / "report.md"
        for path, content in zip(paths, (text, self.to_markdown()), strict=True):
            partial = path.with_name(path.name + ".partial")
            partial.write_text(content, encoding="utf-8")
            partial.replace(path)
        return paths

    @classmethod
    def load(cls, path: str | Path) -> RobustnessReport:
        """Read `report.json`, or the one in a folder; DataError when it is not a report."""
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        return cls.from_dict(read_json(path, "a report.json"))

    def __str__(self) -> str:
        """Return the report for people."""
        return self.to_markdown()

    def to_markdown(self) -> str:
        """Return the report for people: what was measured, on how many examples, how surely."""
        n = self.num_examples
        note = " - preliminary, too few examples" if n < PRELIMINARY_BELOW else ""
        lines = [
            f"# Robustness of {_cell(self.model)}",
            "",
            f"Data: {_cell(self.data)}, n = {n}{note}, seed {self.seed}. "
            "Intervals are 95 % Wilson intervals.",
            "",
            f"Clean accuracy: {_rate(self.clean_accuracy, self.clean_interval, n)}",
            *opening_lines(self),
        ]
        if self.attacks:
            lines += ["", "## Attacks", "", *self._attack_table()]
        if self.worst_case:
            worst = self.worst_case
            figure = _rate(worst["accuracy"], worst["interval"], n)
            over = ", ".join(map(_cell, worst["attacks"]))
            lines += ["", f"Worst case per example over {over}: {figure}"]
        if self.embedding:
            lines += [
                "",
                "## Embedding space",
                "",
                "| perturbation | norm | epsilon | steps | accuracy |",
                "|---|---|---|---|---|",
            ]
            lines += [
                f"| {_cell(name)} | {_cell(row.get('norm', ''))} | {_radius(row)} "
                f"| {row.get('num_steps', '')} | {_rate(row['accuracy'], row.get('interval'))} |"
                for name, row in self.embedding.items()
            ]
            scales = {row.get("mean_token_norm") for row in self.embedding.values()} - {None}
            lines += [
                f"\nEpsilon is in embedding units; a word's embedding has the mean length {scale}."
                for scale in scales
            ]
        lines += judgement_lines(self)
        if self.versions:
            named = ", ".join(f"{_cell(k)} {_cell(v)}" for k, v in self.versions.items())
            lines += ["", f"Made with {named}."]
        return "\n".join(lines) + "\n"

    def _attack_table(self) -> list[str]:
        lines = [
            "| attack | accuracy under attack | success rate | queries, mean / median "
            "| budget | wrong before / flipped / survived / unresolved | words changed | config |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, result in self.attacks.items():
            counts = result.counts
            order = ("wrong_before", "flipped", "survived", "unresolved")
            cells = [
                _cell(name),
                _rate(result.accuracy_under_attack, result.interval, self.num_examples),
                _percent(result.attack_success_rate),
                f"{_number(result.mean_queries)} / {_number(result.median_queries)}",
                str(result.query_budget or "none"),
                " / ".join(str(counts[status]) for status in order),
                _percent(result.modified_word_rate),
                f"`{_cell(result.config_hash)}`",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        reasons = [
            f"{count} x {_cell(reason)}" + f" ({_cell(name)})"
            for name, result in self.attacks.items()
            for reason, count in result.reasons.items()
        ]
        return [*lines, "", "Reasons: " + "; ".join(reasons)] if reasons else lines


def _interval(pair: Sequence[float]) -> Interval:
    low, high = pair
    return float(low), float(high)


def _radius(row: Mapping[str, Any]) -> str:
    epsilon = row.get("epsilon")
    return f"{epsilon:.4g}" if isinstance(epsilon, float) else str(epsilon or "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _rate(value: float, interval: Sequence[float] | None, n: int | None = None) -> str:
    """Return a rate with its interval and, when n is known, its count."""
    low, high = interval or (None, None)
    count = "" if n is None else f" ({round(value * n)}/{n})"
    span = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return _percent(value) + count + span
