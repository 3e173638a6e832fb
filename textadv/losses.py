"""Per-example losses on logits, in float32 or wider."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from textadv.errors import ConfigError, unknown_name

__all__ = [
    "Divergence",
    "InnerLoss",
    "ProblemType",
    "attack_loss",
    "boosted_cross_entropy",
    "check_inner_loss",
    "consistency",
    "correct",
    "divergence",
    "margin",
    "task_loss",
]

Divergence = Literal["kl", "symmetric_kl"]
InnerLoss = Literal["task", "margin", "dlr"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def task_loss(logits: Tensor, labels: Tensor, problem_type: ProblemType) -> Tensor:
    """Return the loss of every example: cross-entropy, binary cross-entropy or squared error.

    Args:
        logits: (B, C); (B, 1) or (B, C) for regression.
        labels: (B,) class ids, (B, C) zeros and ones, or (B,) / (B, C) targets.
        problem_type: The name Transformers uses in `config.problem_type`.

    Returns:
        (B,), not reduced: callers sum it for inner steps and average it for training.
    """
    logits = _wide(logits)
    if problem_type == "single_label_classification":
        return functional.cross_entropy(logits, labels, reduction="none")
    if problem_type == "multi_label_classification":
        targets = labels.to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(
            1
        )
    if problem_type == "regression":
        targets = labels.to(logits.dtype).view_as(logits)
        return (logits - targets).square().mean(1)
    raise ConfigError("problem_type", got=str(problem_type), expected="one that Transformers knows")


def consistency(logits: Tensor, anchor: Tensor, problem_type: ProblemType) -> Tensor:
    """Return how far every prediction has moved from `anchor`: KL(anchor || logits), (B,).

    Multi-label heads sum the divergence over their independent labels; regression heads, which
    have no distribution, use the squared difference.

    Source:
        Zhang et al., TRADES, ICML 2019, equation 5; Jiang et al., SMART, ACL 2020, section 3.1
        (squared difference for regression).
    """
    logits, anchor = _wide(logits), _wide(anchor)
    if problem_type == "regression":
        return (logits - anchor).square().mean(1)
    if problem_type == "multi_label_classification":
        logits = torch.stack([functional.logsigmoid(logits), functional.logsigmoid(-logits)], -1)
        anchor = torch.stack([functional.logsigmoid(anchor), functional.logsigmoid(-anchor)], -1)
    else:
        logits, anchor = logits.log_softmax(-1), anchor.log_softmax(-1)
    return (anchor.exp() * (anchor - logits)).flatten(1).sum(1)


def divergence(
    logits: Tensor, anchor: Tensor, problem_type: ProblemType, kind: Divergence
) -> Tensor:
    """Return KL(anchor || logits), or with `"symmetric_kl"` the sum of both directions, (B,).

    Regression heads use the squared difference, once, for either kind.
    """
    one_way = consistency(logits, anchor, problem_type)
    if kind == "kl" or problem_type == "regression":
        return one_way
    return one_way + consistency(anchor, logits, problem_type)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the best other logit minus the gold one, (B,): positive if the prediction is wrong."""
    logits = _wide(logits)
    gold = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.amax(1) - gold


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return MART's `-log q_y - log(1 - max_{k != y} q_k)`, (B,).

    Source: Wang et al., ICLR 2020, equation 9; `1 - q_k` is kept above 1e-6.
    """
    logits = _wide(logits)
    log_probs = logits.log_softmax(-1)
    others = log_probs.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1).exp()
    gold = log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)
    return -gold - torch.log1p(-others.clamp(max=1 - 1e-6))


def attack_loss(
    logits: Tensor, labels: Tensor, problem_type: ProblemType, kind: InnerLoss
) -> Tensor:
    """Return what an attack maximises for every example, (B,).

    `"task"` is the task loss; `"margin"` is `margin`; `"dlr"` is the margin divided by the distance
    between the highest and the third highest logit, so that the scale of logits does not matter.

    Source: Croce & Hein, ICML 2020, equation 6 (dlr).
    """
    check_inner_loss(kind, problem_type, logits.shape[-1])
    if kind == "task":
        return task_loss(logits, labels, problem_type)
    gap = margin(logits, labels)
    if kind == "margin":
        return gap
    highest = _wide(logits).topk(3, -1).values
    return gap / (highest[:, 0] - highest[:, 2]).clamp_min(1e-12)


def check_inner_loss(
    kind: str, problem_type: str | None = None, num_labels: int | None = None
) -> None:
    """Raise `ConfigError` for an unknown attack loss, or one that the head has no use for."""
    if kind not in get_args(InnerLoss):
        raise unknown_name("loss", kind, get_args(InnerLoss))
    if kind != "task" and problem_type not in (None, "single_label_classification"):
        raise ConfigError(
            "loss", got=f"{kind!r} on a {problem_type} head", expected="'task', or one class a text"
        )
    if kind == "dlr" and num_labels is not None and num_labels < 3:
        raise ConfigError(
            "loss",
            got=f"'dlr' with {num_labels} classes",
            expected="3 or more: it divides by the distance to the third logit",
            fix="use loss: margin",
        )


def correct(logits: Tensor, labels: Tensor, problem_type: ProblemType) -> Tensor:
    """Return which predictions are right, bool (B,); every label must match for multi-label heads.

    Raises:
        ConfigError: For a regression head, which is never right or wrong.
    """
    if problem_type == "single_label_classification":
        return logits.argmax(-1) == labels
    if problem_type == "multi_label_classification":
        return ((logits > 0) == (labels > 0.5)).all(-1)
    raise ConfigError("accuracy", got="a regression head", expected="a classifier")
