"""Accuracy against the radius of embedding attacks, and the radius at which each text falls."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from textadv import norms
from textadv.batching import Encoded, plan_evaluation
from textadv.embeddings import EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import correct
from textadv.metrics import wilson_interval
from textadv.norms import Norm
from textadv.perturb import APGD, CarliniWagner, Perturbation, nearest_tokens
from textadv.seeding import torch_generator

__all__ = ["MinimalNorms", "RadiusResult", "minimal_norms", "standard_attacks", "sweep"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RadiusResult:
    """Accuracy when every text is attacked inside one radius.

    Args:
        epsilon: The radius; 0 is the text as it is.
        accuracy: Share of the texts that no attack turned wrong.
        interval: Wilson interval of it, 95 %.
        num_examples: Number of texts.
        snapped_accuracy: Share that stays right when the perturbed embeddings are replaced by their
            nearest real tokens; None if it was not asked for.
    """

    epsilon: float
    accuracy: float
    interval: tuple[float, float]
    num_examples: int
    snapped_accuracy: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimalNorms:
    """Size of the smallest perturbation that was found to turn each text wrong.

    Args:
        norms: l2 norms, (N,), in the order of the examples: 0 for texts that are wrong already,
            infinity for those that were never turned.
        median: Their median, the single figure to compare models by; upper bound on the truth.
        share_found: Share of the texts that are wrong or were turned.
    """

    norms: Tensor
    median: float
    share_found: float


def standard_attacks(
    num_labels: int, *, norm: Norm = "l2", num_steps: int = 20, restarts: int = 1
) -> list[Perturbation]:
    """Return the attacks whose worst case is reported: APGD on every loss the head allows.

    The task loss alone misses models with saturated probabilities; the margin and, with three or
    more classes, its scale-free form do not.
    """
    losses = ["task", "margin", "dlr"] if num_labels >= 3 else ["task", "margin"]
    return [
        APGD(norm=norm, num_steps=num_steps, restarts=restarts, loss=loss)  # type: ignore[arg-type]
        for loss in losses
    ]


def sweep(
    port: EmbeddingPort,
    examples: Encoded,
    attacks: Perturbation | Sequence[Perturbation],
    epsilons: Sequence[float],
    *,
    batch_size: int = 64,
    seed: int = 0,
    snap: bool = False,
) -> list[RadiusResult]:
    """Return the accuracy at each radius; a text counts as wrong if any of the attacks turns it.

    Args:
        port: The wrapped model.
        examples: Encoded examples with one class each.
        attacks: Perturbations with an `epsilon`, which is replaced; steps and starts scale with it.
        epsilons: Radii, in embedding units.
        batch_size: Texts attacked at once.
        seed: Seed of the random starts, which depend on the batch's first example.
        snap: Also measure the texts of nearest tokens.

    Raises:
        ConfigError: For heads without one class a text, or attacks without a radius.
    """
    attacks = [attacks] if isinstance(attacks, Perturbation) else list(attacks)
    problem = port.problem_type(examples.labels)
    if problem == "regression":
        raise ConfigError("sweep", got="a regression head", expected="a classifier")
    if snap and not port.on_words:
        raise ConfigError("snap", got="a hidden site", expected="perturbed word embeddings")
    results = []
    for epsilon in epsilons:
        right, snapped = [], []
        for indices in plan_evaluation(examples.lengths, batch_size=batch_size):
            batch = examples.batch(indices, port.device)
            labels = batch["labels"]
            hold = correct(_logits(port, batch), labels, problem)
            real = hold.clone()
            for number, attack in enumerate(attacks if epsilon > 0 else []):
                generator = torch_generator(
                    port.device, seed, "sweep", number, examples.ids[indices[0]]
                )
                delta = _at_radius(attack, epsilon)(port, batch, generator=generator)
                hold &= correct(_logits(port, batch, delta), labels, problem)
                if snap:
                    words = {**batch, "input_ids": nearest_tokens(port, batch, delta)}
                    real &= correct(_logits(port, words), labels, problem)
            right.append(hold)
            snapped.append(real)
        hits, count = int(torch.cat(right).sum()), len(examples)
        results.append(
            RadiusResult(
                epsilon=epsilon,
                accuracy=hits / count,
                interval=wilson_interval(hits, count),
                num_examples=count,
                snapped_accuracy=int(torch.cat(snapped).sum()) / count if snap else None,
            )
        )
    return results


def minimal_norms(
    port: EmbeddingPort,
    examples: Encoded,
    attack: CarliniWagner | None = None,
    *,
    batch_size: int = 64,
) -> MinimalNorms:
    """Return how far the nearest wrong embedding of every text is, as Carlini & Wagner find it."""
    attack = attack if attack is not None else CarliniWagner()
    attack.check(port.problem_type(examples.labels), port.model.config.num_labels)
    sizes = torch.full((len(examples),), torch.inf)
    for indices in plan_evaluation(examples.lengths, batch_size=batch_size):
        batch = examples.batch(indices, port.device)
        wrong = _logits(port, batch).argmax(-1) != batch["labels"]
        delta = attack(port, batch)
        turned = _logits(port, batch, delta).argmax(-1) != batch["labels"]
        found = torch.where(turned, norms.norm(delta, "l2", "sequence"), torch.inf)
        sizes[list(indices)] = torch.where(wrong, 0.0, found).float().cpu()
    return MinimalNorms(
        norms=sizes,
        median=statistics.median(sizes.tolist()) if len(sizes) else 0.0,
        share_found=float(sizes.isfinite().float().mean()),
    )


def _at_radius(attack: Perturbation, epsilon: float) -> Perturbation:
    radius = getattr(attack, "epsilon", None)
    if not radius:
        raise ConfigError(
            type(attack).__name__, got=f"epsilon {radius}", expected="an attack with a radius > 0"
        )
    return attack.scaled(epsilon / radius)


def _logits(port: EmbeddingPort, batch: Any, delta: Tensor | None = None) -> Tensor:
    with port.attack_mode("eval"), torch.no_grad():
        return port.logits(batch, delta, inner=True)
