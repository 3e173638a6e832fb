"""What is audited: a model, the attacks it was judged by, and what is claimed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from textadv.attacks.base import Attack, Example
from textadv.attacks.records import Record
from textadv.audit.finding import NotRunnableError
from textadv.embeddings import EmbeddingPort
from textadv.perturb import PGD, Perturbation
from textadv.report import RobustnessReport
from textadv.results import Results
from textadv.victim import Victim

__all__ = ["GRADIENT_ATTACK", "QUICK", "AuditConfig", "Subject"]

GRADIENT_ATTACK = PGD(norm="l2", epsilon=0.3, num_steps=20, loss="margin")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How much work an audit does.

    Args:
        num_examples: Examples the model is probed with; more give sharper figures.
        num_texts: Examples that text attacks are run on again.
        ladder_examples: Examples the radius is chosen with.
        noise_draws: Random perturbations per text.
        search_queries: Queries per text of the search without gradients.
        batch_size: Texts in one pass.
        seed: Of everything random.
    """

    num_examples: int = 200
    num_texts: int = 40
    ladder_examples: int = 40
    noise_draws: int = 50
    search_queries: int = 300
    batch_size: int = 64
    seed: int = 0


QUICK = AuditConfig(
    num_examples=50, num_texts=16, ladder_examples=24, noise_draws=20, search_queries=60
)
"""A look in a quarter of the time, for models that are slow to ask."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A claim of robustness, with what it rests on.

    Args:
        model: Its name.
        victim: What the text attacks asked.
        examples: The sample of the claim.
        port: The same model, differentiable; without it the rules on gradients are inconclusive.
        max_length: Longest input in tokens.
        tokenizer: Its tokenizer.
        perturbation: The gradient attack behind figures in embedding space.
        attacks: The text attacks by the name of their records.
        budgets: Most queries per example of each.
        seed: Of the attacks.
        records: One per example and attack.
        report: The report of the claim.
        train_texts: What the model was trained on.
        selected_on_sample: Whether the model was chosen by its figures on this sample.
        twin: The same architecture without defence, to transfer from; a linear fit to the model's
            own answers without it.
        ratings: For random successes, whether two raters kept the label.
        adaptive: Whether the attacks were made for this model's randomness or inner optimisation.
    """

    model: str
    victim: Victim
    examples: Sequence[Example]
    port: EmbeddingPort | None = None
    tokenizer: object = None
    max_length: int = 128
    perturbation: Perturbation = GRADIENT_ATTACK
    attacks: Mapping[str, Attack] = dataclasses.field(default_factory=dict)
    budgets: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    seed: int = 0
    records: Sequence[Record] = ()
    report: RobustnessReport | None = None
    train_texts: Sequence[str] | None = None
    selected_on_sample: bool = False
    twin: EmbeddingPort | None = None
    ratings: Sequence[bool] | None = None
    adaptive: bool = False

    @property
    def results(self) -> Results:
        """The report with its records; `NotRunnableError` without a report."""
        if self.report is None:
            raise NotRunnableError("no report")
        return Results(report=self.report, records=self.records, source=self.model)
