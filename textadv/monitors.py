"""Figures that show an attack is not working, and alarms for training that only looks robust."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from textadv import norms
from textadv.norms import Scope

__all__ = ["Monitor", "effective_fraction", "overfitting_alarm", "relative_norm", "resolution_note"]

logger = logging.getLogger(__name__)


class Monitor:
    """Collect, without leaving the device, how often an ascent had no gradient to follow."""

    def __init__(self, scope: Scope = "sequence") -> None:
        self.scope = scope
        self._skipped: list[Tensor] = []
        self._non_finite: list[Tensor] = []

    def record(self, grad: Tensor, mask: Tensor) -> None:
        """Count the groups of one step whose gradient is zero or not finite."""
        found = norms.usable(grad, mask, self.scope)
        present = mask.any(1) if self.scope == "sequence" else mask
        count = present.sum().clamp_min(1)
        self._skipped.append(((present & ~found).sum() / count).float())
        finite = torch.where(mask.unsqueeze(-1), grad.flatten(2), 0.0).isfinite().all(-1)
        finite = finite.all(1) if self.scope == "sequence" else finite
        self._non_finite.append(((present & ~finite).sum() / count).float())

    @property
    def skipped_fraction(self) -> Tensor | None:
        """Return the share of groups that could not step, over all steps; None before any."""
        return torch.stack(self._skipped).mean() if self._skipped else None

    @property
    def non_finite_fraction(self) -> Tensor | None:
        """Return the share of groups whose gradient had a NaN or infinite entry; None before."""
        return torch.stack(self._non_finite).mean() if self._non_finite else None


def relative_norm(delta: Tensor, mask: Tensor, token_norm: Tensor) -> Tensor:
    """Return the mean l2 norm of `delta` per perturbed token, over the mean norm of a token."""
    sizes = norms.norm(delta.detach(), "l2", "token")
    mean = torch.where(mask, sizes, 0.0).sum() / mask.sum().clamp_min(1)
    return (mean / token_norm.clamp_min(norms.TINY)).float()


def effective_fraction(clean_right: Tensor, clean_loss: Tensor, perturbed_loss: Tensor) -> Tensor:
    """Return the share of the examples that are right without `delta` whose loss rises with it.

    An attack that works is near 1; noise is near one half; 0 means that nothing was right.

    Args:
        clean_right: Whether each prediction is right, bool (B,).
        clean_loss: Task losses without the perturbation, (B,).
        perturbed_loss: Task losses with it, (B,).
    """
    rose = clean_right & (perturbed_loss.detach() > clean_loss.detach())
    return rose.sum() / clean_right.sum().clamp_min(1).float()


def overfitting_alarm(before: Mapping[str, float], after: Mapping[str, float]) -> str | None:
    """Return a warning if a model learned to hide from one step while several steps break it.

    That is catastrophic overfitting: between two validations the accuracy under `pgd` falls by
    more than 15 points while the accuracy under `fgm` or `fgsm` rises.

    Args:
        before: Figures of one validation, `accuracy_under_<name>` among them.
        after: Figures of the next.

    Source: Wong et al., ICLR 2020, section 5; the threshold is ours.

    Example:
        >>> before = {"accuracy_under_pgd": 0.5, "accuracy_under_fgm": 0.6}
        >>> after = {"accuracy_under_pgd": 0.2, "accuracy_under_fgm": 0.7}
        >>> overfitting_alarm(before, after)[:37]
        'catastrophic overfitting: accuracy un'
    """
    fall: dict[str, float] = {}
    rise: dict[str, float] = {}
    for name in sorted(before.keys() & after.keys()):
        attack = name.removeprefix("accuracy_under_")
        if attack == name:
            continue
        if attack.startswith(("pgd", "apgd", "mim")):
            fall[name] = before[name] - after[name]
        elif attack.startswith(("fgm", "fgsm")):
            rise[name] = after[name] - before[name]
    worst = max(fall, key=lambda name: fall[name], default=None)
    best = max(rise, key=lambda name: rise[name], default=None)
    if worst is None or best is None or fall[worst] <= 0.15 or rise[best] <= 0:
        return None
    return (
        f"catastrophic overfitting: {worst.replace('_', ' ')} fell by {fall[worst]:.0%} while "
        f"{best.replace('_', ' ')} rose by {rise[best]:.0%}: train with more steps, a random start "
        "or a smaller radius"
    )


def resolution_note(delta: Tensor, mask: Tensor, embeds: Tensor, dtype: torch.dtype) -> str | None:
    """Return a warning if adding `delta` in `dtype` would lose most of it to rounding.

    A change of less than half a unit in the last place of an entry vanishes: in bfloat16 that is
    1/512 of the entry.

    Args:
        delta: Perturbation (B, L, D).
        mask: Perturbed positions, bool (B, L).
        embeds: What it is added to, (B, L, D).
        dtype: Type in which the model computes.
    """
    chosen, values = delta.detach()[mask].float(), embeds[mask].float()
    if not chosen.numel():
        return None
    step = chosen.square().mean().sqrt().item()
    size = values.square().mean().sqrt().item()
    spacing = torch.finfo(dtype).eps / 2 * size
    if step == 0 or step >= spacing or not math.isfinite(step):
        return None
    return (
        f"the perturbation changes an embedding entry by {step:.1g}, which {dtype} rounds away "
        f"(entries are about {size:.1g}, so changes below {spacing:.1g} vanish): use "
        "training.precision: fp32 or a larger radius"
    )
