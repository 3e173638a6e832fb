"""Print what the audit finds in a zoo of planted flaws and honest models.

Thresholds are judged on one half (every second specimen) and confirmed on the other. Run from the
root of the repository: `python scripts/audit_zoo.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.audit.zoo import CONFIG, FLAWS, HONEST
from textadv.audit import AuditReport, audit
from textadv.audit.thresholds import THRESHOLDS

Values = dict[str, list[float]]


def main() -> None:
    """Run the zoo and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    print("planted flaws: rule named for it, its outcome and figure")
    flawed = []
    for flaw in FLAWS:
        report = audit(flaw.make(), CONFIG, rules=[flaw.rule])
        flawed.append(report)
        found = report.findings[0]
        print(f"  {flaw.name:<46} {flaw.rule:<4} {found.outcome:<5} {found.figure}")
    print("\nhonest models: verdict, rules that failed, rules that flagged")
    honest = []
    for model in HONEST:
        report = audit(model.make(), CONFIG)
        honest.append(report)
        fails, flags = report.named("FAIL"), report.named("FLAG")
        print(f"  {model.name:<24} {report.verdict:<21} {fails} {flags}")
    for half, name in enumerate(("calibration", "confirmation")):
        print_half(name, flawed[half::2], honest[half::2])
    print(f"\n{time.perf_counter() - started:.0f} s")


def print_half(name: str, flawed: list[AuditReport], honest: list[AuditReport]) -> None:
    """Print the range of each rule's figure over flaws and honest models, and the thresholds."""
    print(f"\n{name} half: {len(flawed)} flaws, {len(honest)} honest models")
    print("  rule  honest, worst  flaws, mildest  pass / fail at       between")
    bad, good = values(flawed), values(honest)
    for rule, (best, worst) in THRESHOLDS.items():
        if rule not in good:
            continue
        large_is_good = best > worst
        edge = (min if large_is_good else max)(good[rule])
        found = bad.get(rule)
        mildest = None if not found else (max if large_is_good else min)(found)
        apart = ""
        if mildest is not None:
            inside = edge >= worst > mildest if large_is_good else edge <= worst < mildest
            apart = "yes" if inside else "no"
        shown = "-" if mildest is None else f"{mildest:.4g}"
        print(f"  {rule:<5} {edge:>13.4g}  {shown:>14}  {best:>7.4g} / {worst:<7.4g}  {apart:>7}")
    caught = sum(report.findings[0].outcome in ("FAIL", "FLAG") for report in flawed)
    failed = sum(bool(report.named("FAIL")) for report in honest)
    print(f"  caught {caught} of {len(flawed)} flaws; {failed} of {len(honest)} honest models fail")


def values(reports: list[AuditReport]) -> Values:
    """Return the figures of all findings by rule."""
    found: Values = defaultdict(list)
    for report in reports:
        for finding in report.findings:
            if finding.value is not None:
                found[finding.rule].append(finding.value)
    return found


if __name__ == "__main__":
    main()
