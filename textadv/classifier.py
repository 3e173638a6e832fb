"""A Hugging Face sequence classifier as a victim: ragged batches in, float32 logits out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from textadv import models, modes
from textadv.errors import (
    DataError,
    MemoryLimitError,
    UnsupportedModelError,
    shown,
    unknown_name,
)
from textadv.parts import out_of_memory
from textadv.ragged import default_batch_tokens, length_batches, padded_batch
from textadv.rounding import FLOAT32_NOISE
from textadv.trained import load_trained

if TYPE_CHECKING:
    from textadv.whitebox import TextGradient, WhiteBox

__all__ = ["ModelVictim"]

logger = logging.getLogger(__name__)

FALLBACK_LENGTH = 512

Row = dict[str, tuple[int, ...]]


class ModelVictim:
    """Score texts with a Hugging Face sequence classifier, in ragged length-sorted batches.

    The model is put in evaluation mode and moved to `device`. Texts that the tokenizer maps to the
    same ids share one forward row. A model without a pad token gets one (its end token, else id 0)
    that the attention mask hides, and a log line says so.

    Args:
        model: A sequence classifier with at least two labels.
        tokenizer: Its tokenizer.
        device: Where to run; CUDA when present, else the CPU.
        max_length: Longest input in tokens; never above what tokenizer and model can read.
        batch_tokens: Most tokens in one forward pass, padding included; by default what suits
            the device.
        label: Name or index of one label of a multi-label model. The victim then has two classes:
            1 if the label's logit is above 0.

    Raises:
        UnsupportedModelError: One label, a multi-label model without `label`, or a tokenizer with
            ids the model has no embedding for.
        ConfigError: A `label` the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        device: torch.device | str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        label: str | int | None = None,
    ) -> None:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device if device is not None else default)
        modes.keep_differentiable(model.to(self.device).eval())
        self.model = cast("Any", model)
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens or default_batch_tokens(self.device)
        self.output = _output(self.model.config, label)
        self.num_labels = 2 if self.output is not None else int(self.model.config.num_labels)
        if self.num_labels < 2:
            got = f"{self.num_labels} label"
            raise UnsupportedModelError("model", got=got, expected="a classifier of 2 or more")
        models.check_vocabulary(self.model, tokenizer)
        self.max_length = _max_length(self.model, tokenizer, max_length)
        self.pad_id = _pad_id(self.model, tokenizer)
        self._white_box: WhiteBox | None = None

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype | str = "float32",
        device: torch.device | str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        label: str | int | None = None,
    ) -> ModelVictim:
        """Load a classifier and its tokenizer from a directory or the Hub, safetensors only.

        A directory with LoRA adapters is loaded on top of the base it names.

        Raises:
            UnsupportedModelError: No safetensors weights, no such model, no trained head, or
                weights with NaN.
        """
        model, tokenizer = load_trained(path_or_id, revision=revision, dtype=dtype)
        return cls(
            model,
            tokenizer,
            device=device,
            max_length=max_length,
            batch_tokens=batch_tokens,
            label=label,
        )

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return logits `(N, C)` in float32 on the CPU, whatever the model's precision."""
        if not texts:
            return torch.empty(0, self.num_labels)
        rows: dict[tuple[tuple[int, ...], ...], int] = {}
        encoded = self.encode(texts)
        places = [
            rows.setdefault(tuple(map(tuple, columns)), len(rows))
            for columns in zip(*encoded.values(), strict=True)
        ]
        unique = [dict(zip(encoded, columns, strict=True)) for columns in rows]
        scores = torch.empty(len(unique), self.num_labels)
        lengths = [len(row["input_ids"]) for row in unique]
        for batch in length_batches(lengths, self.batch_tokens):
            scores[batch] = self._forward([unique[index] for index in batch])
        return scores[places]

    @property
    def noise(self) -> float:
        """Most that batches move a logit, as a share of the largest or of 1; 0 if unknown.

        It is known for float32. In half precision it is as large as real differences.
        """
        dtype = next(self.model.parameters()).dtype
        return FLOAT32_NOISE if dtype == torch.float32 else 0.0

    def encode(self, texts: Sequence[tuple[str, ...]]) -> dict[str, list[list[int]]]:
        """Tokenise without padding, cut to `max_length` (the longest column first)."""
        encoded = self.tokenizer(
            *_columns(texts), truncation=True, max_length=self.max_length, padding=False
        )
        fills = {"input_ids": self.pad_id, "token_type_ids": 0}
        # A text without tokens gets one, so that its row does not depend on the batch around it.
        return {
            name: [row or [fill] for row in encoded[name]]
            for name, fill in fills.items()
            if name in encoded
        }

    def readable(self, text: tuple[str, ...]) -> tuple[int, ...]:
        """Return how many characters of each column the model reads before it is cut.

        A tokenizer that does not say where its tokens come from counts as reading everything.
        """
        whole = tuple(map(len, text))
        # Every token but the special ones stands for at least one byte.
        if (
            sum(len(column.encode("utf-8", "surrogatepass")) for column in text) + 4
            <= self.max_length
        ):
            return whole
        if not self.tokenizer.is_fast:
            return whole
        options: dict[str, Any] = {"truncation": True, "max_length": self.max_length}
        cut = self.tokenizer(*text, return_offsets_mapping=True, **options)
        if len(cut["input_ids"]) < self.max_length:
            return whole
        ends = [0] * len(text)
        for column, (_, end) in zip(cut.sequence_ids(), cut["offset_mapping"], strict=True):
            if column is not None:
                ends[column] = max(ends[column], end)
        return tuple(ends)

    def gradients(
        self, texts: Sequence[tuple[str, ...]], labels: Sequence[int]
    ) -> list[TextGradient]:
        """Return the slope of each text's margin in its token embeddings."""
        return self._white().gradients(texts, labels)

    def word_vectors(self, words: Sequence[str]) -> Tensor:
        """Return the mean input embedding `(N, D)` of the tokens of each word."""
        return self._white().word_vectors(words)

    def read(self, logits: Tensor) -> Tensor:
        """Return the logits `(N, C)` of the classes under attack."""
        if self.output is None:
            return logits
        chosen = logits[:, self.output]
        return torch.stack([torch.zeros_like(chosen), chosen], dim=1)

    def padded(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Pad rows to the longest of them.

        On the right whatever the tokenizer says, because absolute positions start at the left; on
        the left for XLNet, which reads its answer from the last place.
        """
        fills = {
            "input_ids": self.pad_id,
            "token_type_ids": getattr(self.tokenizer, "pad_token_type_id", 0),
        }
        right = self.model.config.model_type != "xlnet"
        return padded_batch(rows, fills, right=right, device=self.device)

    def _forward(self, rows: list[Row]) -> Tensor:
        """Run one batch; from the first one that is too large for the device on, smaller ones."""
        half, tokens = len(rows) // 2, len(rows) * max(len(row["input_ids"]) for row in rows)
        if half == 0 or tokens <= self.batch_tokens:
            try:
                with torch.inference_mode():
                    output: Tensor = self.model(**self.padded(rows)).logits
                return self.read(output.float().cpu())
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if half == 0:
                    raise MemoryLimitError(
                        "model",
                        got=f"no memory for one text of {tokens} tokens",
                        expected="room for the weights and one text",
                        fix="lower max_length, or take a device with more memory",
                    ) from None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.batch_tokens = tokens // 2
            logger.warning(
                "out of memory on %d tokens: batches have at most %d now", tokens, tokens // 2
            )
        return torch.cat([self._forward(rows[:half]), self._forward(rows[half:])])

    def _white(self) -> WhiteBox:
        if self._white_box is None:
            from textadv.whitebox import WhiteBox

            self._white_box = WhiteBox(self)
        return self._white_box


def _columns(texts: Sequence[tuple[str, ...]]) -> list[list[str]]:
    columns = [list(column) for column in zip(*texts, strict=True)]
    if len(columns) > 2:
        raise DataError("text", got=f"{len(columns)} columns", expected="one, or a pair")
    return columns


def _output(config: Any, label: str | int | None) -> int | None:
    """Return which output of a multi-label model is attacked; None for a single-label model."""
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if config.problem_type != "multi_label_classification":
        if label is None:
            return None
        raise UnsupportedModelError(
            "model",
            got=f"label {shown(str(label))} of a {config.problem_type or 'single-label'} model",
            expected="a multi-label model",
            fix="leave the label out",
        )
    if label is None:
        raise UnsupportedModelError(
            "model",
            got="a multi-label model",
            expected="the name of the label to attack",
            fix=f"set label to one of {shown(', '.join(names.values()))}",
        )
    found = [index for index, name in names.items() if label in (name, index)]
    if not found:
        raise unknown_name("label", label, names.values(), where="model")
    return found[0]


def _max_length(model: Any, tokenizer: Any, argument: int | None) -> int:
    """Return the most tokens that tokenizer, model and caller all allow."""
    limit = models.max_positions(model, tokenizer)
    if limit is None or limit < 1:
        limit = FALLBACK_LENGTH
        logger.warning("model and tokenizer state no length limit: texts are cut at %d", limit)
    return limit if argument is None else min(limit, argument)


def _pad_id(model: Any, tokenizer: Any) -> int:
    """Return the id to pad with, and give it to a model that has none."""
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = model.config.pad_token_id
    if pad is None:
        end = tokenizer.eos_token_id
        pad = end if end is not None else 0
        logger.warning("no pad token: padding with id %d, hidden by the attention mask", pad)
    with contextlib.suppress(AttributeError):
        if model.config.pad_token_id is None:
            model.config.pad_token_id = pad
    return int(pad)
