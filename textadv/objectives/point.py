"""Objectives that find one perturbation and then take one loss at it."""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort, Mode
from textadv.errors import ConfigError, unknown_name
from textadv.losses import correct
from textadv.monitors import Monitor, effective_fraction, relative_norm, resolution_note
from textadv.objectives.base import Objective, Term
from textadv.objectives.schedule import Schedule
from textadv.perturb import PGD, Perturbation, Substitution
from textadv.sites import check_site

__all__ = ["Point", "PointObjective", "watch"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Where the perturbed loss is taken.

    Args:
        port: The model at the site of the perturbation.
        batch: The texts, or their random neighbours when there is a centre.
        delta: Perturbation (B, L, D).
        monitor: Was told the gradients on the way.
    """

    port: EmbeddingPort
    batch: Batch
    delta: Tensor
    monitor: Monitor | None = None

    def logits(self, *, inner: bool = False) -> Tensor:
        """Return the logits (B, C) there."""
        return self.port.logits(self.batch, self.delta, inner=inner)

    def figures(self, batch: Batch, clean: Tensor | None, perturbed: Tensor) -> dict[str, Tensor]:
        """Return what is monitored, after the perturbed pass."""
        watched = watch(self.port, self.batch, self.delta, self.monitor)
        return {**watched, **effect(self.port, batch, clean, perturbed)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointObjective(Objective):
    """Find `delta`, then minimise one loss of the logits with and without it.

    Args:
        perturbation: How `delta` is found.
        site: Where it is added; see `textadv.sites.find_site`.
        center: Moves the text it starts from to a random neighbour.
        lambda_adv: Weight of the part of the loss that depends on `delta`, >= 0.
        inner_mode: `"train"` climbs with dropout, the same masks in each step; `"eval"` without.
        lambda_schedule: Ramps `lambda_adv` up from 0.
        epsilon_schedule: Ramps the radius (and steps, and start) up from 0.
    """

    perturbation: Perturbation = dataclasses.field(default_factory=PGD)
    site: str = "word"
    center: Substitution | None = None
    lambda_adv: float = 1.0
    inner_mode: Mode = "train"
    lambda_schedule: Schedule | None = None
    epsilon_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        check_site(self.site)
        if not self.lambda_adv >= 0:
            raise ConfigError("lambda_adv", got=str(self.lambda_adv), expected="a number >= 0")
        if self.inner_mode not in ("train", "eval"):
            raise unknown_name("inner_mode", self.inner_mode, ("train", "eval"))
        if self.center is not None and self.site != "word":
            raise ConfigError("site", got=f"{self.site!r} with a center", expected="'word'")

    @property
    def num_terms(self) -> int:
        """One: both losses share the gradient of the clean logits."""
        return 1

    @property
    def needs_clean(self) -> bool:
        """Whether the loss, or the climb, uses the logits of the texts as they are."""
        return True

    @property
    def separable(self) -> bool:
        """Whether `find` and `combine` are all of it, so that a wrapper may call them alone."""
        return True

    @property
    def cost(self) -> float:
        """A clean step or none, a perturbed step, and 2/3 for each inner pass."""
        mode = self.inner_mode == "eval" and self.needs_target and self.perturbation.num_steps > 0
        passes = 2 * self.perturbation.num_steps + 3 + 3 * self.needs_clean + mode
        return passes / 3

    @property
    def needs_target(self) -> bool:
        """Whether the climb maximises a divergence from the clean logits."""
        return False

    @abc.abstractmethod
    def combine(
        self, port: EmbeddingPort, batch: Batch, clean: Tensor | None, perturbed: Tensor
    ) -> Term:
        """Return the loss of both logits (B, C)."""

    def inner_loss(
        self, port: EmbeddingPort, batch: Batch, clean: Tensor | None
    ) -> Callable[[Tensor], Tensor] | None:
        """Return what the climb maximises; None for the perturbation's own inner loss."""
        return None

    def find(
        self,
        port: EmbeddingPort,
        batch: Batch,
        generator: torch.Generator,
        clean: Tensor | None,
    ) -> Point:
        """Return the point at which the perturbed loss is taken.

        Args:
            port: The wrapped model.
            batch: Tokenised texts with labels.
            generator: Random stream of start and centre.
            clean: Logits of the texts as they are, with or without a graph.
        """
        there = port.at(self.site)
        texts = batch if self.center is None else self.center(port, batch, generator)
        target = self.target(port, batch, clean)
        monitor = Monitor(self.perturbation.scope)
        delta = self.perturbation(
            there,
            texts,
            loss=self.inner_loss(there, texts, target),
            generator=generator,
            mode=self.inner_mode,
            monitor=monitor,
        )
        return Point(port=there, batch=texts, delta=delta, monitor=monitor)

    def target(self, port: EmbeddingPort, batch: Batch, clean: Tensor | None) -> Tensor | None:
        """Return the clean logits that the climb leads away from, in the mode of the climb."""
        if self.needs_target and self.inner_mode == "eval" and self.perturbation.num_steps:
            with port.attack_mode("eval"), torch.no_grad():
                return port.logits(batch, inner=True)
        return None if clean is None else clean.detach()

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield one loss over the clean and the perturbed logits."""
        clean = port.logits(batch) if self.needs_clean else None
        point = self.find(port, batch, generator, clean)
        perturbed = point.logits()
        term = self.combine(port, batch, clean, perturbed)
        figures = point.figures(batch, clean, perturbed)
        yield dataclasses.replace(term, figures=figures)


def watch(
    port: EmbeddingPort, batch: Batch, delta: Tensor, monitor: Monitor | None
) -> dict[str, Tensor]:
    """Return the monitored figures of the last perturbed pass; warn once if it is rounded away."""
    figures = {}
    if monitor is not None and (skipped := monitor.skipped_fraction) is not None:
        figures["skipped_fraction"] = skipped
    if monitor is not None and (bad := monitor.non_finite_fraction) is not None:
        figures["non_finite_fraction"] = bad
    embeds, port.seen = port.seen, None
    mask = port.editable(batch)
    if embeds is None or embeds.shape != delta.shape:
        return figures
    sizes = torch.where(mask, embeds.float().norm(dim=-1), 0.0)
    figures["delta_norm"] = relative_norm(delta, mask, sizes.sum() / mask.sum().clamp_min(1))
    if not port.noted:
        port.noted = True
        note = resolution_note(delta, mask, embeds, computing_dtype(embeds))
        if note is not None:
            logger.warning(note)
    return figures


def computing_dtype(values: Tensor) -> torch.dtype:
    """Return the type in which the model multiplies: that of autocast, where it is on."""
    kind = values.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return values.dtype


def effect(
    port: EmbeddingPort, batch: Batch, clean: Tensor | None, perturbed: Tensor
) -> dict[str, Tensor]:
    """Return the effective fraction of an attack, where there are clean logits to compare with."""
    problem = port.problem_type(batch["labels"])
    if clean is None or problem == "regression":
        return {}
    with torch.no_grad():
        right = correct(clean, batch["labels"], problem)
        losses = (port.loss(clean, batch), port.loss(perturbed, batch))
        return {"effective_fraction": effective_fraction(right, *losses)}
