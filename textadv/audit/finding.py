"""What a rule finds, and what all findings say together."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any, Literal

from textadv.errors import TextAdvError, shown

__all__ = [
    "AuditReport",
    "Finding",
    "NotRunnableError",
    "NotSupportedError",
    "Outcome",
    "Verdict",
]

Outcome = Literal["PASS", "FLAG", "FAIL", "INCONCLUSIVE"]
Verdict = Literal["SUPPORTED", "SUPPORTED WITH FLAGS", "NOT SUPPORTED", "INCONCLUSIVE"]
EXIT_CODE_NOT_SUPPORTED = 3


class NotSupportedError(TextAdvError):
    """A claim that the audit refutes."""

    exit_code = EXIT_CODE_NOT_SUPPORTED


class NotRunnableError(Exception):
    """Raised by a rule that lacks what it would need; its finding is inconclusive."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one rule.

    Args:
        rule: Its id, such as `A7`.
        title: What it checks.
        outcome: `PASS`, `FLAG`, `FAIL` or `INCONCLUSIVE`.
        figure: What was measured, in words.
        value: The number behind it, where there is one; see `textadv.audit.thresholds`.
        advice: What to do about it, in one sentence.
    """

    rule: str
    title: str
    outcome: Outcome
    figure: str
    value: float | None = None
    advice: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The findings of an audit; `print(report)` shows them as text.

    Args:
        model: Its name.
        num_examples: Examples it was probed with.
        findings: One for each rule.
        settings: How much work was done; the fields of `AuditConfig`.
    """

    model: str
    num_examples: int
    findings: tuple[Finding, ...]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """What the findings say together: the worst of them decides."""
        outcomes = {finding.outcome for finding in self.findings}
        if "FAIL" in outcomes:
            return "NOT SUPPORTED"
        if "INCONCLUSIVE" in outcomes or not outcomes:
            return "INCONCLUSIVE"
        return "SUPPORTED WITH FLAGS" if "FLAG" in outcomes else "SUPPORTED"

    @property
    def exit_code(self) -> int:
        """3 if the claim is not supported, else 0."""
        return EXIT_CODE_NOT_SUPPORTED if self.verdict == "NOT SUPPORTED" else 0

    def named(self, outcome: Outcome) -> list[str]:
        """Return the rules with an outcome."""
        return [finding.rule for finding in self.findings if finding.outcome == outcome]

    def to_dict(self) -> dict[str, Any]:
        """Return what `report.json` holds under `audit`."""
        return {
            "verdict": self.verdict,
            "num_examples": self.num_examples,
            "settings": dict(self.settings),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def table(self) -> list[list[str]]:
        """Return the findings as text, headings first."""
        rows = [[one.rule, one.title, one.outcome, one.figure, one.advice] for one in self.findings]
        return [["rule", "check", "outcome", "figure", "advice"], *rows]

    def __str__(self) -> str:
        width = max((len(finding.title) for finding in self.findings), default=0)
        lines = [f"audit of {shown(self.model, 200)[1:-1]}, {self.num_examples} examples", ""]
        for one in self.findings:
            figure = shown(one.figure, 300)[1:-1]
            lines.append(f"{one.rule:<4} {one.title:<{width}}  {one.outcome:<12}  {figure}")
            if one.outcome != "PASS" and one.advice:
                lines += textwrap.wrap(
                    one.advice, 92, initial_indent="     ", subsequent_indent="     "
                )
        return "\n".join([*lines, "", self.verdict])
