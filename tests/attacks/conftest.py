from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oracles import toy
from textadv.attacks import ATTACKS

# Settings that make an attack of the table run on toy texts, where its defaults do not.
TOY_FIELDS: dict[str, dict[str, Any]] = {"deepwordbug-all": {"letters": "aeiou"}}


@pytest.fixture(scope="session")
def toy_fields(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return the fields under which an attack of the table runs on the toy victim."""
    vectors: Path = toy.write_vectors(tmp_path_factory.mktemp("vectors"))

    def fields(name: str) -> dict[str, Any]:
        known = {field.name for field in dataclasses.fields(ATTACKS[name])}
        values = dict(TOY_FIELDS.get(name, {}))
        if "vectors" in known:
            values |= {"source": "vectors", "vectors": str(vectors), "min_cosine": 0.3}
            values |= {"max_candidates": 6}
        return values

    return fields
