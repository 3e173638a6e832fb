"""SMART at a scale that acts, with its optional proximal term."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import divergence
from textadv.objectives.base import Term
from textadv.objectives.consistency import Consistency
from textadv.perturb import PGD, Perturbation

__all__ = ["SMART"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SMART(Consistency):
    """Smoothness-inducing regularisation, and optionally distance to an average of past weights.

    `L = L_clean + lambda_adv * D(p(x), p(x + delta)) + bregman * D(p(x), p_average(x))`, with D the
    symmetric divergence and `delta` inside a box around every token.

    Args:
        perturbation: The climb; one step, relative to the largest gradient of the token.
        site: Where it is added; see `textadv.sites.find_site`.
        center: Moves the text that the climb starts from to a random neighbour.
        lambda_adv: Weight of the smoothness term, >= 0; the paper's 1 to 5.
        divergence: `"symmetric_kl"`.
        detach_clean: Whether the divergence leaves the clean predictions without gradient.
        inner_mode: As in `consistency`.
        bregman: Weight of the proximal term, >= 0; the paper's mu is 1. 0 leaves it out.
        decay: Decay of the average of the weights, from 0 to 1; the paper's 0.99, then 0.999.
        lambda_schedule: Ramps `lambda_adv` up from 0.
        epsilon_schedule: Ramps the radius (and steps, and start) up from 0.

    Cost: 2.67 clean steps; 3.0 with the proximal term, which keeps a second copy of the weights.
    Known failure: at the paper's radius of 1e-5 (`smart-paper`) it moves no prediction.
    Source: Jiang et al., ACL 2020, algorithm 1 and equation 6.
    Deviations: the radius is about a tenth of the spread of an embedding's entries instead of 1e-5;
    the average moves once per optimizer step.
    """

    perturbation: Perturbation = dataclasses.field(
        default_factory=lambda: PGD(
            norm="linf",
            scope="token",
            epsilon=5e-3,
            step_size=5e-3,
            num_steps=1,
            init="normal",
            init_scale=5e-4,
            rule="relative",
        )
    )
    bregman: float = 0.0
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bregman >= 0:
            raise ConfigError("bregman", got=str(self.bregman), expected="a number >= 0")
        if not 0 <= self.decay < 1:
            raise ConfigError("decay", got=str(self.decay), expected="a number from 0 to below 1")

    @property
    def keeps_memory(self) -> bool:
        """Whether an average of the weights is kept."""
        return self.bregman > 0

    @property
    def handles_weights(self) -> bool:
        """Whether an average of the weights is kept."""
        return self.bregman > 0

    @property
    def cost(self) -> float:
        """One forward more with the proximal term."""
        return super().cost + (1 / 3 if self.bregman else 0)

    @property
    def separable(self) -> bool:
        """Whether there is no proximal term, which `combine` does not know."""
        return self.bregman == 0

    def terms(
        self, port: EmbeddingPort, batch: Batch, generator: torch.Generator
    ) -> Iterator[Term]:
        """Yield one loss over the clean, the perturbed and the averaged model's logits."""
        if not self.bregman:
            yield from super().terms(port, batch, generator)
            return
        clean = port.logits(batch)
        average = self._average_logits(port, batch)
        point = self.find(port, batch, generator, clean)
        perturbed = point.logits()
        term = self.combine(port, batch, clean, perturbed)
        problem = port.problem_type(batch["labels"])
        drift = divergence(clean, average, problem, self.divergence).mean()
        port.notes.append({})
        yield dataclasses.replace(
            term,
            loss=term.loss + self.bregman * drift,
            figures=point.figures(batch, clean, perturbed),
        )

    def remember(self, port: EmbeddingPort, notes: Sequence[Mapping[str, Tensor]]) -> None:
        """Move the average towards the weights, which are still those of the step."""
        for name, average in self._averages(port):
            port.memory[name] = average

    def _average_logits(self, port: EmbeddingPort, batch: Batch) -> Tensor:
        """Return the logits of the average after this step's move, without dropout."""
        average = {name.removeprefix("average."): v for name, v in self._averages(port)}
        with torch.no_grad(), port.attack_mode("eval"):
            found = []
            for rows in port.parts.rows(len(batch["input_ids"])):
                inputs = {name: value[rows] for name, value in port.inputs(batch).items()}
                found.append(torch.func.functional_call(port.model, average, kwargs=inputs).logits)
        return torch.cat(found)

    def _averages(self, port: EmbeddingPort) -> Iterator[tuple[str, Tensor]]:
        for name, weight in port.model.named_parameters():
            if not weight.requires_grad:
                continue
            kept = port.memory.get(f"average.{name}", weight.detach())
            yield f"average.{name}", kept.to(weight.device).lerp(weight.detach(), 1 - self.decay)
