"""Where tables come from: local files, and datasets on the Hub."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from textadv.data.config import DataConfig
from textadv.data.readers import SUFFIXES, Table, open_table
from textadv.errors import DataError, shown
from textadv.files import path_problem

__all__ = ["is_file_name", "open_hub_splits", "open_splits"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def open_splits(config: DataConfig, base_dir: Path, where: str) -> dict[str, Table]:
    """Open every split that a `data` block names, before any of them is read.

    Args:
        config: The `data` block.
        base_dir: Folder that relative paths start from.
        where: The block's place, for errors.

    Raises:
        DataError: A split cannot be opened, or there is no training split.
    """
    given = {"train": config.train, "validation": config.validation, "test": config.test}
    if config.name is None:
        if config.train is None:
            raise DataError(
                f"{where}.train", got="nothing", expected="a file, or a Hub dataset in data.name"
            )
        return {
            split: open_table(base_dir / Path(path).expanduser(), f"{where}.{split}")
            for split, path in given.items()
            if path is not None
        }
    wanted = {split: name for split, name in given.items() if name is not None}
    optional = {"validation"} if config.validation_fraction is None else set()
    return open_hub_splits(
        config.name,
        {"train": "train", **dict.fromkeys(optional - set(wanted), "validation"), **wanted},
        config=config.config,
        revision=config.revision,
        optional=optional - set(wanted),
        where=where,
    )


def is_file_name(source: str) -> bool:
    """Return whether a source means a local file rather than a Hub dataset."""
    path = Path(source)
    named = path.suffix.lower() in SUFFIXES or source.startswith((".", "/", "~"))
    return named or not path_problem(path)


def open_hub_splits(
    name: str,
    splits: dict[str, str],
    *,
    config: str | None = None,
    revision: str | None = None,
    optional: set[str] | frozenset[str] = frozenset(),
    where: str,
) -> dict[str, Table]:
    """Load splits of a Hub dataset through `datasets`; code in the dataset is never run.

    Args:
        name: Dataset id.
        splits: Our name of a split to the dataset's, slices such as `train[:10%]` included.
        config: Configuration of the dataset.
        revision: Branch, tag or commit.
        optional: Splits that may be missing.
        where: The place that named the dataset, for errors.

    Raises:
        DataError: No such dataset, configuration or split, or the Hub cannot be reached.
    """
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise DataError(
            f"{where}.name",
            got=shown(name),
            expected="a Hub dataset id such as owner/name",
            fix="give local files as data.train, data.validation and data.test",
        )
    title = name + (f" ({config})" if config else "")
    everything = _load(f"{where}.name", title, name, config, revision=revision)
    found: dict[str, Table] = {}
    for split, theirs in splits.items():
        if theirs in everything:
            dataset = everything[theirs]
        elif split in optional:
            continue
        elif re.search(r"[\[+]", theirs):
            dataset = _load(
                f"{where}.{split}", title, name, config, revision=revision, split=theirs
            )
        else:
            raise DataError(
                f"{where}.{split}",
                got=f"no split {shown(theirs)} in {title}",
                expected="one of " + ", ".join(map(str, everything)),
            )
        found[split] = _hub_table(dataset, f"{title}, split {shown(theirs)}")
    return found


def _load(where: str, title: str, *args: str | None, **options: Any) -> Any:
    import datasets

    try:
        return datasets.load_dataset(*args, **options)
    # Whatever the Hub, the network or the dataset's own files raise, the user gets one line.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(
            where,
            got=f"{title}, which cannot be loaded ({type(error).__name__}: {shown(reason, 240)})",
            expected="a dataset on the Hub or in the local cache",
            fix="check the id, data.config, the network and your access, or use local files",
        ) from None


def _hub_table(dataset: Any, name: str) -> Table:
    def rows(wanted: list[str]) -> Generator[list[Any], None, None]:
        for batch in dataset.select_columns(wanted).iter(batch_size=1024):
            yield from map(list, zip(*(batch[column] for column in wanted), strict=True))

    kinds = {column: getattr(kind, "feature", kind) for column, kind in dataset.features.items()}
    names = {
        column: list(kind.names)
        for column, kind in kinds.items()
        if type(kind).__name__ == "ClassLabel"
    }
    return Table(name=name, columns=list(dataset.column_names), rows=rows, class_names=names)
