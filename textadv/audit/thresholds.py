"""Where a figure stops passing and where it fails, rule by rule.

On one half of a zoo they lie between what honest models and planted flaws show, and the other half
confirms them: `scripts/audit_zoo.py` prints both. Shares are of the audited examples.
"""

from __future__ import annotations

from textadv.audit.finding import Outcome

__all__ = ["LEAST_COUNT", "THRESHOLDS", "grade"]

THRESHOLDS: dict[str, tuple[float, float]] = {
    "A1": (1e-4, 1e-2),  # largest change of a logit, in spreads of the logits
    "A3": (0.0, -0.05),  # lower bound of accuracy minus the largest share of one label
    "A4": (0.01, 0.01),  # share of texts with a zero gradient of the margin
    "A5": (0.9, 0.5),  # mean length of the perturbation / radius
    "A6": (0.0, 0.01),  # share that no radius breaks
    "A7": (0.10, 0.02),  # accuracy under noise minus accuracy under attack
    "A8": (0.0, 0.02),  # share that a search without gradients breaks and the attack does not
    "A9": (0.02, 0.05),  # the same by transfer
    "A10": (0.01, 0.02),  # the same by other losses
    "A11": (0.01, 0.03),  # the same at another temperature; change of accuracy for text attacks
    "A12": (0.0, 0.005),  # largest rise of accuracy with the radius
    "A13": (0.01, 0.03),  # share broken by more steps or restarts alone
    "A14": (0.01, 0.03),  # share broken by one step alone
    "A16": (0.01, 0.03),  # share of wins of the self-test that are missed
    "A17": (0.0, 0.02),  # accuracy under the guided search minus that under a blind one
    "A18": (0.02, 0.05),  # fall of accuracy with four times the queries
    "A19": (0.8, 0.5),  # share of words, or texts, that have a candidate
    "A20": (0.0, 0.0),  # share of successes that break a constraint
    "A21": (0.005, 0.02),  # share of recorded predictions that do not repeat
    "A22": (0.05, 0.05),  # share of texts cut; survivors that hardly show fail at 0.01
    "A23": (0.0, 0.01),  # share of examples that are in the training data
    "A24": (0.0, 0.0),  # share of successes that no search on this model found
    "A25": (0.0, 0.01),  # share of examples that ended in an error
    "A26": (500, 100),  # examples behind the claim
    "A27": (0.8, 0.5),  # lower bound of the share of valid successes
    "A29": (0.0, 0.01),  # share of queries that were not counted
    "A30": (0.0, 0.05),  # share of outcomes that do not repeat
}

LEAST_COUNT = 3
"""Fewer examples than this are a flag at most: in a small sample one of them is a large share."""


def grade(rule: str, value: float, count: int | None = None) -> Outcome:
    """Return the outcome of a figure.

    Args:
        rule: A key of `THRESHOLDS`: the last value that passes and the last that is a flag. Where
            the first is the larger, large values are good.
        value: The figure.
        count: The examples behind it, when it is a share of bad ones.

    Example:
        >>> grade("A7", 0.2), grade("A7", 0.05), grade("A7", 0.0)
        ('PASS', 'FLAG', 'FAIL')
    """
    best, worst = THRESHOLDS[rule]
    sign = -1 if best > worst else 1
    if sign * value <= sign * best:
        return "PASS"
    few = count is not None and count < LEAST_COUNT
    return "FLAG" if few or sign * value <= sign * worst else "FAIL"
