"""Measurements that several rules share, each made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from textadv import norms
from textadv.attacks.base import Example
from textadv.attacks.examples import sample_examples
from textadv.audit.finding import NotRunnableError
from textadv.audit.subject import AuditConfig, Subject
from textadv.ball import batches, margins
from textadv.batching import Encoded
from textadv.embeddings import EmbeddingPort
from textadv.norms import Norm
from textadv.perturb import Perturbation
from textadv.seeding import torch_generator
from textadv.validation import mean_token_norm

__all__ = ["Attacked", "Probe"]

LossFunction = Callable[[Tensor, Tensor], Tensor]
LADDER = tuple(0.06 * 2.5**step for step in range(6))
REFINEMENTS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attacked:
    """What a gradient attack did to the probed examples, in their order.

    Args:
        margins: Of the perturbed texts, (N,).
        sizes: Lengths of the perturbations over the radius, (N,); the longest group's.
        outside: Largest entry of a perturbation where none is allowed, (N,).
    """

    margins: Tensor
    sizes: Tensor
    outside: Tensor

    @property
    def broken(self) -> Tensor:
        """Which texts are misclassified, bool (N,)."""
        return self.margins <= 0


class Probe:
    """Ask a subject's model, and remember the answers.

    Example:
        >>> Probe(subject, AuditConfig()).radius  # doctest: +SKIP
        0.35
    """

    def __init__(self, subject: Subject, config: AuditConfig) -> None:
        self.subject, self.config = subject, config
        self.shared: dict[str, Any] = {}

    @functools.cached_property
    def examples(self) -> list[Example]:
        """The examples that are probed."""
        return sample_examples(
            list(self.subject.examples), self.config.num_examples, self.config.seed
        )

    @property
    def n(self) -> int:
        """How many are probed."""
        return len(self.examples)

    @property
    def port(self) -> EmbeddingPort:
        """The differentiable model."""
        if self.subject.port is None:
            raise NotRunnableError("the model gives no access to its embeddings")
        return self.subject.port

    @functools.cached_property
    def encoded(self) -> Encoded:
        """The examples as tokens."""
        return self.encode(self.examples)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Return examples as tokens."""
        if self.subject.tokenizer is None:
            raise NotRunnableError("the model gives no access to its tokenizer")
        return Encoded.from_examples(
            examples, self.subject.tokenizer, max_length=self.subject.max_length
        )

    @functools.cached_property
    def labels(self) -> Tensor:
        """Gold labels, (N,)."""
        return torch.tensor([example.label for example in self.examples])

    @functools.cached_property
    def logits(self) -> Tensor:
        """Logits of the unchanged texts by the differentiable model, (N, C)."""
        found = torch.empty(self.n, self.port.model.config.num_labels)
        for indices, batch in batches(self.port, self.encoded, None, self.config.batch_size):
            with torch.no_grad():
                found[indices] = self.port.logits(batch, inner=True).float().cpu()
        return found

    @functools.cached_property
    def differentiable(self) -> bool:
        """Whether the logits depend on the embeddings at all; if not, no attack can move."""
        _, batch = next(batches(self.port, self.encoded, [0], 1))
        z = self.port.blank(batch).requires_grad_()
        with self.port.attack_mode("eval"), torch.enable_grad():
            total = self.port.logits(batch, z, inner=True).sum()
            if not total.requires_grad:
                return False
            return torch.autograd.grad(total, z, allow_unused=True)[0] is not None

    @functools.cached_property
    def right(self) -> Tensor:
        """Which examples are classified right before any attack, bool (N,)."""
        return self.logits.argmax(1) == self.labels

    @functools.cached_property
    def victim_logits(self) -> Tensor:
        """Logits of the unchanged texts as the text attacks saw them, (N, C)."""
        return self.subject.victim.logits([example.words.texts for example in self.examples])

    @functools.cached_property
    def token_norm(self) -> float:
        """Mean length of a word's embedding."""
        return mean_token_norm(self.port, self.encoded, self.config.batch_size)

    def attacked(
        self,
        radius: float,
        perturbation: Perturbation | None = None,
        loss: LossFunction | None = None,
        chosen: Sequence[int] | None = None,
        port: EmbeddingPort | None = None,
    ) -> Attacked:
        """Run a gradient attack at a radius and judge it on the audited model.

        Args:
            radius: Of the ball.
            perturbation: The attack, by default the audited one; its own radius is replaced.
            loss: Maps logits and labels to losses, instead of the attack's own.
            chosen: Which examples; the others count as unperturbed.
            port: The model whose gradients are followed, by default the audited one.
        """
        attack = self.at_radius(perturbation or self.subject.perturbation, radius)
        found = margins(self.logits.clone(), self.labels)
        sizes, outside = torch.ones(self.n), torch.zeros(self.n)
        for indices, batch in batches(self.port, self.encoded, chosen, self.config.batch_size):
            labels = batch["labels"]
            generator = torch_generator(self.port.device, self.config.seed, "audit", indices[0])
            delta = self.port.blank(batch)
            if port is not None or self.differentiable:
                delta = attack(
                    port or self.port,
                    batch,
                    loss=None if loss is None else functools.partial(_on, loss, labels),
                    generator=generator,
                )
            found[indices], sizes[indices], outside[indices] = self.judge(batch, delta, radius)
        return Attacked(margins=found, sizes=sizes, outside=outside)

    def judge(
        self, batch: dict[str, Tensor], delta: Tensor, radius: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return margins, relative lengths and stray entries of perturbations of a batch."""
        with torch.no_grad():
            logits = self.port.logits(batch, delta, inner=True)
        attack, mask = self.subject.perturbation, self.port.editable(batch)
        kind: Norm = getattr(attack, "norm", "l2")
        scope = attack.scope
        size = norms.norm(delta, kind, scope)
        size = size if scope == "sequence" else size.amax(1)
        stray = torch.where(mask.unsqueeze(-1), 0.0, delta).abs().flatten(1).amax(1)
        return margins(logits, batch["labels"]).cpu().float(), size.cpu() / radius, stray.cpu()

    @staticmethod
    def at_radius(perturbation: Perturbation, radius: float) -> Perturbation:
        """Return an attack at another radius."""
        own = getattr(perturbation, "epsilon", None)
        if not own:
            raise NotRunnableError(f"{type(perturbation).__name__} has no radius")
        return perturbation.scaled(radius / own)

    @functools.cached_property
    def ladder(self) -> list[tuple[float, float]]:
        """Radius and accuracy of the audited attack, on `ladder_examples`, by radius."""
        chosen = list(range(min(self.config.ladder_examples, self.n)))

        def accuracy(radius: float) -> float:
            broken = self.attacked(radius, chosen=chosen).broken
            return 1 - broken[chosen].float().mean().item()

        return [(step * self.token_norm, accuracy(step * self.token_norm)) for step in LADDER]

    @functools.cached_property
    def radius(self) -> float:
        """The radius at which accuracy under the audited attack is nearest half the clean one.

        The largest of the ladder if accuracy does not fall, which is what a dead attack shows.
        """
        chosen = list(range(min(self.config.ladder_examples, self.n)))
        half = self.right[chosen].float().mean().item() / 2
        points = list(self.ladder)
        first = next((at for at, (_, accuracy) in enumerate(points) if accuracy <= half), None)
        if first:
            low, high = points[first - 1][0], points[first][0]
            for _ in range(REFINEMENTS):
                middle = (low + high) / 2
                broken = self.attacked(middle, chosen=chosen).broken[chosen]
                points.append((middle, 1 - broken.float().mean().item()))
                low, high = (low, middle) if points[-1][1] <= half else (middle, high)
        # Of equally near ones, the largest.
        return min(points, key=lambda point: (round(abs(point[1] - half), 6), -point[0]))[0]

    @functools.cached_property
    def main(self) -> Attacked:
        """The audited attack at `radius`."""
        return self.attacked(self.radius)

    @functools.cached_property
    def standing(self) -> list[int]:
        """Examples that are right and that the audited attack does not break at `radius`."""
        return torch.nonzero(self.right & ~self.main.broken).flatten().tolist()

    def newly_broken(self, attacked: Attacked) -> int:
        """Return how many examples break that the audited attack does not."""
        return int(attacked.broken[self.standing].sum())


def _on(loss: LossFunction, labels: Tensor, logits: Tensor) -> Tensor:
    return loss(logits, labels)
