"""The slope of a classifier's margin in its input embeddings, for white-box text attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from textadv.embeddings import EmbeddingPort
from textadv.errors import UnsupportedModelError
from textadv.ragged import length_batches

if TYPE_CHECKING:
    from textadv.classifier import ModelVictim

__all__ = ["TextGradient", "WhiteBox", "margins"]

CACHED_WORDS = 65536


@dataclasses.dataclass(frozen=True)
class TextGradient:
    """The slope of the margin (gold logit minus largest other) at one text.

    Args:
        logits: `(C,)`, float32 on the CPU.
        spans: Column, start and end of each of T tokens; column -1 for special tokens.
        gradient: `(T, D)`, float32 on the CPU.
        embedding: `(T, D)`, the input embeddings.
    """

    logits: Tensor
    spans: list[tuple[int, int, int]]
    gradient: Tensor
    embedding: Tensor


class WhiteBox:
    """Differentiate a `ModelVictim`, in evaluation mode and without weight gradients.

    Args:
        victim: The classifier, with a tokenizer that tells where its tokens come from.

    Raises:
        UnsupportedModelError: A slow tokenizer, or embeddings that cannot be perturbed.
    """

    def __init__(self, victim: ModelVictim) -> None:
        if not victim.tokenizer.is_fast:
            raise UnsupportedModelError(
                "gradients",
                got=f"the slow tokenizer {type(victim.tokenizer).__name__}",
                expected="a fast tokenizer, which knows the place of each token in the text",
            )
        self.victim = victim
        self.port = EmbeddingPort(victim.model, victim.tokenizer)
        self._vectors: dict[str, Tensor] = {}

    def gradients(
        self, texts: Sequence[tuple[str, ...]], labels: Sequence[int]
    ) -> list[TextGradient]:
        """Return the slope at each text; see `TextGradient`."""
        victim = self.victim
        if not texts:
            return []
        columns = [list(column) for column in zip(*texts, strict=True)]
        encoded = victim.tokenizer(
            *columns, truncation=True, max_length=victim.max_length, return_offsets_mapping=True
        )
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        rows = [{name: tuple(encoded[name][at]) for name in names} for at in range(len(texts))]
        spans = [
            _spans(encoded.sequence_ids(at), encoded["offset_mapping"][at])
            for at in range(len(texts))
        ]
        found: dict[int, TextGradient] = {}
        for batch in length_batches([len(row["input_ids"]) for row in rows], victim.batch_tokens):
            inputs = victim.padded([rows[at] for at in batch])
            wanted = [labels[at] for at in batch]
            logits, gradient, embedding = self._differentiate(inputs, wanted)
            for place, at in enumerate(batch):
                mask = inputs["attention_mask"][place].bool().cpu()
                found[at] = TextGradient(
                    logits[place], spans[at], gradient[place][mask], embedding[place][mask]
                )
        return [found[at] for at in range(len(texts))]

    def word_vectors(self, words: Sequence[str]) -> Tensor:
        """Return the mean input embedding `(N, D)` of the tokens of each word in running text."""
        missing = [word for word in dict.fromkeys(words) if word not in self._vectors]
        if missing:
            if len(self._vectors) + len(missing) > CACHED_WORDS:
                self._vectors.clear()
                missing = list(dict.fromkeys(words))
            ids = self.victim.tokenizer([f" {word}" for word in missing], add_special_tokens=False)
            unknown = self.victim.tokenizer.unk_token_id
            fill = [unknown if unknown is not None else self.victim.pad_id]
            for word, row in zip(missing, ids["input_ids"], strict=True):
                tokens = torch.tensor([row or fill], device=self.victim.device)
                embedded = self.port.embed({"input_ids": tokens})
                self._vectors[word] = embedded[0].mean(dim=0).float().cpu()
        return torch.stack([self._vectors[word] for word in words])

    def _differentiate(
        self, inputs: dict[str, Tensor], labels: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.port.parts.fitting(lambda: self._gradient(inputs, labels))

    def _gradient(
        self, inputs: dict[str, Tensor], labels: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        embedding = self.port.embed(inputs)
        with self.port.attack_mode("eval"), torch.enable_grad():
            delta = torch.zeros_like(embedding, dtype=torch.float32, requires_grad=True)
            logits = self.victim.read(self.port.logits(inputs, delta, inner=True).float())
            (gradient,) = torch.autograd.grad(margins(logits, labels).sum(), delta)
        return logits.detach().cpu(), gradient.detach().cpu(), embedding.float().cpu()


def margins(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Return gold logit minus largest other logit of each row of `(N, C)`."""
    rows = torch.arange(len(logits), device=logits.device)
    gold = torch.tensor(labels, device=logits.device)
    others = logits.clone()
    others[rows, gold] = -torch.inf
    result: Tensor = logits[rows, gold] - others.amax(dim=1)
    return result


def _spans(columns: list[Any], offsets: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [
        (-1, 0, 0) if column is None else (column, start, end)
        for column, (start, end) in zip(columns, offsets, strict=True)
    ]
