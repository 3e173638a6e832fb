"""The models under attack: texts in, logits out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from textadv import models
from textadv.errors import DataError, UnsupportedModelError, shown

__all__ = ["CallableVictim", "ModelVictim", "Victim"]

logger = logging.getLogger(__name__)

FALLBACK_LENGTH = 512


class Victim(Protocol):
    """Score texts. One tuple of columns per text in, logits `(N, C)` float32 on the CPU out."""

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return one row of logits per text, in the order given."""
        ...


class CallableVictim:
    """Make a victim of any function from a list of texts to scores.

    Args:
        function: Gets a list of strings (of tuples of strings when texts have several columns) and
            returns `(N, C)` scores: a list of lists, an array or a tensor.
        scores: `"probabilities"` are turned into log-probabilities, whose margins are the logits'
            margins; `"logits"` are taken as they are.

    Example:
        >>> victim = CallableVictim(lambda texts: [[len(text), 3.0] for text in texts])
        >>> victim.logits([("good",)]).tolist()
        [[4.0, 3.0]]
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        *,
        scores: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        self.function, self.scores = function, scores

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return the function's scores as a float32 tensor `(N, C)`."""
        inputs = [text[0] if len(text) == 1 else text for text in texts]
        scores = torch.as_tensor(self.function(inputs)).detach().cpu()
        if self.scores == "probabilities":
            tiny = torch.finfo(torch.float64).tiny
            scores = scores.double().clamp_min(tiny).log()
        return scores.float()


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
        batch_tokens: Most tokens in one forward pass, padding included.

    Raises:
        UnsupportedModelError: One label, or a tokenizer with ids the model has no embedding for.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        device: torch.device | str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
    ) -> None:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device if device is not None else default)
        model.to(self.device).eval()
        self.model = cast("Any", model)
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.num_labels = int(self.model.config.num_labels)
        if self.num_labels < 2:
            got = f"{self.num_labels} label"
            raise UnsupportedModelError("model", got=got, expected="a classifier of 2 or more")
        models.check_vocabulary(self.model, tokenizer)
        self.max_length = _max_length(self.model, tokenizer, max_length)
        self.pad_id = _pad_id(self.model, tokenizer)

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype | str = "float32",
        device: torch.device | str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
    ) -> ModelVictim:
        """Load a classifier and its tokenizer from a directory or the Hub, safetensors only.

        Raises:
            UnsupportedModelError: No safetensors weights, no such model, no trained head, or
                weights with NaN.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        name = models.resolve_name(str(path_or_id))
        models.check_files(name)
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise models.unreadable(name, error) from error
        if missing := sorted(loading["missing_keys"]):
            raise UnsupportedModelError(
                f"model {shown(name)}",
                got=f"weights without {shown(missing[0])}",
                expected="a fine-tuned classifier, head included",
                fix="fine-tune it first: a random head has no accuracy to attack",
            )
        models.check_finite(model)
        return cls(
            model, tokenizer, device=device, max_length=max_length, batch_tokens=batch_tokens
        )

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return logits `(N, C)` in float32 on the CPU, whatever the model's precision."""
        if not texts:
            return torch.empty(0, self.num_labels)
        encoded = self.encode(texts)
        rows: dict[tuple[tuple[int, ...], ...], int] = {}
        places = [
            rows.setdefault(tuple(map(tuple, columns)), len(rows))
            for columns in zip(*encoded.values(), strict=True)
        ]
        unique = [dict(zip(encoded, columns, strict=True)) for columns in rows]
        scores = torch.empty(len(unique), self.num_labels)
        for batch in self._batches([len(row["input_ids"]) for row in unique]):
            scores[batch] = self._forward([unique[index] for index in batch])
        return scores[places]

    def encode(self, texts: Sequence[tuple[str, ...]]) -> dict[str, list[list[int]]]:
        """Tokenise without padding, cut to `max_length` (the longest column first)."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        if len(columns) > 2:
            raise DataError("text", got=f"{len(columns)} columns", expected="one, or a pair")
        encoded = self.tokenizer(
            *columns, truncation=True, max_length=self.max_length, padding=False
        )
        fills = {"input_ids": self.pad_id, "token_type_ids": 0}
        # A text without tokens gets one, so that its row does not depend on the batch around it.
        return {
            name: [row or [fill] for row in encoded[name]]
            for name, fill in fills.items()
            if name in encoded
        }

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield groups of rows, longest first, whose padded size fits `batch_tokens`."""
        batch: list[int] = []
        width = 0
        for index in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if batch and (len(batch) + 1) * width > self.batch_tokens:
                yield batch
                batch = []
            width = width if batch else max(lengths[index], 1)
            batch.append(index)
        if batch:
            yield batch

    def _forward(self, rows: list[dict[str, tuple[int, ...]]]) -> Tensor:
        """Run one batch; halve it when the device is out of memory."""
        try:
            with torch.inference_mode():
                output: Tensor = self.model(**self._padded(rows)).logits
            return output.float().cpu()
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(rows) // 2
        return torch.cat([self._forward(rows[:half]), self._forward(rows[half:])])

    def _padded(self, rows: list[dict[str, tuple[int, ...]]]) -> dict[str, Tensor]:
        """Pad rows to the longest of them.

        On the right whatever the tokenizer says, because absolute positions start at the left; on
        the left for XLNet, which reads its answer from the last place.
        """
        width = max(len(row["input_ids"]) for row in rows)
        right = self.model.config.model_type != "xlnet"

        def padded(values: Sequence[int], fill: int) -> list[int]:
            missing = [fill] * (width - len(values))
            return [*values, *missing] if right else [*missing, *values]

        fills = {
            "input_ids": self.pad_id,
            "token_type_ids": getattr(self.tokenizer, "pad_token_type_id", 0),
        }
        batch = {name: [padded(row[name], fills[name]) for row in rows] for name in rows[0]}
        batch["attention_mask"] = [padded([1] * len(row["input_ids"]), 0) for row in rows]
        return {name: torch.tensor(value, device=self.device) for name, value in batch.items()}


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
