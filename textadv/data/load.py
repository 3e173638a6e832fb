"""Examples for training and for attacking, from a recipe's `data` block or any one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textadv.data.columns import choose_columns
from textadv.data.config import DataConfig
from textadv.data.encode import encode_labels
from textadv.data.infer import infer_labels
from textadv.data.labels import LabelSpace, refuse_other_map
from textadv.data.raw import RawLabels, plain
from textadv.data.readers import Table, open_table
from textadv.data.rows import read_rows
from textadv.data.sources import is_file_name, open_hub_splits, open_splits
from textadv.data.split import Split, duplicate_notes, overlap_notes, require_two_classes, set_aside
from textadv.errors import DataError, shown

__all__ = ["TextData", "load_data", "load_examples"]


@dataclass(frozen=True, kw_only=True)
class TextData:
    """Hold checked examples and the label space they share.

    Args:
        splits: `datasets.Dataset` per split with the columns `id` (string), `text` (list of one or
            two strings) and `label` (int, float, or list of float).
        labels: Task and label names.
        notes: What a reader should know: guesses, mappings, duplicates, overlap.
        digests: SHA-256 of each split's content, for comparing runs.
    """

    splits: dict[str, Any]
    labels: LabelSpace
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


def load_data(
    config: DataConfig, *, base_dir: str | Path = ".", seed: int = 0, where: str = "data"
) -> TextData:
    """Read, check and map every split of a `data` block.

    Args:
        config: The `data` block.
        base_dir: Folder that relative paths start from, usually the recipe's.
        seed: Seed of the validation split and of `max_examples`.
        where: The block's place, for errors, such as `recipe.yaml: data`.

    Raises:
        DataError: Something in the data cannot be trained on; nothing is skipped in silence.
    """
    tables = open_splits(config, Path(base_dir), where)
    first = choose_columns(tables["train"], text=config.text, label=config.label)
    columns = {
        split: first
        if split == "train"
        else choose_columns(table, text=first.text, label=first.label)
        for split, table in tables.items()
    }
    rows = {
        split: read_rows(table, columns[split], drop_empty=config.drop_empty)
        for split, table in tables.items()
    }
    known = tables["train"].class_names.get(first.label)
    if config.labels is not None and known is not None:
        refuse_other_map(
            known, LabelSpace("single_label", tuple(config.labels)), where, owner="data.labels"
        )
    names = config.labels if config.labels is not None else known
    space, notes = infer_labels(rows["train"].labels, task=config.task, names=names)
    splits = {}
    for split, table in tables.items():
        theirs = table.class_names.get(first.label)
        if split != "train" and theirs is not None:
            refuse_other_map(theirs, space, table.name, owner="train")
        encoded = encode_labels(rows[split].labels, space, hint=_hint(config, split))
        splits[split] = Split.whole(rows[split], encoded)
        notes += rows[split].notes
    if config.validation_fraction is not None:
        splits["train"], splits["validation"] = set_aside(
            splits["train"], space, config.validation_fraction, seed
        )
    if config.max_examples is not None:
        splits = {
            name: part.sampled(config.max_examples, seed, name) for name, part in splits.items()
        }
    require_two_classes(splits["train"], space)
    for name, part in splits.items():
        notes += duplicate_notes(name, part)
        if name != "train":
            notes += overlap_notes(name, part, splits["train"], space)
    return _finished(splits, space, notes)


def load_examples(
    source: str,
    *,
    split: str | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    label_space: LabelSpace,
    label_map: Mapping[str, str] | None = None,
    num_examples: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    drop_empty: bool = False,
    where: str = "--data",
) -> TextData:
    """Read one set of examples for a stored model.

    Args:
        source: A local file, or a Hub dataset id, with a configuration as `owner/name:config`.
        split: Split of the Hub dataset, by default `test`.
        text: One or two text columns; guessed when not given.
        label: Label column; guessed when not given.
        label_space: The model's, see `LabelSpace.from_model`.
        label_map: The model's name or id of each label as it is in the data, where names differ.
        num_examples: Keep a random sample of this many rows, in their order.
        seed: Seed of the sample.
        revision: Branch, tag or commit of the Hub dataset.
        drop_empty: Drop rows with an empty text instead of refusing them.
        where: The option that named the source, for errors.

    Returns:
        Data with one split, called `examples`.

    Raises:
        DataError: The data cannot be read, or its labels are unknown to the model or permuted.
    """
    if num_examples is not None and num_examples < 1:
        raise DataError("num_examples", got=str(num_examples), expected="a whole number >= 1")
    table = _open_source(source, split, revision, where)
    columns = choose_columns(table, text=text, label=label)
    names = table.class_names.get(columns.label)
    if names is not None and label_map is None:
        refuse_other_map(names, label_space, table.name)
    rows = read_rows(table, columns, drop_empty=drop_empty)
    fix = _ready_map(rows.labels, label_space)
    encoded = encode_labels(rows.labels, label_space, hint=fix, label_map=label_map)
    examples = Split.whole(rows, encoded)
    if num_examples is not None:
        examples = examples.sampled(num_examples, seed, "examples")
    notes = [*rows.notes, *duplicate_notes("examples", examples)]
    return _finished({"examples": examples}, label_space, notes)


def _open_source(source: str, split: str | None, revision: str | None, where: str) -> Table:
    if is_file_name(source):
        return open_table(Path(source).expanduser(), where)
    name, _, config = source.partition(":")
    return open_hub_splits(
        name,
        {"examples": split or "test"},
        config=config or None,
        revision=revision,
        where=where,
    )["examples"]


def _ready_map(raw: RawLabels, space: LabelSpace) -> str:
    """Return the fix for labels that the model does not know: a map to correct, if one can be."""
    found = sorted({str(plain(value)) for value in raw.values})
    names = f"the model's labels are {shown(space.id2label, 200)}; "
    if len(found) > space.num_labels or any("," in name or "=" in name for name in found):
        return names + "check the label column (--label-column)"
    pairs = ",".join(f"{name}={index}" for index, name in enumerate(found))
    return names + f"--label-map {shown(pairs, 200)} would map them in this order"


def _hint(config: DataConfig, split: str) -> str:
    if config.labels is not None:
        return "correct the row, or list the label in data.labels"
    absent = "this label does not occur in the training rows; list all labels in data.labels"
    return absent if split != "train" else ""


def _finished(splits: dict[str, Split], space: LabelSpace, notes: list[str]) -> TextData:
    digests = {name: split.digest() for name, split in splits.items()}
    datasets = {name: split.dataset(digests[name]) for name, split in splits.items()}
    return TextData(splits=datasets, labels=space, notes=notes, digests=digests)
