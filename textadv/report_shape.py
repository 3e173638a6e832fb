"""What a `report.json` must look like, checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from textadv.errors import DataError, shown

__all__ = ["check_report"]

MOST = 10**9
"""More examples, queries or points than any report has."""

# A shape is one of these words, `[shape]` for a list, `{"*": shape}` for a mapping of any names, a
# mapping of keys to shapes (`?` behind a key that may be missing), or `(shape,)` for it or null.
_KINDS = {
    "text": "text",
    "count": "a whole number >= 0",
    "whole": "a whole number",
    "number": "a number",
    "share": "a number from 0 to 1",
    "interval": "two numbers from 0 to 1",
    "outcome": "PASS, FLAG, FAIL or INCONCLUSIVE",
    "any": "anything",
}
_COUNTS = dict.fromkeys(("wrong_before", "flipped", "survived", "unresolved"), "count")
_FIGURE = {"accuracy": "share", "interval": "interval", "counts": _COUNTS}
_ATTACK = {
    "accuracy_under_attack": "share",
    "interval": "interval",
    "attack_success_rate": ("share",),
    "mean_queries": ("number",),
    "median_queries": ("number",),
    "query_budget": ("count",),
    "counts": _COUNTS,
    "reasons?": {"*": "count"},
    "modified_word_rate?": ("number",),
    "config?": {"*": "any"},
    "config_hash?": "text",
    "quality?": {
        "edit_distance?": "number",
        "encoder?": "text",
        "similarity?": "number",
        "similarity_p5?": "number",
        "threshold?": "number",
        "filtered?": "share",
        "filtered_interval?": "interval",
    },
}
_CASCADE = {
    **dict.fromkeys(("name", "hash", "mode"), "text"),
    "groups": {"*": {"attacks": ["text"], **_FIGURE}},
    "tracks": {"*": {"attacks": ["text"], **_FIGURE, "not_tried": "count", "at_most": "share"}},
    "headline": {
        **{"group": "text", "tracks": ["text"], "attacks": ["text"], "text": "text", **_FIGURE},
        "all_tracks?": ["text"],
    },
    "not_run": {"*": "text"},
}
_FINDING = dict.fromkeys(("rule", "title", "figure", "advice"), "text") | {"outcome": "outcome"}
_CLASS = {
    "label": "count",
    "num_examples": "count",
    "right": "count",
    "standing": "count",
    "interval": "interval",
}
_DETAILS = {
    "group": ("text",),
    "classes": [_CLASS],
    "confusion": {"clean": [["count"]], "under_attack": [["count"]], "unknown": "count"},
    "query_curves": {"*": [["count"]]},
}
_REPORT = {
    "model": "text",
    "data": "text",
    "num_examples": "count",
    "seed": "whole",
    "clean_accuracy": "share",
    "clean_interval": "interval",
    "attacks?": {"*": _ATTACK},
    "embedding?": {
        "*": {
            "accuracy": "share",
            "interval?": "interval",
            "norm?": ("text",),
            "epsilon?": ("number",),
            "num_steps?": ("count",),
            "num_examples?": ("count",),
            "mean_token_norm?": ("number",),
        }
    },
    "worst_case?": ({**_FIGURE, "counts": {"*": "count"}, "attacks": ["text"]},),
    "versions?": {"*": "text"},
    "data_hash?": "text",
    "cascade?": (_CASCADE,),
    "audit?": ({"verdict": "text", "num_examples": "count", "findings": [_FINDING]},),
    "commands?": ["text"],
    "details?": (_DETAILS,),
}


def check_report(values: Mapping[str, Any], where: str = "report") -> None:
    """Refuse values that do not have the shape of a report.

    Keys beside those of the shape are left to whoever reads them.

    Raises:
        DataError: The first field that does not fit, by its path.
    """
    _check(dict(values), _REPORT, where)
    n = values["num_examples"]
    for name, attack in values.get("attacks", {}).items():
        if sum(attack["counts"].values()) != n:
            raise DataError(
                f"{where}: attacks.{shown(name)[1:-1]}.counts",
                got=shown(attack["counts"], 200),
                expected=f"counts that add up to the {n} examples",
            )
        _check_quality(attack.get("quality") or {}, f"{where}: attacks.{shown(name)[1:-1]}.quality")
    if cascade := values.get("cascade"):
        grouped = {name for group in cascade["groups"].values() for name in group["attacks"]}
        if lost := sorted(set(values.get("attacks", {})) - grouped):
            raise DataError(
                f"{where}: cascade.groups",
                got=f"no group with {shown(lost[0])}",
                expected="every attack in a group",
            )
    if details := values.get("details"):
        _check_square(details, where)


def _check_quality(quality: Mapping[str, Any], where: str) -> None:
    wanted = ["edit_distance"] if quality else []
    if "encoder" in quality:
        wanted += ["similarity", "similarity_p5", "threshold"]
    if "filtered" in quality:
        wanted += ["filtered_interval"]
    for name in wanted:
        if name not in quality:
            raise DataError(f"{where}.{name}", got="nothing", expected="it there")


def _check_square(details: Mapping[str, Any], where: str) -> None:
    size = len(details["classes"])
    for name in ("clean", "under_attack"):
        matrix = details["confusion"][name]
        if len(matrix) != size or any(len(row) != size for row in matrix):
            raise DataError(
                f"{where}: details.confusion.{name}",
                got=f"{len(matrix)} rows",
                expected=f"one row and one column for each of the {size} classes",
            )
    if any(len(point) != 2 for curve in details["query_curves"].values() for point in curve):
        raise DataError(
            f"{where}: details.query_curves",
            got="a point without two numbers",
            expected="a budget and a count each",
        )


def _check(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, tuple):
        if value is not None:
            _check(value, shape[0], where)
    elif isinstance(shape, str):
        if not _fits(value, shape):
            raise DataError(where, got=shown(value), expected=_KINDS[shape])
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise DataError(where, got=shown(value), expected="a list")
        for index, item in enumerate(value):
            _check(item, shape[0], f"{where}[{index}]")
    else:
        if not isinstance(value, dict):
            raise DataError(where, got=shown(value), expected="a mapping")
        dot = ": " if where == "report" or where.endswith(".json") else "."
        if "*" in shape:
            for key, item in value.items():
                _check(item, shape["*"], f"{where}{dot}{shown(key)[1:-1]}")
            return
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value:
                _check(value[name], inner, f"{where}{dot}{name}")
            elif name == key:
                raise DataError(f"{where}{dot}{name}", got="nothing", expected="it there")


def _fits(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    if kind == "text":
        return isinstance(value, str)
    if kind == "outcome":
        return value in ("PASS", "FLAG", "FAIL", "INCONCLUSIVE")
    if kind == "interval":
        return (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(_fits(bound, "share") for bound in value)
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind in ("count", "whole"):
        return isinstance(value, int) and (kind == "whole" or 0 <= value <= MOST)
    if kind == "share":
        return 0 <= value <= 1
    return math.isfinite(value) and abs(value) <= 1e12
