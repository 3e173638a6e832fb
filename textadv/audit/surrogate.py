"""A linear stand-in for a model, fitted to the model's own answers, to transfer attacks from."""

from __future__ import annotations

import torch
from torch import Tensor

from textadv import norms
from textadv.audit.probe import Probe
from textadv.ball import batches
from textadv.embeddings import EmbeddingPort

__all__ = ["transferred"]

RIDGE = 1e-2


def transferred(probe: Probe) -> int:
    """Return how many standing examples perturbations of the linear fit break.

    The logits are fitted by ridge regression on the mean embedding of each text. The fit's gradient
    does not depend on the text and needs none of the model's, so a model with dead gradients gives
    way to it.
    """
    weights = _fit(probe)
    attack = probe.subject.perturbation
    kind: norms.Norm = getattr(attack, "norm", "l2")
    broken = 0
    for indices, batch in batches(
        probe.port, probe.encoded, probe.standing, probe.config.batch_size
    ):
        embeds, mask = probe.port.embed(batch), probe.port.editable(batch)
        labels = batch["labels"].cpu()
        found = torch.zeros(len(indices), dtype=torch.bool)
        for other in range(weights.shape[1]):
            push = (weights[:, other][None] - weights.T[labels]).to(embeds)
            grad = push[:, None].expand_as(embeds) * mask.unsqueeze(-1)
            delta = probe.radius * norms.direction(grad, mask, kind, attack.scope)
            margin, _, _ = probe.judge(batch, delta, probe.radius)
            found |= margin <= 0
        broken += int(found.sum())
    return broken


def _fit(probe: Probe) -> Tensor:
    """Return weights (D, C) from mean embeddings to logits."""
    rows = torch.empty(probe.n, probe.port.dim)
    for indices, batch in batches(probe.port, probe.encoded, None, probe.config.batch_size):
        rows[indices] = _means(probe.port, batch).float().cpu()
    rows = (rows - rows.mean(0)).double()
    targets = (probe.logits - probe.logits.mean(0)).double()
    spread = rows.square().mean().clamp_min(1e-12)
    gram = rows.T @ rows + RIDGE * probe.n * spread * torch.eye(rows.shape[1], dtype=rows.dtype)
    return torch.linalg.solve(gram, rows.T @ targets).float()


def _means(port: EmbeddingPort, batch: dict[str, Tensor]) -> Tensor:
    embeds, mask = port.embed(batch), port.editable(batch).unsqueeze(-1)
    return (embeds * mask).sum(1) / mask.sum(1).clamp_min(1)
