"""Tokenised examples in flat arrays, and the order in which training sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from textadv.seeding import derive
from textadv.training import TrainingConfig

if TYPE_CHECKING:
    from textadv.attacks.base import Example

__all__ = ["Encoded", "MicroBatches", "Share", "plan_epoch", "plan_evaluation"]

# Number, examples and weight of each micro-batch of one process in a step.
Share = list[tuple[int, list[int], float]]

CHUNK = 1_000
BUCKET_BATCHES = 50


class Encoded:
    """Hold tokenised examples without padding, and cut padded batches from them.

    Args:
        texts: One or two strings per example.
        labels: One label per example: an integer, a number, or a list of zeros and ones.
        tokenizer: A Transformers tokenizer.
        max_length: Longest input in tokens; longer ones are cut and counted in `num_cut`.
        ids: Identifiers of the examples; their positions by default.
        pad_to_multiple_of: Round the width of batches up, so that compiled models see few widths.

    Shape:
        A batch holds `input_ids`, `attention_mask`, `special_tokens_mask` (and `token_type_ids` if
        the tokenizer makes them), all (B, L) int64, and `labels`: (B,) int64, (B,) or (B, C)
        float32.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[str]],
        labels: Sequence[Any],
        tokenizer: Any,
        *,
        max_length: int = 128,
        ids: Sequence[str] | None = None,
        pad_to_multiple_of: int = 1,
    ) -> None:
        flat: dict[str, list[np.ndarray]] = {}
        lengths: list[int] = []
        self.num_cut = 0
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            columns = [list(column) for column in zip(*chunk, strict=True)]
            rows = tokenizer(
                *columns,
                truncation=True,
                max_length=max_length,
                return_special_tokens_mask=True,
            )
            for name in ("input_ids", "special_tokens_mask", "token_type_ids"):
                if name in rows:
                    flat.setdefault(name, []).extend(np.asarray(r, np.int32) for r in rows[name])
            lengths.extend(len(row) for row in rows["input_ids"])
            self.num_cut += sum(bool(row.overflowing) for row in rows.encodings or ())
        self._flat = {
            name: np.concatenate([*rows, np.empty(0, np.int32)]) for name, rows in flat.items()
        }
        self.lengths = np.asarray(lengths, np.int64)
        self._ends = np.cumsum(self.lengths)
        wide = np.asarray(labels)
        self.labels = torch.as_tensor(
            wide.astype(np.float32 if wide.dtype.kind == "f" or wide.ndim > 1 else np.int64)
        )
        self.ids = list(ids) if ids is not None else [str(i) for i in range(len(lengths))]
        self._fill = {
            "input_ids": tokenizer.pad_token_id,
            "special_tokens_mask": 1,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        self._left = tokenizer.padding_side == "left"
        self._multiple = pad_to_multiple_of

    @classmethod
    def from_dataset(cls, dataset: Any, tokenizer: Any, **options: Any) -> Encoded:
        """Encode a dataset with the columns `id`, `text` and `label`."""
        columns = dataset.with_format(None)[:]
        return cls(columns["text"], columns["label"], tokenizer, ids=columns["id"], **options)

    @classmethod
    def from_examples(cls, examples: Sequence[Example], tokenizer: Any, **options: Any) -> Encoded:
        """Encode examples of an attack as they are before it."""
        return cls(
            [example.words.texts for example in examples],
            [example.label for example in examples],
            tokenizer,
            ids=[example.id for example in examples],
            **options,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(
        self, indices: Sequence[int], device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Return the examples at `indices`, padded to the longest of them, on `device`."""
        lengths = self.lengths[list(indices)]
        width = -(-int(lengths.max()) // self._multiple) * self._multiple
        batch: dict[str, np.ndarray] = {
            name: np.full((len(lengths), width), self._fill[name], np.int64) for name in self._flat
        }
        attention = np.zeros((len(lengths), width), np.int64)
        for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            place = slice(width - length, width) if self._left else slice(0, length)
            source = slice(self._ends[index] - length, self._ends[index])
            attention[row, place] = 1
            for name, values in self._flat.items():
                batch[name][row, place] = values[source]
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        tensors["attention_mask"] = torch.from_numpy(attention)
        tensors["labels"] = self.labels[torch.as_tensor(np.asarray(indices))]
        return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


def plan_epoch(
    lengths: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    length_bucketing: bool = True,
) -> list[list[int]]:
    """Return the micro-batches of one epoch, each example once, from the seed and epoch alone.

    With bucketing, texts are sorted by length inside random windows of 50 batches, then the batches
    are shuffled: padding nearly vanishes and the order stays random.

    Example:
        >>> plan = plan_epoch([3, 9, 3, 9], batch_size=2, seed=0, epoch=0)
        >>> sorted(sum(plan, []))
        [0, 1, 2, 3]
    """
    lengths = np.asarray(lengths)
    random = np.random.default_rng(derive(seed, "order", epoch))
    order = random.permutation(len(lengths))
    if not length_bucketing:
        return [part.tolist() for part in _split(order, batch_size)]
    batches: list[list[int]] = []
    for window in _split(order, batch_size * BUCKET_BATCHES):
        by_length = window[np.argsort(lengths[window], kind="stable")]
        batches.extend(part.tolist() for part in _split(by_length, batch_size))
    return [batches[i] for i in random.permutation(len(batches))]


class MicroBatches:
    """Deal the micro-batches of every optimizer step to the processes.

    A step takes `accumulation` micro-batches from each of `world_size` processes; which examples
    it sees does not depend on how the same number is split between the two.

    Args:
        lengths: Token counts of the training examples.
        batch_size: Examples per micro-batch.
        accumulation: Micro-batches per process and step.
        seed: Seed of the order.
        length_bucketing: See `plan_epoch`.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        batch_size: int,
        accumulation: int,
        seed: int,
        length_bucketing: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths, self.rank, self.world_size = lengths, rank, world_size
        self.order: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "length_bucketing": length_bucketing,
        }
        self.group_size = accumulation * world_size
        self.steps_per_epoch = math.ceil(math.ceil(len(lengths) / batch_size) / self.group_size)
        self._epoch: int | None = None
        self._plan: list[list[int]] = []

    @classmethod
    def of(cls, lengths: np.ndarray, config: TrainingConfig, accelerator: Any) -> MicroBatches:
        """Deal as the `training` block says, to the processes of an `accelerate.Accelerator`."""
        return cls(
            lengths,
            batch_size=config.batch_size,
            accumulation=config.gradient_accumulation_steps,
            seed=config.seed,
            length_bucketing=config.length_bucketing,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )

    def __getitem__(self, step: int) -> Share:
        """Return this process's share of a step: number, examples and weight of each micro-batch.

        Weights make the mean over processes of the weighted sums the mean over all examples of the
        step, also when the last batches of an epoch are short. A process that would have none
        repeats one at weight 0, because all must take part in the exchange of gradients.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._plan = plan_epoch(self.lengths, epoch=epoch, **self.order)
            self._epoch = epoch
        group = self._plan[position * self.group_size : (position + 1) * self.group_size]
        total = sum(map(len, group))
        share = []
        rounds = math.ceil(len(group) / self.world_size)
        for number in range(self.rank, rounds * self.world_size, self.world_size):
            indices = group[number] if number < len(group) else group[0]
            weight = self.world_size * len(indices) / total if number < len(group) else 0.0
            share.append((number, indices, weight))
        return share


def plan_evaluation(
    lengths: Sequence[int] | np.ndarray, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Return this process's share of the examples in length-sorted batches."""
    order = np.argsort(np.asarray(lengths), kind="stable")[rank::world_size]
    return [part.tolist() for part in _split(order, batch_size)]


def _split(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (order[start : start + size] for start in range(0, len(order), size))
