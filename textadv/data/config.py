"""The `data` block of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textadv.errors import ConfigError, shown

__all__ = ["DataConfig", "Task"]

Task = Literal["auto", "single_label", "multi_label", "regression"]
_TASKS = ("auto", "single_label", "multi_label", "regression")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Say where the examples are and which columns hold their texts and labels.

    Args:
        name: Hub dataset id; without it `train`, `validation` and `test` are local files.
        config: Configuration (subset) of the Hub dataset.
        revision: Branch, tag or commit of the Hub dataset.
        train: Local file (.csv, .tsv, .jsonl, .parquet), or split of the Hub dataset, by default
            its `train`.
        validation: The same for validation; the Hub dataset's `validation` when it has one.
        test: The same for testing; none when not given.
        text: One column, or two for sentence pairs; guessed when not given.
        label: Label column; guessed when not given.
        task: Kind of head; `auto` decides from the labels.
        labels: Label names in the order of their ids; otherwise found in the training labels.
        max_length: Longest input in tokens, special tokens included.
        validation_fraction: Share of the training rows, in (0, 1), set aside as validation.
        max_examples: Keep a random sample of at most this many rows of each split.
        drop_empty: Drop rows with an empty text instead of refusing them.

    Raises:
        ConfigError: A value is out of its range, or two options contradict each other.

    Example:
        >>> DataConfig(train="train.csv", text=["premise", "hypothesis"]).max_length
        128
    """

    name: str | None = None
    config: str | None = None
    revision: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    text: list[str] | None = None
    label: str | None = None
    task: Task = "auto"
    labels: list[str] | None = None
    max_length: int = 128
    validation_fraction: float | None = None
    max_examples: int | None = None
    drop_empty: bool = False

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            _refuse("task", self.task, "one of " + ", ".join(_TASKS))
        if self.text is not None and not (
            isinstance(self.text, list | tuple) and 1 <= len(set(self.text)) == len(self.text) <= 2
        ):
            _refuse("text", self.text, "a list of one column, or of two different ones for pairs")
        if self.label is not None and self.label in (self.text or ()):
            _refuse("label", self.label, "a column that is not also in data.text")
        if self.labels is not None:
            folded = {str(name).strip().casefold() for name in self.labels}
            if len(folded) < len(self.labels) or "" in folded or not folded:
                _refuse("labels", self.labels, "different, non-empty names")
        if self.max_length < 2:
            _refuse("max_length", self.max_length, "a whole number >= 2")
        if self.validation_fraction is not None:
            if not 0.0 < self.validation_fraction < 1.0:
                _refuse("validation_fraction", self.validation_fraction, "a number between 0 and 1")
            if self.validation is not None:
                raise ConfigError(
                    "data.validation_fraction",
                    got=f"{self.validation_fraction} beside data.validation",
                    expected="one of the two",
                    fix="delete one of them",
                )
        if self.max_examples is not None and self.max_examples < 1:
            _refuse("max_examples", self.max_examples, "a whole number >= 1")
        if self.name is None and (self.config or self.revision):
            _refuse(
                "config" if self.config else "revision",
                self.config or self.revision,
                "only beside data.name, for a Hub dataset",
            )


def _refuse(field: str, value: object, expected: str) -> None:
    raise ConfigError(f"data.{field}", got=shown(value), expected=expected)
