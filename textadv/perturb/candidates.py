"""Tables of words that may stand for a word, and random substitution as a centre."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from textadv.embeddings import Batch, EmbeddingPort
from textadv.errors import ConfigError, DataError, ResourceError

__all__ = [
    "Substitution",
    "candidate_ids",
    "candidate_table",
    "candidates_of",
    "read_table",
    "write_table",
]

NONE = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Substitution:
    """Move the centre of the ball to a text in which some words are replaced at random.

    Args:
        probability: Share of the replaceable words that are replaced, from 0 to 1.
        table: File of a candidate table (`write_table`). Default: the batch's own `candidates`
            (B, L, S).

    Source: Ivgi & Berant, EMNLP 2021 (random online sampling); the ball around a discrete centre:
    Dekany et al., MixAT, 2025.
    """

    probability: float = 0.15
    table: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            got = str(self.probability)
            raise ConfigError("probability", got=got, expected="a number from 0 to 1")

    def __call__(self, port: EmbeddingPort, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with other `input_ids`; everything else is as it was."""
        ids = batch["input_ids"]
        choices = candidates_of(batch, self.table)
        counts = (choices != NONE).sum(-1)
        chance = torch.rand(ids.shape, generator=generator, device=ids.device)
        place = torch.rand(ids.shape, generator=generator, device=ids.device)
        # Candidate 0 is the word itself.
        drawn = 1 + (place * (counts - 1)).long().clamp(max=choices.shape[-1] - 2)
        replace = port.editable(batch) & (counts > 1) & (chance < self.probability)
        others = choices.gather(-1, drawn.clamp(0, choices.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)
        return {**batch, "input_ids": torch.where(replace, others, ids)}


def candidates_of(batch: Batch, table: str | None) -> Tensor:
    """Return candidate ids (B, L, S): the word itself first, -1 where there are fewer than S."""
    if "candidates" in batch:
        return batch["candidates"]
    if table is None:
        raise DataError(
            "batch",
            got="no candidates",
            expected="`candidates` (B, L, S) beside input_ids, or a table",
            fix="give the recipe a table of candidates, or let the collator add them",
        )
    return candidate_ids(batch["input_ids"], read_table(table))


def candidate_ids(ids: Tensor, table: Tensor, continuations: Tensor | None = None) -> Tensor:
    """Return the table's rows for ids (B, L), as (B, L, S).

    Args:
        ids: Token ids (B, L).
        table: Candidate ids (V, S), -1 for none.
        continuations: Bool (V,), which ids continue a word: words split into pieces are left as
            they are, because a piece is not a word.
    """
    found = table.to(ids.device)[ids]
    if continuations is None:
        return found
    inside = continuations.to(ids.device)[ids]
    split = inside | torch.nn.functional.pad(inside[:, 1:], (0, 1))
    alone = torch.full_like(found, NONE)
    alone[..., 0] = ids
    return torch.where(split.unsqueeze(-1), alone, found)


def candidate_table(
    tokenizer: Any, synonyms: Mapping[str, Sequence[str]], num_candidates: int = 8
) -> Tensor:
    """Return candidate ids (V, S) for every id of a tokenizer: itself, then its synonyms.

    Words and synonyms that the tokenizer splits into pieces are left out.

    Args:
        tokenizer: A Transformers tokenizer.
        synonyms: For each word, others that may stand for it, best first.
        num_candidates: S, the word itself included.
    """
    size = len(tokenizer)
    table = torch.full((size, num_candidates), NONE)
    table[:, 0] = torch.arange(size)

    @functools.cache
    def ids_of(word: str) -> frozenset[int]:
        """Return the ids of a word alone and inside a text, where each is a single token."""
        texts = (word, f" {word}")
        rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return frozenset(row[0] for row in rows if len(row) == 1)

    for word, others in synonyms.items():
        for own in ids_of(word) - {tokenizer.unk_token_id}:
            found = [i for other in others for i in sorted(ids_of(other))]
            kept = [i for i in dict.fromkeys(found) if i not in (own, tokenizer.unk_token_id)]
            for place, other_id in enumerate(kept[: num_candidates - 1], start=1):
                table[own, place] = other_id
    return table


def write_table(table: Tensor, path: str | Path) -> None:
    """Write a candidate table for recipes to name."""
    from safetensors.torch import save_file

    save_file({"candidates": table.to(torch.int64).contiguous()}, str(path))


@functools.lru_cache(maxsize=4)
def read_table(path: str) -> Tensor:
    """Read a candidate table (V, S).

    Raises:
        ResourceError: If the file is missing or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise ResourceError(f"candidates {path}", got="no such file", expected="a candidate table")
    try:
        return cast(Tensor, load_file(path)["candidates"])
    except (SafetensorError, KeyError):
        raise ResourceError(
            f"candidates {path}",
            got="another kind of file",
            expected="safetensors with `candidates` (V, S)",
            fix="write it with textadv.perturb.candidates.write_table",
        ) from None
