from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.oracles import toy
from textadv.attacks import ATTACKS

# Settings that make an attack of the table run on toy texts, where its defaults do not.
POPULATION = {"population": 5, "generations": 3, "max_rate": 0.5}
TOY_FIELDS: dict[str, dict[str, Any]] = {
    "a2t": {"min_cosine": -0.5, "min_similarity": 0.6},
    "alzantot": {**POPULATION, "max_candidates": 4},
    "bae-i": {"min_similarity": 0.7, "window": 3, "top_k": 6},
    "bae-r": {"min_similarity": 0.7, "window": 3, "top_k": 8},
    "bert-attack": {"max_candidates": 6, "chunk": 2, "antonym_cosine": -0.5, "source": "masked-lm"},
    "clare": {"min_similarity": 0.6, "window": 3, "top_k": 6, "min_insert": 0.02},
    "deepwordbug-all": {"letters": "aeiou"},
    "fast-genetic": POPULATION,
    "hard-label": {"num_tries": 20, "chunk": 4, "population": 4, "generations": 4, "patience": 2},
    "iga": POPULATION,
    "imperceptible-delete": {"population": 2, "generations": 3},
    "imperceptible-homoglyph": {"population": 2, "generations": 3},
    "imperceptible-invisible": {"population": 2, "generations": 3},
    "imperceptible-reorder": {"population": 2, "generations": 3},
    "pso": {"source": "sememes", "particles": 4, "iterations": 3},
    "pruthi": {"max_words": 2},
    "synonym-beam": {"beam": 2},
    "synonym-best-first": {"max_texts": 4},
    "textbugger": {"min_similarity": 0.7},
    "textfooler": {"min_similarity": 0.8, "window": 3, "min_cosine": 0.0},
    "textfooler-author": {"min_similarity": 0.8, "window": 3, "min_cosine": 0.0},
    "textfooler-strict": {"min_similarity": 0.7, "min_cosine": 0.0},
    "textgrad": {"num_steps": 3, "num_samples": 3, "num_restarts": 2, "max_candidates": 5},
    "token-gradient": {"top_k": 3, "num_steps": 4, "num_restarts": 2},
}


@pytest.fixture(scope="session")
def toy_resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the paths of toy resources by the name of the field they go into."""

    root = tmp_path_factory.mktemp("resources")

    def folder(name: str) -> Path:
        (root / name).mkdir()
        return root / name

    paths = {
        "vectors": toy.write_vectors(folder("vectors")),
        "wordnet": toy.write_wordnet(folder("wordnet")),
        "tagger": toy.write_tagger(folder("averaged_perceptron_tagger_eng")),
        "sememes": toy.write_sememes(folder("sememes")),
        "stopwords": toy.write_stopwords(folder("stopwords")),
        "masked_lm": toy.write_language_model(folder("masked_lm"), "BertForMaskedLM"),
        "encoder": toy.write_language_model(folder("encoder"), "BertModel"),
    }
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture(scope="session")
def toy_fields(toy_resources: dict[str, str]) -> Callable[[str], dict[str, Any]]:
    """Return the fields under which an attack of the table runs on the toy victim."""

    def fields(name: str) -> dict[str, Any]:
        known = {field.name for field in dataclasses.fields(ATTACKS[name])}
        values = {kind: path for kind, path in toy_resources.items() if kind in known}
        if "source" in known:
            values |= {"source": "vectors", "min_cosine": 0.3, "max_candidates": 6}
        return values | TOY_FIELDS.get(name, {})

    return fields
