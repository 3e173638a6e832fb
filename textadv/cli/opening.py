"""From the arguments of a command to a stored model and the examples to attack it on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textadv.cli.common import print_notes
from textadv.errors import (
    ConfigError,
    DataError,
    ResourceError,
    UnsupportedModelError,
    shown,
    unknown_name,
)

if TYPE_CHECKING:
    from textadv.attacks import Example
    from textadv.data import LabelSpace
    from textadv.victim import ModelVictim

__all__ = [
    "Opened",
    "editable_columns",
    "label_map_of",
    "open_data",
    "open_victim",
    "prepared",
    "read_examples",
    "read_space",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """Examples that fit a model, and what the report calls that model."""

    examples: list[Example]
    name: str


def prepared(attacks: Mapping[str, Any]) -> None:
    """Load what attacks need, or name the attack whose resource is missing."""
    for name, attack in attacks.items():
        try:
            attack.prepare()
        except ResourceError as error:
            raise ResourceError(
                f"attack {name}: {error.where}",
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            ) from None


def read_space(arguments: argparse.Namespace) -> LabelSpace:
    """Return the model's label space, once it is known that the model can be attacked.

    Raises:
        UnsupportedModelError: One label.
        ConfigError: A multi-label model without one of its labels, or one for another model.
    """
    from textadv.data import LabelSpace
    from textadv.models import load_config

    space = LabelSpace.from_model(load_config(arguments.model, arguments.revision))
    names = ", ".join(space.names)
    if space.task == "regression" or space.num_labels < 2:
        raise UnsupportedModelError(
            f"model {shown(arguments.model)}",
            got=f"{space.num_labels} output of a {space.task} head",
            expected="a classifier of 2 labels or more",
        )
    chosen = arguments.label_name
    if space.task == "multi_label" and chosen is None:
        raise ConfigError(
            "--label-name",
            got="nothing for a multi-label model",
            expected=f"the label to attack: {shown(names, 200)[1:-1]}",
        )
    if space.task != "multi_label" and chosen is not None:
        raise ConfigError(
            "--label-name",
            got=f"{shown(chosen)} for a model of one label per text",
            expected="a multi-label model",
            fix="leave it out",
        )
    if chosen is not None and chosen not in space.names:
        raise unknown_name("label", chosen, space.names, where="--label-name")
    return space


def open_data(arguments: argparse.Namespace, attacks: Mapping[str, Any] | None = None) -> Opened:
    """Check output directory, resources, label space and data; no weights are read yet."""
    from textadv.run import claim_folder

    folder = Path(arguments.output_dir)
    claim_folder(folder, resume=(folder / "records.jsonl").exists())
    prepared(attacks or {})
    space = read_space(arguments)
    return Opened(examples=read_examples(arguments, space), name=_model_name(arguments))


def read_examples(arguments: argparse.Namespace, space: LabelSpace) -> list[Example]:
    """Return the rows of --data, with their labels as the model's class ids."""
    from textadv.attacks.examples import make_examples

    data = _load(arguments, space)
    print_notes(data.notes)
    columns = data.splits["examples"].with_format(None)[:]
    labels = columns["label"]
    if data.labels.task == "multi_label":
        at = space.names.index(arguments.label_name)
        labels = [int(row[at]) for row in labels]
    return make_examples(
        columns["text"],
        labels,
        ids=columns["id"],
        editable=editable_columns(arguments, len(columns["text"][0])),
    )


def open_victim(arguments: argparse.Namespace, device: Any = None) -> ModelVictim:
    """Load the model."""
    from textadv.victim import ModelVictim

    return ModelVictim.load(
        arguments.model,
        revision=arguments.revision,
        dtype=arguments.dtype,
        device=device,
        max_length=arguments.max_length,
        label=arguments.label_name,
    )


def _load(arguments: argparse.Namespace, space: LabelSpace) -> Any:
    """Read the examples; the label of a multi-label model may also have a column of 0 and 1."""
    from textadv.data import LabelSpace, load_examples

    spaces = [space]
    if arguments.label_name is not None:
        name = arguments.label_name
        spaces.append(LabelSpace("single_label", (f"not {name}", name)))
    failures = []
    for candidate in spaces:
        try:
            return load_examples(
                arguments.data,
                split=arguments.split,
                text=arguments.text_column.split(",") if arguments.text_column else None,
                label=arguments.label_column,
                label_space=candidate,
                label_map=label_map_of(arguments),
                drop_empty=getattr(arguments, "drop_empty", False),
            )
        except DataError as error:
            failures.append(error)
    raise failures[0]


def label_map_of(arguments: argparse.Namespace) -> dict[str, str] | None:
    """Return what --label-map says: the model's label of each label in the data."""
    text = getattr(arguments, "label_map", None)
    if text is None:
        return None
    pairs = [pair.rpartition("=") for pair in text.split(",")]
    found = {theirs.strip(): ours.strip() for theirs, sign, ours in pairs if sign}
    if len(found) < len(pairs) or not all(found) or not all(found.values()):
        raise ConfigError("--label-map", got=shown(text), expected="pairs such as neg=0,pos=1")
    return found


def editable_columns(arguments: argparse.Namespace, width: int) -> list[int] | None:
    """Return which columns attacks may edit."""
    if arguments.edit_column is None:
        return None
    if arguments.edit_column > width:
        raise ConfigError(
            "--edit-column",
            got=f"{arguments.edit_column} of {width} text column",
            expected="a column of a pair",
            fix="name both with --text-column",
        )
    return [arguments.edit_column - 1]


def _model_name(arguments: argparse.Namespace) -> str:
    """Return the model with what decides its scores, so that other records are not mixed in."""
    parts = [arguments.model]
    if arguments.label_name is not None:
        parts.append(f"label {arguments.label_name}")
    if arguments.dtype != "float32":
        parts.append(arguments.dtype)
    return ", ".join(parts)
