"""Geometry of masked norm balls over token embeddings.

A perturbation `delta` has shape (B, L, D). Its norm is taken over one *group*: the whole sequence
of an example (`scope="sequence"`, group size L*D) or each token by itself (`scope="token"`, group
size D). Every function is pure, works in float32 or wider, and returns 0 wherever `mask` (B, L) is
False.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from textadv.errors import ConfigError, unknown_name

__all__ = [
    "Init",
    "Norm",
    "Scope",
    "check_geometry",
    "check_init",
    "direction",
    "norm",
    "project",
    "random_point",
    "relative",
    "usable",
    "with_norm",
]

Norm = Literal["l2", "linf", "l1"]
Scope = Literal["sequence", "token"]
Init = Literal["zero", "uniform", "normal", "clipped_normal"]

# Gradients shorter than this carry no direction; float32 keeps about 1e-38.
TINY = 1e-30


def check_geometry(name: str, scope: str, epsilon: float | None) -> None:
    """Raise `ConfigError` for an unknown norm or scope, or a radius that is not positive."""
    if name not in get_args(Norm):
        raise unknown_name("norm", name, get_args(Norm))
    if scope not in get_args(Scope):
        raise unknown_name("scope", scope, get_args(Scope))
    if epsilon is not None and not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ConfigError("epsilon", got=str(epsilon), expected="a finite radius >= 0")


def check_init(kind: str) -> None:
    """Raise `ConfigError` for an unknown kind of start."""
    if kind not in get_args(Init):
        raise unknown_name("init", kind, get_args(Init))


def _groups(values: Tensor, scope: Scope) -> Tensor:
    """View (B, L, D) as (G, group size)."""
    return values.flatten(1) if scope == "sequence" else values.flatten(0, 1)


def _spread(per_group: Tensor, like: Tensor, scope: Scope) -> Tensor:
    """Shape one number per group so that it broadcasts against (B, L, D)."""
    batch, length, _ = like.shape
    return per_group.view(batch, 1, 1) if scope == "sequence" else per_group.view(batch, length, 1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Zero the positions outside the mask, NaN and infinity included."""
    return torch.where(mask.unsqueeze(-1), _wide(values), 0.0)


def _group_norm(groups: Tensor, name: Norm) -> Tensor:
    if name == "l1":
        return groups.abs().sum(1)
    peak = groups.abs().amax(1)
    if name == "linf":
        return peak
    # Scaling by the peak keeps the squares of very small and very large entries in range.
    scale = torch.where(peak > 0, peak, 1.0)
    return scale * (groups / scale.unsqueeze(1)).square().sum(1).sqrt()


def norm(delta: Tensor, name: Norm, scope: Scope) -> Tensor:
    """Return the norm of every group.

    Args:
        delta: Perturbation (B, L, D).
        name: `"l2"`, `"linf"` or `"l1"`.
        scope: `"sequence"` or `"token"`.

    Returns:
        (B,) for `"sequence"`, (B, L) for `"token"`.

    Example:
        >>> norm(torch.ones(1, 2, 8), "l2", "sequence")
        tensor([4.])
    """
    values = _group_norm(_groups(_wide(delta), scope), name)
    return values if scope == "sequence" else values.view(delta.shape[:2])


def direction(grad: Tensor, mask: Tensor, name: Norm, scope: Scope) -> Tensor:
    """Return the steepest-ascent direction: the unit vector that gains most along `grad`.

    It solves max <grad, u> subject to ||u|| <= 1 in each group: the normalised gradient for l2, its
    sign for linf, and one signed coordinate for l1, so that <grad, u> is the dual norm of `grad`.
    A group whose gradient is zero, shorter than 1e-30, or not finite gets the zero direction and
    leaves the other groups untouched.

    Args:
        grad: Gradient of the inner loss, (B, L, D).
        mask: Positions that may be perturbed, bool (B, L).
        name: Norm of the ball, not of the gradient.
        scope: `"sequence"` or `"token"`.

    Returns:
        Directions (B, L, D), zero outside the mask.
    """
    grad = _masked(grad, mask)
    groups = _groups(grad, scope)
    if name == "linf":
        unit = groups.sign()
        size = groups.abs().amax(1)
    elif name == "l1":
        position = groups.abs().argmax(1, keepdim=True)
        peak = groups.gather(1, position)
        unit = torch.zeros_like(groups).scatter(1, position, peak.sign())
        size = peak.abs().squeeze(1)
    else:
        size = _group_norm(groups, "l2")
        unit = groups / size.unsqueeze(1)
    return torch.where(_carries_direction(size).unsqueeze(1), unit, 0.0).view_as(grad)


