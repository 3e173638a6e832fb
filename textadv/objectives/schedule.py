"""Ramps for the weight and the radius of adversarial losses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from textadv.errors import ConfigError

__all__ = ["Schedule", "ramp"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Ramp a factor from 0 to 1 over a part of training.

    The factor is 0 before `begin`, 1 from `end` on, and linear or half a cosine between them. Both
    are fractions of all optimizer steps; `begin = end` switches at once.

    Example:
        >>> Schedule(kind="linear", begin=0.0, end=0.1)(0.05)
        0.5
    """

    kind: Literal["linear", "cosine"] = "linear"
    begin: float = 0.0
    end: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "cosine"):
            raise ConfigError("schedule kind", got=self.kind, expected="linear or cosine")
        if not 0 <= self.begin <= self.end <= 1:
            got = f"begin={self.begin}, end={self.end}"
            raise ConfigError("schedule", got=got, expected="0 <= begin <= end <= 1")

    def __call__(self, progress: float) -> float:
        """Return the factor when the fraction `progress` of training is done."""
        if progress >= self.end:
            return 1.0
        if progress <= self.begin:
            return 0.0
        ramp = (progress - self.begin) / (self.end - self.begin)
        if self.kind == "linear":
            return ramp
        return 0.5 - 0.5 * math.cos(math.pi * ramp)


def ramp(objective: Any, progress: float) -> Any:
    """Return an objective as its `lambda_schedule` and `epsilon_schedule` have it at `progress`.

    Args:
        objective: A dataclass with any of `lambda_adv`, `perturbation` and their two schedules.
        progress: Fraction of all optimizer steps that is done.

    Returns:
        A copy without schedules; None while the weight or the radius is 0, when the adversarial
        part has nothing to add.
    """
    schedules = {
        name: schedule
        for name in ("lambda_schedule", "epsilon_schedule")
        if (schedule := getattr(objective, name, None)) is not None
    }
    factors = {name: schedule(progress) for name, schedule in schedules.items()}
    weight = getattr(objective, "lambda_adv", 1.0) * factors.get("lambda_schedule", 1.0)
    radius = factors.get("epsilon_schedule", 1.0)
    if weight == 0 or radius == 0:
        return None
    changes: dict[str, Any] = dict.fromkeys(schedules)
    if "lambda_schedule" in factors:
        changes["lambda_adv"] = weight
    if radius != 1:
        changes["perturbation"] = objective.perturbation.scaled(radius)
    return dataclasses.replace(objective, **changes) if changes else objective
