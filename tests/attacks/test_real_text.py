"""Every attack on real sentences with real resources, where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.oracles import toy
from textadv.attacks import ATTACKS, build_attack, run
from textadv.attacks.base import attack_resources
from textadv.attacks.examples import make_examples
from textadv.errors import ResourceError
from textadv.resources import find

SHARED = Path(os.environ.get("TEXTADV_SHARED", Path(__file__).parents[3] / "shared"))
DATA = SHARED / "data"
PATHS = {
    "wordnet": DATA / "nltk_data",
    "tagger": DATA / "nltk_data",
    "stopwords": DATA / "nltk_data",
    "vectors": DATA / "vectors",
    "masked-lm": DATA / "masked_lm",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_on_real_sentences(name: str) -> None:
    file = DATA / "sst2" / "validation.jsonl"
    if not file.is_file():
        pytest.skip(f"no {file}")
    fields = {}
    for kind in attack_resources(build_attack(name)):
        if kind in PATHS:
            fields[kind.replace("-", "_")] = str(PATHS[kind])
        else:
            try:
                find(kind)
            except ResourceError as error:
                pytest.skip(str(error))
    lines = file.read_text(encoding="utf-8").splitlines()[:5]
    texts = [json.loads(line)["text"] for line in lines]
    labels = [row.index(max(row)) for row in toy.scores(texts)]
    examples = make_examples(texts, labels)
    attack = build_attack(name, fields)
    found = list(run({name: attack}, toy.victim(), examples, query_budget=120))
    again = list(run({name: attack}, toy.victim(), examples, query_budget=120, width=1))
    assert set(found) == set(again)
    assert len(found) == len(texts)
    for record in found:
        assert not record.reason.startswith("error"), record.reason
        assert record.num_queries <= 120
        assert record.status in ("flipped", "survived") or record.reason == "no_candidates"
    if name not in ("checklist", "input-reduction", "textfooler-strict"):
        assert any(record.status == "flipped" for record in found)
