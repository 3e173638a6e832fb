"""Per-example losses on logits, in float32 or wider."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from textadv.errors import ConfigError

__all__ = ["ProblemType", "consistency", "correct", "task_loss"]

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
