"""What a batch says about its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from textadv.errors import DataError

__all__ = ["OURS", "Batch", "editable", "special_ids"]

Batch = Mapping[str, Tensor]

# Entries of a batch that are for perturbations and objectives, and that no model takes.
OURS = ("special_tokens_mask", "perturb_mask", "candidates", "example_id")


def editable(batch: Batch, special: Tensor | None) -> Tensor:
    """Return which tokens may be perturbed, bool (B, L): neither padding nor special tokens.

    Args:
        batch: Tokenised texts. A `perturb_mask` overrides everything but padding.
        special: Ids of special tokens, for batches without `special_tokens_mask`.

    Raises:
        DataError: If there is neither: ids alone do not tell a padding token from an end-of-text
            token.
    """
    ids = batch["input_ids"]
    real = batch.get("attention_mask", torch.ones_like(ids)).bool()
    if "perturb_mask" in batch:
        return real & batch["perturb_mask"].bool()
    if "special_tokens_mask" in batch:
        return real & ~batch["special_tokens_mask"].bool()
    if special is None:
        raise DataError(
            "batch",
            got="no special_tokens_mask",
            expected="one beside input_ids",
            fix="tokenize with return_special_tokens_mask=True, or use wrap(model, tokenizer)",
        )
    return real & ~torch.isin(ids, special.to(ids.device))


def special_ids(tokenizer: Any) -> Tensor | None:
    """Return the ids to leave alone; an unknown word is a word, so its id is not among them."""
    if tokenizer is None:
        return None
    return torch.tensor(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}))
