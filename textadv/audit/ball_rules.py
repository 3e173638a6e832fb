"""Rules about figures in embedding space: could another attack have done more?"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor
from torch.nn import functional

from textadv import norms
from textadv.audit.finding import NotRunnableError
from textadv.audit.model_rules import Result
from textadv.audit.probe import Probe
from textadv.audit.surrogate import transferred
from textadv.audit.thresholds import THRESHOLDS, grade
from textadv.ball import batches, margins
from textadv.perturb import FGM, FGSM, Perturbation
from textadv.seeding import torch_generator

__all__ = [
    "beats_noise",
    "best_kept",
    "budget_used",
    "converged",
    "other_losses",
    "search_without_gradients",
    "temperature",
    "transfer",
    "unbounded",
    "with_radius",
]

UNBOUNDED = (4.0, 16.0, 64.0, 256.0)


def budget_used(probe: Probe) -> Result:
    """A5: the perturbation has the length it may have, and only where it may be."""
    attacked = probe.main
    sizes = attacked.sizes[probe.right]
    if not len(sizes):
        raise NotRunnableError("no example is right before the attack")
    mean, largest = float(sizes.mean()), float(sizes.max())
    stray = float(attacked.outside[probe.right].max())
    figure = f"length / radius {mean:.2f} on average, {largest:.5f} at most"
    if stray:
        figure += f"; up to {stray:.1e} on padding or special tokens"
    # Nothing that leaves the ball or touches what it must not counts as a use of the radius.
    used = mean if largest <= 1 + 1e-4 and not stray else 0.0
    return grade("A5", used), figure, used


def unbounded(probe: Probe) -> Result:
    """A6: without a bound every text can be broken."""
    left = probe.standing
    for factor in UNBOUNDED:
        if left:
            broken = probe.attacked(factor * probe.token_norm, chosen=left).broken
            left = [index for index in left if not broken[index]]
    share = len(left) / probe.n
    return grade("A6", share, len(left)), f"{len(left)} of {probe.n} texts stand", share


def beats_noise(probe: Probe) -> Result:
    """A7: the attack breaks more than random perturbations of the same length."""
    attack = probe.subject.perturbation
    kind: norms.Norm = getattr(attack, "norm", "l2")
    broken = torch.zeros(probe.n, dtype=torch.bool)
    for indices, batch in batches(probe.port, probe.encoded, None, probe.config.batch_size):
        stream = torch_generator(probe.port.device, probe.config.seed, "noise", indices[0])
        blank, mask = probe.port.embed(batch), probe.port.editable(batch)
        for _ in range(probe.config.noise_draws):
            noise = norms.random_point(blank, mask, "normal", 1.0, kind, attack.scope, stream)
            noise = norms.with_norm(noise, mask, probe.radius, kind, attack.scope)
            found, _, _ = probe.judge(batch, noise, probe.radius)
            broken[indices] |= found <= 0
    under_noise = int((probe.right & ~broken).sum())
    under_attack = len(probe.standing)
    gap = (under_noise - under_attack) / probe.n
    figure = (
        f"accuracy {under_noise}/{probe.n} under {probe.config.noise_draws} random draws, "
        f"{under_attack}/{probe.n} under the attack, at radius {probe.radius:.3g}"
    )
    return grade("A7", gap), figure, gap


def search_without_gradients(probe: Probe) -> Result:
    """A8: a random search breaks nothing that the attack did not."""
    attack = probe.subject.perturbation
    kind: norms.Norm = getattr(attack, "norm", "l2")
    broken = 0
    for indices, batch in batches(
        probe.port, probe.encoded, probe.standing, probe.config.batch_size
    ):
        stream = torch_generator(probe.port.device, probe.config.seed, "search", indices[0])
        blank, mask = probe.port.embed(batch), probe.port.editable(batch)
        best = torch.zeros_like(blank)
        lowest = torch.full((len(indices),), torch.inf)
        for step in range(probe.config.search_queries):
            # Large steps first, then smaller ones around the best point.
            size = probe.radius * max(0.1, 1 - step / probe.config.search_queries)
            noise = norms.random_point(blank, mask, "normal", 1.0, kind, attack.scope, stream)
            noise = norms.with_norm(noise, mask, size, kind, attack.scope)
            tried = norms.project(best + noise, mask, probe.radius, kind, attack.scope)
            found, _, _ = probe.judge(batch, tried, probe.radius)
            better = found < lowest
            lowest = torch.where(better, found, lowest)
            best = torch.where(better.view(-1, 1, 1).to(best.device), tried, best)
        broken += int((lowest <= 0).sum())
    return _extra("A8", probe, broken, f"{probe.config.search_queries} random tries break")


def transfer(probe: Probe) -> Result:
    """A9: perturbations made on another model break nothing more."""
    if probe.subject.twin is not None:
        found = probe.attacked(probe.radius, chosen=probe.standing, port=probe.subject.twin)
        return _extra("A9", probe, probe.newly_broken(found), "perturbations of the twin break")
    return _extra("A9", probe, transferred(probe), "perturbations of a linear fit break")


def other_losses(probe: Probe) -> Result:
    """A10: climbing another loss breaks nothing more."""
    broken = torch.zeros(probe.n, dtype=torch.bool)
    losses = [_cross_entropy, _margin]
    if probe.logits.shape[1] >= 3:
        losses.append(_ratio)
    for loss in losses:
        broken |= probe.attacked(probe.radius, loss=loss, chosen=probe.standing).broken
    count = int(broken[probe.standing].sum())
    return _extra("A10", probe, count, "climbs of other losses break")


def temperature(probe: Probe) -> tuple[int, float]:
    """Return how many more texts break when the median margin is 1, and the temperature."""
    sizes = margins(probe.logits, probe.labels)[probe.right]
    scale = float(sizes.abs().median()) if len(sizes) else 1.0
    scale = scale or 1.0

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return _cross_entropy(logits / scale, labels)

    attacked = probe.attacked(probe.radius, loss=loss, chosen=probe.standing)
    return probe.newly_broken(attacked), scale


def with_radius(probe: Probe) -> Result:
    """A12: accuracy never rises with the radius, and ends at 0."""
    accuracy = [value for _, value in probe.ladder]
    rise = max(b - a for a, b in itertools.pairwise(accuracy))
    rise = max(rise, 0.0)
    shown = ", ".join(f"{100 * value:.0f}" for value in accuracy)
    figure = f"{shown} % from radius {probe.ladder[0][0]:.2g} to {probe.ladder[-1][0]:.2g}"
    count = round(rise * min(probe.config.ladder_examples, probe.n))
    outcome = grade("A12", rise, count)
    if accuracy[-1] > THRESHOLDS["A6"][1]:
        outcome = "FLAG" if outcome == "PASS" else outcome
    return outcome, figure, rise


def converged(probe: Probe) -> Result:
    """A13: more steps and more starts break nothing more."""
    attack = probe.subject.perturbation
    names = {field.name for field in dataclasses.fields(attack)}  # type: ignore[arg-type]
    if "num_steps" not in names:
        raise NotRunnableError(f"{type(attack).__name__} has a fixed number of steps")
    stronger: list[Perturbation] = [
        dataclasses.replace(attack, num_steps=factor * attack.num_steps)  # type: ignore[type-var]
        for factor in (2, 4)
    ]
    if {"init", "restarts"} <= names:
        stronger.append(dataclasses.replace(attack, init="uniform", restarts=5))  # type: ignore[type-var]
    broken = torch.zeros(probe.n, dtype=torch.bool)
    for one in stronger:
        broken |= probe.attacked(probe.radius, one, chosen=probe.standing).broken
    count = int(broken[probe.standing].sum())
    return _extra("A13", probe, count, "more steps or starts break")


def best_kept(probe: Probe) -> Result:
    """A14: one step breaks nothing that many steps do not."""
    kind = getattr(probe.subject.perturbation, "norm", "l2")
    one = FGSM(epsilon=1.0) if kind == "linf" else FGM(epsilon=1.0)
    found = probe.attacked(probe.radius, one, chosen=probe.standing)
    return _extra("A14", probe, probe.newly_broken(found), "one step breaks")


def _extra(rule: str, probe: Probe, count: int, what: str) -> Result:
    """Grade the share of examples that something else breaks and the attack does not."""
    share = count / probe.n
    figure = f"{what} {count} of {len(probe.standing)} texts that stand ({100 * share:.1f} points)"
    return grade(rule, share, count), figure, share


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    return -margins(logits, labels)


def _ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (AutoAttack), which no scaling of the logits changes."""
    ordered = logits.float().sort(dim=1, descending=True).values
    scale = (ordered[:, 0] - ordered[:, 2]).clamp_min(1e-12)
    return -margins(logits, labels) / scale
