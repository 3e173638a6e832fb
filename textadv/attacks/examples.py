"""Examples from texts and labels, fixed samples of them, and whether they fit a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from numbers import Integral

from textadv.attacks.base import Example, config_hash
from textadv.errors import DataError, shown
from textadv.seeding import derive
from textadv.victim import ModelVictim, Victim, label_names
from textadv.words import Words

__all__ = ["check_examples", "make_examples", "sample_examples", "sample_hash"]


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


def check_examples(victim: Victim, sample: Sequence[Example]) -> None:
    """Refuse examples that a model cannot mean.

    Raises:
        DataError: No examples, labels the model does not have, or a number of columns that differs
            between texts or is not what the model reads.
    """
    if not sample:
        raise DataError("examples", got="none", expected="at least one")
    _check_columns(victim, sample)
    classes: int | None = getattr(victim, "num_labels", None)
    for example in sample:
        if classes is not None and example.label >= classes:
            raise DataError(
                f"example {shown(example.id)}, label",
                got=str(example.label),
                expected=f"0 to {classes - 1}, the classes of the model",
                fix="map the labels of the data to those of the model",
            )


def _check_columns(victim: Victim, sample: Sequence[Example]) -> None:
    """Refuse texts with more, fewer or other numbers of columns than the model can mean."""
    widths = {len(example.words.texts): example.id for example in sample}
    if len(widths) > 1:
        got = " and ".join(f"{width} (example {shown(name)})" for width, name in widths.items())
        raise DataError("texts", got=f"columns {got}", expected="as many in every text")
    (width,) = widths
    if not isinstance(victim, ModelVictim):
        return
    if width > 2:
        raise DataError("texts", got=f"{width} columns", expected="one, or a pair")
    names = label_names(victim)
    if width == 1 and "entailment" in {name.casefold() for name in names}:
        raise DataError(
            "texts",
            got=f"single texts for a model of pairs (labels {', '.join(names)})",
            expected="pairs",
            fix="name both columns, for instance --text-column premise,hypothesis",
        )


def sample_hash(sample: Sequence[Example]) -> str:
    """Return a hash of ids, texts, labels and editable places."""
    return config_hash([[one.id, one.words.texts, one.label, one.words.editable] for one in sample])


def _is_label(label: object) -> bool:
    if isinstance(label, float):
        return label.is_integer() and label >= 0
    return isinstance(label, Integral) and not isinstance(label, bool) and int(label) >= 0
