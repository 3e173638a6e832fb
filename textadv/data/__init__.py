"""Examples: from local files or the Hub to checked, mapped datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textadv.data.config import DataConfig
    from textadv.data.labels import LabelSpace
    from textadv.data.load import TextData, load_data, load_examples

__all__ = ["DataConfig", "LabelSpace", "TextData", "load_data", "load_examples"]

_HOMES = {
    "DataConfig": "config",
    "LabelSpace": "labels",
    "TextData": "load",
    "load_data": "load",
    "load_examples": "load",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: reading a recipe must not wait for Arrow."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
