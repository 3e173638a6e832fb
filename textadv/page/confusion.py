"""Confusion matrices, as the page shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["matrices"]


def matrices(confusion: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the matrices of the clean and the attacked texts, with a shade for each cell."""
    unknown = confusion["unknown"]
    titles = {"clean": "Clean", "under_attack": "Under attack"}
    for key, title in titles.items():
        rows = confusion[key]
        yield {
            "title": title,
            "names": names,
            "note": _matrix_note(unknown) if key == "under_attack" else "",
            "rows": [
                {
                    "name": name,
                    "cells": [
                        {
                            "count": count,
                            "gold": row == column,
                            "heat": f"h{_heat(count, sum(counts))}",
                        }
                        for column, count in enumerate(counts)
                    ],
                }
                for row, (name, counts) in enumerate(zip(names, rows, strict=True))
            ],
        }


def _matrix_note(unknown: int) -> str:
    note = "Examples without a flip, unresolved ones among them, keep their clean prediction."
    return note + (f" {unknown} flips have no prediction to show." if unknown else "")


def _heat(count: int, total: int) -> int:
    return 0 if not count else 1 + min(3, int(4 * count / total))
