"""Label spaces: the names of a classification head's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from textadv.errors import DataError, shown

__all__ = ["PROBLEM_TYPES", "HeadTask", "LabelSpace", "refuse_other_map"]

HeadTask = Literal["single_label", "multi_label", "regression"]
PROBLEM_TYPES: dict[HeadTask, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class LabelSpace:
    """Name the outputs of a classification head.

    Args:
        task: `single_label`, `multi_label` or `regression`.
        names: Label names in the order of their ids; one name for regression.

    Example:
        >>> LabelSpace("single_label", ("neg", "pos")).label2id
        {'neg': 0, 'pos': 1}
    """

    task: HeadTask
    names: tuple[str, ...]

    @property
    def num_labels(self) -> int:
        """Return the number of outputs."""
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Return the name of every id."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Return the id of every name."""
        return {name: index for index, name in enumerate(self.names)}

    @property
    def problem_type(self) -> str:
        """Return the task in the words of transformers' `config.problem_type`."""
        return PROBLEM_TYPES[self.task]

    @classmethod
    def from_model(cls, model: Any) -> LabelSpace:
        """Read the label space of a stored model from the model or its transformers config."""
        config = getattr(model, "config", model)
        names = {int(key): str(name) for key, name in config.id2label.items()}
        if not names or sorted(names) != list(range(len(names))):
            raise DataError("model config: id2label", got=shown(names), expected="ids 0, 1, 2, ...")
        tasks = {problem_type: task for task, problem_type in PROBLEM_TYPES.items()}
        fallback: HeadTask = "regression" if len(names) == 1 else "single_label"
        task = tasks.get(getattr(config, "problem_type", None) or "", fallback)
        return cls(task, tuple(names[index] for index in range(len(names))))


def refuse_other_map(
    data_names: Sequence[str], space: LabelSpace, where: str, *, owner: str = "model"
) -> None:
    """Refuse data whose own id-to-name map contradicts a fixed label space.

    A space without real names (`LABEL_0`, `LABEL_1`, ...) contradicts nothing.

    Args:
        data_names: Names the data gives to ids 0, 1, 2, ...
        space: The fixed label space.
        where: The source, for errors.
        owner: What the fixed space belongs to, for errors.

    Raises:
        DataError: Same ids, other names; the message shows both maps.
    """
    if space.task == "regression":
        return
    ours = [name.casefold() for name in space.names]
    theirs = [str(name).strip().casefold() for name in data_names]
    unnamed = [f"label_{index}" for index in range(len(ours))]
    if len(theirs) > len(ours) or (ours != unnamed and ours[: len(theirs)] != theirs):
        kind = "permuted" if sorted(ours) == sorted(theirs) else "different"
        raise DataError(
            f"{where}: {kind} label maps",
            got=f"data {shown(dict(enumerate(data_names)), 200)}",
            expected=f"{owner} {shown(space.id2label, 200)}",
            fix="give the data with label names instead of ids",
        )
