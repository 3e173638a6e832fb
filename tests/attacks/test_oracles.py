"""Every attack of the table equals its slow literal oracle on every toy example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.oracles import attacks as first
from tests.oracles import bugs, others, populations, searches, swaps, toy, weighted
from textadv.attacks import ATTACKS, build_attack, run
from textadv.seeding import python_random

SEED = 3

ORACLES: dict[str, Callable[..., first.Expected]] = {
    **first.ORACLES,
    "a2t": swaps.a2t,
    "alzantot": populations.genetic("alzantot"),
    "bae-i": swaps.bae_i,
    "bae-r": swaps.bae_r,
    "bert-attack": swaps.bert_attack,
    "checklist": others.checklist,
    "clare": others.clare,
    "fast-genetic": populations.genetic("fast"),
    "hard-label": populations.hard_label,
    "iga": populations.genetic("iga"),
    "imperceptible-delete": others.imperceptible("delete"),
    "imperceptible-homoglyph": others.imperceptible("homoglyph"),
    "imperceptible-invisible": others.imperceptible("invisible"),
    "imperceptible-reorder": others.imperceptible("reorder"),
    "input-reduction": others.input_reduction,
    "pruthi": bugs.pruthi,
    "pso": populations.pso,
    "pwws": weighted.pwws,
    "pwws-textattack": weighted.pwws_textattack,
    "synonym-beam": searches.synonym_beam,
    "synonym-best-first": searches.synonym_best_first,
    "textbugger": bugs.textbugger,
    "textfooler": swaps.textfooler,
    "textfooler-author": swaps.textfooler_author,
    "textfooler-strict": swaps.textfooler_strict,
    "textgrad": searches.textgrad,
    "token-gradient": searches.token_gradient,
}


def test_every_attack_has_an_oracle() -> None:
    assert set(ORACLES) == set(ATTACKS)


# Every attack of the table, and settings that make a rule bite which defaults seldom do.
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ATTACKS),
    ("deepwordbug", {"max_distance": 2}),
    ("deepwordbug-all", {"max_distance": 3}),
    ("synonym", {"max_candidates": 1, "min_cosine": -1.0}),
    ("synonym-beam", {"source": "masked-lm"}),
    ("synonym-best-first", {"source": "sememes"}),
    ("fast-genetic", {"source": "masked-lm"}),
]


@pytest.mark.parametrize("budget", [None, 1, 7, 23])
@pytest.mark.parametrize(("name", "extra"), CASES)
def test_attack_equals_its_oracle(
    name: str,
    extra: dict[str, Any],
    budget: int | None,
    toy_fields: Callable[[str], dict[str, Any]],
) -> None:
    fields = toy_fields(name) | extra
    examples = toy.examples_for(name, 60)
    attacks = {name: build_attack(name, fields)}
    records = {
        r.id: r for r in run(attacks, toy.victim(), examples, query_budget=budget, seed=SEED)
    }
    seen = Counter()
    for example in examples:
        rng = python_random(SEED, "attack", name, example.id)
        text = example.words.texts[0]
        expected = ORACLES[name](toy.scores, text, example.label, fields, rng, budget)
        record = records[example.id]
        found = record.adversarial_text[0] if record.adversarial_text else None
        assert (record.status, record.reason, found, record.num_queries) == (
            expected.status,
            expected.reason,
            expected.adversarial,
            expected.num_queries,
        ), (example.id, text)
        seen[record.status] += 1
    assert seen["wrong_before"] > 3
    if budget is None:
        assert seen["flipped"] > 3 or name == "input-reduction"
        assert seen["survived"] > 0 or name == "imperceptible-invisible"
