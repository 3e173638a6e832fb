"""Print what the audit finds in a zoo of planted flaws and honest models.

Every rule has a flaw in each of two halves, on different models, and so have the honest models.
Thresholds are judged on the calibration half and confirmed on the other. Run from the root of the
repository: `python scripts/audit_zoo.py`.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.audit.toys import CONFIG
from tests.audit.zoo import HONEST, Specimen, halves
from textadv.audit import RULES, AuditReport, audit
from textadv.audit.thresholds import THRESHOLDS

NAMES = ("calibration", "confirmation")


def main() -> None:
    """Run the zoo and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    flawed = [caught(half, name) for half, name in zip(halves(), NAMES, strict=True)]
    honest = []
    for at, name in enumerate(NAMES):
        print(f"\nhonest models, {name} half: verdict, rules that failed, rules that flagged")
        honest.append([judged(model) for model in HONEST[at::2]])
    table(flawed, honest)
    print(f"\n{time.perf_counter() - started:.0f} s")


def caught(flaws: Sequence[Specimen], half: str) -> list[AuditReport]:
    """Audit planted flaws by the rule named for each, and print what it finds."""
    print(f"\nplanted flaws, {half} half: rule named for it, its outcome and figure")
    reports = []
    for flaw in flaws:
        reports.append(audit(flaw.make(), CONFIG, rules=[flaw.rule]))
        found = reports[-1].findings[0]
        print(f"  {flaw.name:<46} {flaw.rule:<4} {found.outcome:<5} {found.figure}", flush=True)
    bad = sum(report.findings[0].outcome in ("FAIL", "FLAG") for report in reports)
    print(f"  caught: {bad} of {len(flaws)}")
    return reports


def judged(model: Specimen) -> AuditReport:
    """Audit an honest model by every rule and print the verdict."""
    report = audit(model.make(), CONFIG)
    fails, flags = ", ".join(report.named("FAIL")) or "-", ", ".join(report.named("FLAG"))
    print(f"  {model.name:<24} {report.verdict:<21} {fails:<10} {flags}", flush=True)
    return report


def table(flawed: list[list[AuditReport]], honest: list[list[AuditReport]]) -> None:
    """Print by rule what honest models and flaws show in each half, and the thresholds."""
    print("\nthresholds: figures of the worst honest model and of the mildest flaw")
    print(f"  {'':4}  {'':13}  {NAMES[0] + ' half':^24}  {NAMES[1] + ' half':^24}")
    heads = "  ".join([f"{'honest':>9} {'flawed':>9} apart"] * 2)
    print(f"  rule  {'pass / fail':>13}  {heads}")
    apart = [0, 0]
    for rule, (best, worst) in THRESHOLDS.items():
        sign = -1 if best > worst else 1
        line = f"  {rule:<4}  {f'{best:g} / {worst:g}':>13}"
        for half, (good, bad) in enumerate(zip(honest, flawed, strict=True)):
            edge = sign * max(sign * value for value in values(good, rule))
            flaw = mildest(bad, rule, sign)
            separates = sign * edge <= sign * worst < sign * flaw
            apart[half] += separates
            line += f"  {edge:>9.3g} {flaw:>9.3g} {'yes' if separates else 'no':>5}"
        print(line)
    for name, good in zip(NAMES, honest, strict=True):
        failed = sum(bool(report.named("FAIL")) for report in good)
        print(f"honest models of the {name} half that fail: {failed} of {len(good)}")
    total = len(THRESHOLDS)
    print(f"thresholds that separate: {apart[0]} of {total} in calibration, ", end="")
    print(f"{apart[1]} of {total} in confirmation")
    print(f"rules without a threshold: {', '.join(sorted(set(RULES) - set(THRESHOLDS)))}")


def values(reports: Sequence[AuditReport], rule: str) -> list[float]:
    """Return all figures of a rule."""
    return [
        finding.value
        for report in reports
        for finding in report.findings
        if finding.rule == rule and finding.value is not None
    ]


def mildest(reports: Sequence[AuditReport], rule: str, sign: int) -> float:
    """Return the figure of the flaw that is nearest to passing."""
    found = values(reports, rule)
    return sign * min(sign * value for value in found) if found else math.nan


if __name__ == "__main__":
    main()
