"""The label space of a task, found in its training labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from textadv.data.config import Task
from textadv.data.labels import HeadTask, LabelSpace
from textadv.data.raw import RawLabels, is_vector, negative_label, plain
from textadv.errors import DataError, shown

__all__ = ["infer_labels"]

_SCORE = ("score",)


def infer_labels(
    raw: RawLabels, *, task: Task = "auto", names: Sequence[str] | None = None
) -> tuple[LabelSpace, list[str]]:
    """Find the task and the label names.

    Names are sorted, integers 0..C-1 are kept as ids, other integers and booleans become names in
    their order, lists make the task multi-label, and numbers with fractions make it regression.

    Args:
        raw: Labels of the training rows.
        task: The task, or `auto`.
        names: Label names in the order of their ids, when they are known.

    Returns:
        The label space, and notes on what was decided.

    Raises:
        DataError: Mixed kinds of labels, a negative label, a single class, or labels that do
            not fit the task.
    """
    notes: list[str] = []
    head = _head(raw, task)
    if head == "regression":
        if len(raw.values) == 1:
            raise _single(raw)
        notes.append(f"{raw.where}: labels are scores, task regression")
        return LabelSpace(head, tuple(names) if names and len(names) == 1 else _SCORE), notes
    if head == "multi_label":
        found = _list_names(raw, notes, known=bool(names))
    else:
        if len(raw.values) == 1:
            raise _single(raw)
        found = _scalar_names(raw, notes) if names is None else ()
    space = LabelSpace(head, tuple(names) if names is not None else found)
    if space.num_labels < 2 and head == "single_label":
        raise DataError(raw.where, got="one label name", expected="two or more")
    return space, notes


def _head(raw: RawLabels, task: Task) -> HeadTask:
    kinds = _kind_counts(raw)
    if task != "auto":
        if task == "single_label" and (fraction := _fractional(raw)):
            raise raw.error(fraction[0], f"label {raw.values[fraction[0]]}", "an integer or a name")
        if task == "single_label" and "list" in kinds:
            raise DataError(raw.where, got="list labels", expected="one label per row")
        return task
    if set(kinds) == {"list"}:
        return "multi_label"
    if set(kinds) == {"float"} and (fractional := _fractional(raw)):
        _refuse_stray_fraction(raw, fractional)
        return "regression"
    whole = {"int" if kind == "float" else kind for kind in kinds}
    if len(whole) > 1 or _fractional(raw):
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        examples = [plain(raw.values[raw.kinds.index(kind)]) for kind in sorted(kinds)]
        raise DataError(
            raw.where,
            got=f"labels of different kinds ({counted}), such as {shown(examples)}",
            expected="one kind of label",
            fix="clean the column, or set data.task to regression if they are scores",
        )
    return "single_label"


def _kind_counts(raw: RawLabels) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for position, count in raw.counts().items():
        kinds[raw.kinds[position]] += count
    return kinds


def _fractional(raw: RawLabels) -> list[int]:
    """Return the positions of the values that are not whole numbers."""
    return [
        position
        for position, (kind, value) in enumerate(zip(raw.kinds, raw.values, strict=True))
        if kind == "float" and not value.is_integer()
    ]


def _refuse_stray_fraction(raw: RawLabels, fractional: Sequence[int]) -> None:
    """Refuse a few fractions among whole numbers: damage is likelier than regression."""
    counts = raw.counts()
    share = sum(counts[position] for position in fractional) / len(raw.codes)
    if share < 0.1:
        raise raw.error(
            fractional[0],
            f"label {raw.values[fractional[0]]} among whole numbers",
            "class ids 0, 1, 2, ...",
            "set data.task to regression if these are scores",
        )


def _scalar_names(raw: RawLabels, notes: list[str]) -> tuple[str, ...]:
    kinds = set(raw.kinds)
    if kinds == {"bool"}:
        notes.append(f"{raw.where}: booleans mapped to False = 0, True = 1")
        return ("False", "True")
    if "name" in kinds:
        found = tuple(sorted(raw.values))
        folded = Counter(name.casefold() for name in found)
        twins = [name for name in found if folded[name.casefold()] > 1]
        if twins:
            raise DataError(
                raw.where,
                got=f"labels that differ only in case: {shown(twins)}",
                expected="one spelling per label",
            )
        limit = max(20, len(raw.codes) // 2)
        if len(found) > limit:
            raise DataError(
                raw.where,
                got=f"{len(found)} different labels in {len(raw.codes)} rows",
                expected="classes that repeat",
                fix="check data.label (--label-column), this looks like free text",
            )
        notes.append(
            f"{raw.where}: labels mapped to ids: {shown(dict(enumerate(found)), 200)}; "
            "another order: data.labels"
        )
        return found
    if "float" in kinds:
        notes.append(f"{raw.where}: whole numbers such as 1.0 taken as integers")
    return _int_names(raw, {int(value): at for at, value in enumerate(raw.values)}, notes)


def _int_names(raw: RawLabels, found: dict[int, int], notes: list[str]) -> tuple[str, ...]:
    lowest = min(found)
    if lowest < 0:
        raise negative_label(raw, found[lowest], lowest)
    if sorted(found) == list(range(len(found))):
        return tuple(f"LABEL_{index}" for index in range(len(found)))
    names = tuple(str(value) for value in sorted(found))
    notes.append(f"{raw.where}: labels mapped to ids: {shown(dict(enumerate(names)), 200)}")
    return names


def _list_names(raw: RawLabels, notes: list[str], known: bool) -> tuple[str, ...]:
    for position, kind in enumerate(raw.kinds):
        if kind != "list":
            raise raw.error(
                position,
                f"label {shown(raw.values[position])}",
                'a list for multi_label, such as ["a", "b"] or [0, 2]',
            )
    if known:
        return ()
    width = max(len(parts) for parts in raw.values)
    if all(is_vector(parts, width) for parts in raw.values):
        return tuple(f"LABEL_{index}" for index in range(width))
    parts: dict[tuple[str, Any], int] = {}
    for position, value in enumerate(raw.values):
        for part in value:
            parts.setdefault(part, position)
    kinds = {kind for kind, _ in parts}
    if kinds == {"int"}:
        return _int_names(raw, {value: position for (_, value), position in parts.items()}, notes)
    if kinds == {"name"}:
        return tuple(sorted(value for _, value in parts))
    first = next((at for (kind, _), at in parts.items() if kind not in ("int", "name")), 0)
    raise raw.error(
        first,
        f"label {shown(plain(raw.values[first]))}" if parts else "only empty lists",
        "lists of names, of ids, or 0/1 vectors of one length",
    )


def _single(raw: RawLabels) -> DataError:
    return DataError(
        raw.where,
        got=f"a single class, {shown(plain(raw.values[0]))}, in all {len(raw.codes)} training rows",
        expected="two or more classes",
    )