def relative(grad: Tensor, mask: Tensor, name: Norm, scope: Scope) -> Tensor:
    """Return the gradient divided by its own norm in each group, zero where it has none.

    Unlike `direction` this keeps the gradient's proportions in linf as well, as FreeLB's and
    SMART's code does.
    """
    grad = _masked(grad, mask)
    groups = _groups(grad, scope)
    size = _group_norm(groups, name)
    unit = groups / size.unsqueeze(1)
    return torch.where(_carries_direction(size).unsqueeze(1), unit, 0.0).view_as(grad)


def usable(grad: Tensor, mask: Tensor, scope: Scope) -> Tensor:
    """Return which groups have a gradient to follow, bool: (B,) or, for tokens, (B, L)."""
    peak = torch.where(mask, _wide(grad).flatten(2).abs().amax(-1), 0.0)
    return _carries_direction(peak.amax(1) if scope == "sequence" else peak)


def _carries_direction(size: Tensor) -> Tensor:
    return torch.isfinite(size) & (size >= TINY)


def project(delta: Tensor, mask: Tensor, epsilon: float | None, name: Norm, scope: Scope) -> Tensor:
    """Return the nearest point (in l2) of the ball of radius `epsilon`.

    Args:
        delta: Perturbation (B, L, D).
        mask: Positions that may be perturbed, bool (B, L).
        epsilon: Radius of every group's ball; None means no ball, only the mask is applied.
        name: Norm of the ball.
        scope: `"sequence"` or `"token"`.

    Returns:
        Projected perturbation (B, L, D).

    Source:
        l1: Duchi et al., ICML 2008, figure 1 (sort and threshold).
    """
    delta = _masked(delta, mask)
    if epsilon is None:
        return delta
    if name == "linf":
        return delta.clamp(-epsilon, epsilon)
    groups = _groups(delta, scope)
    size = _group_norm(groups, name)
    if name == "l2":
        factor = torch.where(size > epsilon, epsilon / size.clamp_min(TINY), 1.0)
        return (groups * factor.unsqueeze(1)).view_as(delta)
    if epsilon == 0:
        return torch.zeros_like(delta)
    # float64: the threshold is a difference of large sums.
    wide = groups.double()
    ordered = wide.abs().sort(1, descending=True).values
    ranks = torch.arange(1, ordered.shape[1] + 1, device=delta.device)
    thresholds = (ordered.cumsum(1) - epsilon) / ranks
    kept = (ordered > thresholds).sum(1, keepdim=True).clamp_min(1)
    threshold = thresholds.gather(1, kept - 1).clamp_min(0)
    shrunk = wide.sign() * (wide.abs() - threshold).clamp_min(0)
    inside = (size <= epsilon).unsqueeze(1)
    return torch.where(inside, groups, shrunk.to(groups.dtype)).view_as(delta)


def with_norm(delta: Tensor, mask: Tensor, size: float, name: Norm, scope: Scope) -> Tensor:
    """Rescale every non-zero group of `delta` to exactly the norm `size`."""
    delta = _masked(delta, mask)
    present = _group_norm(_groups(delta, scope), name)
    factor = torch.where(present >= TINY, size / present.clamp_min(TINY), 0.0)
    return delta * _spread(factor, delta, scope)


def random_point(
    embeds: Tensor,
    mask: Tensor,
    kind: Init,
    scale: float,
    name: Norm,
    scope: Scope,
    generator: torch.Generator,
) -> Tensor:
    """Draw a start whose norm does not depend on the length of the text.

    Entries are U(-1, 1), N(0, 1) or N(0, 1) clipped at 2, times `scale` divided by what makes the
    group's norm about `scale`: sqrt(n) for l2 (0.577 `scale` for uniform, `scale` for normal), n
    for l1, 1 for linf, where n counts the perturbable entries of the group, not the padded ones.

    Args:
        embeds: Input embeddings (B, L, D); only shape, device and dtype are used.
        mask: Positions that may be perturbed, bool (B, L).
        kind: `"zero"`, `"uniform"`, `"normal"` or `"clipped_normal"`.
        scale: Size of the start, in embedding units.
        name: Norm of the ball.
        scope: `"sequence"` or `"token"`.
        generator: Random stream on the device of `embeds`.

    Source:
        Zhu et al., FreeLB, ICLR 2020, algorithm 1 (uniform, l2, sequence).
    """
    start = torch.zeros_like(_wide(embeds))
    if kind == "zero":
        return start
    if kind == "uniform":
        start.uniform_(-1.0, 1.0, generator=generator)
    else:
        start.normal_(generator=generator)
    if kind == "clipped_normal":
        start.clamp_(-2.0, 2.0)
    entries = torch.full_like(start[:, :, 0], embeds.shape[-1])
    if scope == "sequence":
        entries = entries * mask.sum(1, keepdim=True).clamp_min(1)
    unit = {"l2": entries.sqrt(), "l1": entries, "linf": torch.ones_like(entries)}[name]
    return _masked(start * (scale / unit).unsqueeze(-1), mask)
