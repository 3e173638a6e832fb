"""Examples from texts and labels, checked, and fixed samples of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from numbers import Integral

from textadv.attacks.base import Example
from textadv.errors import DataError, shown
from textadv.seeding import derive
from textadv.words import Words

__all__ = ["make_examples", "sample_examples"]


def make_examples(
    texts: Sequence[str | Sequence[str]],
    labels: Sequence[int],
    *,
    ids: Sequence[str] | None = None,
    editable: Sequence[int] | None = None,
) -> list[Example]:
    """Check texts and labels and return them as examples.

    Args:
        texts: Strings, or one sequence of strings per text, for instance `(premise, hypothesis)`.
        labels: Gold labels, 0 or more.
        ids: Names of the examples; their row numbers by default.
        editable: Columns an attack may edit; all by default.

    Raises:
        DataError: Lengths that differ, a text that is no string or has no visible character, a
            label that is no integer >= 0, or an id given twice.
    """
    if len(texts) != len(labels) or (ids is not None and len(ids) != len(texts)):
        found = f"{len(texts)} texts, {len(labels)} labels"
        got = found if ids is None else f"{found}, {len(ids)} ids"
        raise DataError("examples", got=got, expected="one label, and one id if any, per text")
    names = [str(row) for row in range(len(texts))] if ids is None else [str(name) for name in ids]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError("ids", got=f"{shown(repeated[0])} more than once", expected="unique ids")
    examples = []
    for row, (name, text, label) in enumerate(zip(names, texts, labels, strict=True)):
        columns = tuple(text) if isinstance(text, list | tuple) else (text,)
        if not columns or not all(isinstance(column, str) for column in columns):
            raise DataError(f"row {row}, text", got=shown(text), expected="a string, or strings")
        if not any(column.strip() for column in columns):
            raise DataError(
                f"row {row}, text", got=shown(text), expected="a text that is not empty"
            )
        if not _is_label(label):
            raise DataError(f"row {row}, label", got=shown(label), expected="an integer >= 0")
        words = Words.of(columns, editable=editable)
        examples.append(Example(id=name, words=words, label=int(label)))
    return examples


def sample_examples(examples: Sequence[Example], count: int, seed: int = 0) -> list[Example]:
    """Return `count` examples, each label in its share, in the order given.

    The choice depends on ids, labels and the seed alone, and the sample of a smaller count is not
    promised to lie in that of a larger one. Shares are rounded by largest remainder.
    """
    if count >= len(examples):
        return list(examples)
    groups: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.label].append(example)
    quotas = {label: count * len(group) / len(examples) for label, group in groups.items()}
    sizes = {label: int(quota) for label, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda label: (sizes[label] - quotas[label], label))
    for label in by_remainder[: count - sum(sizes.values())]:
        sizes[label] += 1
    chosen: set[str] = set()
    for label, group in groups.items():
        ranked = sorted(group, key=lambda example: derive(seed, "sample", example.id))
        chosen.update(example.id for example in ranked[: sizes[label]])
    return [example for example in examples if example.id in chosen]


def _is_label(label: object) -> bool:
    if isinstance(label, float):
        return label.is_integer() and label >= 0
    return isinstance(label, Integral) and not isinstance(label, bool) and int(label) >= 0
