"""Clean and perturbed accuracy of a classifier over encoded examples."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from textadv.batching import Encoded, plan_evaluation
from textadv.embeddings import EmbeddingPort
from textadv.errors import ConfigError
from textadv.losses import correct
from textadv.metrics import wilson_interval
from textadv.perturb import PERTURBATIONS, Perturbation
from textadv.seeding import torch_generator

__all__ = [
    "Measurement",
    "mean_token_norm",
    "measure",
    "measure_perturbations",
    "perturbation_labels",
    "perturbation_name",
    "validate",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Result on every example of this process, in the order of `indices`.

    Args:
        indices: Positions of the examples, (N,).
        losses: Task losses, (N,).
        correct: Whether each prediction is right, (N,); None for regression.
        logits: (N, C).
    """

    indices: Tensor
    losses: Tensor
    correct: Tensor | None
    logits: Tensor


def measure(
    port: EmbeddingPort,
    examples: Encoded,
    perturbation: Perturbation | None = None,
    *,
    batch_size: int = 64,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Measurement:
    """Evaluate without dropout, on the texts as they are or under a perturbation of each.

    Random starts are derived from the seed and the batch's first example. The model's training
    flags are restored. Every process runs as many batches, because sharded models need all of them
    in each forward.
    """
    rows: list[tuple[list[int], Tensor, Tensor]] = []
    problem = port.problem_type(examples.labels)
    sizes = {"batch_size": batch_size, "world_size": world_size}
    plan = plan_evaluation(examples.lengths, rank=rank, **sizes)
    longest = len(plan_evaluation(examples.lengths, rank=0, **sizes))
    with _eval_mode(port.model):
        for number in range(longest):
            indices = plan[number] if number < len(plan) else [0]
            batch = examples.batch(indices, port.device)
            delta = None
            if perturbation is not None:
                generator = torch_generator(port.device, seed, "measure", examples.ids[indices[0]])
                delta = perturbation(port, batch, generator=generator)
            with torch.no_grad():
                logits = port.logits(batch, delta, inner=True)
            if number < len(plan):
                rows.append((indices, port.loss(logits, batch).cpu(), logits.float().cpu()))
    order = torch.tensor([i for part, _, _ in rows for i in part], dtype=torch.long)
    width = port.model.config.num_labels
    logits = torch.cat([torch.empty(0, width), *(part for _, _, part in rows)])
    labels = examples.labels[order]
    return Measurement(
        indices=order,
        losses=torch.cat([torch.empty(0), *(part for _, part, _ in rows)]),
        correct=None if problem == "regression" else correct(logits, labels, problem),
        logits=logits,
    )


def validate(
    port: EmbeddingPort,
    examples: Encoded,
    perturbations: dict[str, Perturbation],
    accelerator: Any,
    *,
    batch_size: int,
    seed: int,
) -> dict[str, float]:
    """Return named figures over all processes.

    Returns:
        `clean_loss` and, for classifiers, `clean_accuracy`; for each perturbation
        `loss_under_<name>` and `accuracy_under_<name>`.
    """
    figures: dict[str, float] = {}
    for name, perturbation in {"clean": None, **perturbations}.items():
        found = measure(
            port,
            examples,
            perturbation,
            batch_size=batch_size,
            seed=seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        right = found.correct if found.correct is not None else torch.zeros(0)
        sums = torch.tensor(
            [len(found.indices), found.losses.sum().item(), right.sum().item()],
            dtype=torch.float64,
            device=port.device,
        )
        count, loss, hits = accelerator.reduce(sums, "sum").tolist()
        loss_name, accuracy_name = (
            ("clean_loss", "clean_accuracy")
            if perturbation is None
            else (f"loss_under_{name}", f"accuracy_under_{name}")
        )
        figures[loss_name] = loss / count
        if found.correct is not None:
            figures[accuracy_name] = hits / count
    return figures


def perturbation_name(perturbation: Perturbation) -> str:
    """Return the name of a perturbation in `PERTURBATIONS`."""
    return next(name for name, kind in PERTURBATIONS.items() if kind is type(perturbation))


@contextlib.contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    modules = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in modules:
            module.training = True


def perturbation_labels(perturbations: Sequence[Perturbation]) -> dict[str, Perturbation]:
    """Return perturbations by name: `pgd`, or `pgd-0.3` if there are several."""
    names = [perturbation_name(one) for one in perturbations]
    labels = [
        name if names.count(name) == 1 else f"{name}-{getattr(one, 'epsilon', None)}"
        for name, one in zip(names, perturbations, strict=True)
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                "evaluation.perturbations",
                got=f"{label} twice",
                expected="different perturbations or radii",
            )
    return dict(zip(labels, perturbations, strict=True))


def measure_perturbations(
    port: EmbeddingPort,
    examples: Encoded,
    perturbations: Sequence[Perturbation],
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return accuracy under each perturbation, with its interval and every setting behind it.

    Each entry holds `accuracy`, `interval` (95 %), `num_examples`, `name`, the perturbation's
    fields, and `mean_token_norm`: the mean length of a perturbable token's embedding, which gives
    the radius its scale.
    """
    scale = mean_token_norm(port, examples, batch_size)
    figures = {}
    for label, perturbation in perturbation_labels(perturbations).items():
        found = measure(port, examples, perturbation, batch_size=batch_size, seed=seed)
        if found.correct is None:
            raise ConfigError(label, got="a regression head", expected="a classifier")
        hits, count = int(found.correct.sum()), len(examples)
        fields = {f.name: getattr(perturbation, f.name) for f in dataclasses.fields(perturbation)}  # type: ignore[arg-type]
        figures[label] = {
            "name": perturbation_name(perturbation),
            "norm": getattr(perturbation, "norm", None),
            "num_steps": perturbation.num_steps,
            **fields,
            "accuracy": hits / count,
            "interval": list(wilson_interval(hits, count)),
            "num_examples": count,
            "mean_token_norm": round(scale, 4),
        }
    return figures


def mean_token_norm(port: EmbeddingPort, examples: Encoded, batch_size: int = 64) -> float:
    """Return the mean l2 norm of the embeddings of perturbable tokens."""
    total, count = 0.0, 0
    for indices in plan_evaluation(examples.lengths, batch_size=batch_size):
        batch = examples.batch(indices, port.device)
        sizes = port.embed(batch).float().norm(dim=-1)[port.editable(batch)]
        total, count = total + sizes.sum().item(), count + sizes.numel()
    return total / max(count, 1)
