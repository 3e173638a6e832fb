"""Slow, literal attacks that breed or move many texts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from tests.oracles.attacks import Expected
from tests.oracles.searches import changed, names_of
from tests.oracles.slow import (
    BudgetError,
    Fields,
    FoundError,
    Slow,
    cased,
    cosine,
    lattice,
    oracle,
    with_word,
)


def genetic(kind: str) -> Any:
    @oracle
    def attack(o: Slow) -> None:
        names, rng, size = names_of(o), o.rng, o.fields["population"]
        limit = math.ceil(o.fields["max_rate"] * len(o.words))

        def choose(words: list[str]) -> int:
            done = changed(o, words)
            if kind == "iga":
                places = list(names) if len(done) < limit else done
            else:
                fresh = [at for at in names if at not in done]
                places = fresh if fresh and len(done) < limit else done
            return rng.choices(places, [len(names[at]) for at in places])[0]

        def options(words: list[str], at: int) -> list[str]:
            found = names[at]
            if kind == "alzantot" and words[at] != o.words[at]:
                alone = lattice(words[at], o.fields).get(0, [])
                found = [cased(name, o.words[at]) for name in alone]
            texts = [with_word(words, at, name) for name in found if name != words[at]]
            return texts or [" ".join(words)]

        def improve(changes: list[tuple[list[str], int]]) -> list[tuple[float, list[str]]]:
            many = [options(words, at) for words, at in changes]
            margins = iter(o.try_all([text for texts in many for text in texts], raises=False))
            members = []
            for texts in many:
                ranked = [(next(margins), row) for row in range(len(texts))]
                margin, row = min(ranked)
                members.append((margin, texts[row].split(" ")))
            return members

        if kind == "iga":
            members = improve([(o.words, at) for at in names])
            members = sorted(members, key=lambda member: member[0])[:size]
        else:
            members = improve([(o.words, choose(o.words)) for _ in range(size)])
        for _ in range(o.fields["generations"]):
            if o.exhausted:
                raise BudgetError
            elite = min(members, key=lambda member: member[0])
            weights = [math.exp(-margin / 0.3) for margin, _ in members]
            children = []
            for _ in range(size - 1):
                mother, father = rng.choices([words for _, words in members], weights, k=2)
                child = list(mother)
                places = sorted(names)
                if kind == "iga":
                    mine = places[rng.randrange(len(places)) :]
                else:
                    mine = [at for at in places if rng.random() < 0.5]
                for at in mine:
                    child[at] = father[at]
                done = changed(o, child)
                for at in rng.sample(done, max(len(done) - limit, 0)):
                    child[at] = o.words[at]
                children.append((child, choose(child)))
            members = [elite, *improve(children)]

    return attack


@oracle
def pso(o: Slow) -> None:
    names, rng = names_of(o), o.rng
    places, limit = sorted(names), math.ceil(0.4 * len(o.words))
    count, rounds = o.fields["particles"], o.fields["iterations"]

    def mutants(
        members: list[tuple[list[str], float]],
    ) -> list[tuple[list[str], float]]:
        options: dict[str, list[tuple[int, str]]] = {}
        for words, _ in members:
            done = changed(o, words)
            options[" ".join(words)] = [
                (at, with_word(words, at, name))
                for at in names
                if at not in done and len(done) < limit
                for name in names[at]
            ]
        margins = iter(o.try_all([t for many in options.values() for _, t in many], raises=False))
        best: dict[str, dict[int, tuple[float, str]]] = {}
        for key, many in options.items():
            best[key] = {}
            for at, text in many:
                margin = next(margins)
                if at not in best[key] or margin < best[key][at][0]:
                    best[key][at] = margin, text
        found = []
        for words, margin in members:
            choices = list(best[" ".join(words)].values())
            if choices:
                lowest = min(m for m, _ in choices)
                weights = [math.exp(lowest - m) if math.isfinite(m) else 0.0 for m, _ in choices]
                m, text = rng.choices(choices, weights if any(weights) else None)[0]
                found.append((text.split(" "), m))
            else:
                found.append((words, margin))
        return found

    swarm = [
        {"x": w, "m": m, "v": {at: rng.uniform(-3.0, 3.0) for at in places}, "b": w, "bm": m}
        for w, m in mutants([(o.words, o.clean)] * count)
    ]
    top = min(swarm, key=lambda one: one["m"])
    lead, lead_margin = top["x"], top["m"]
    for round_ in range(1, rounds + 1):
        if o.exhausted:
            raise BudgetError
        inertia = 0.8 - round_ / rounds * (0.8 - 0.2)
        shared = 0.2 + round_ / rounds * (0.8 - 0.2)
        for one in swarm:
            for at in places:
                pull = -3.0 if one["x"][at] == one["b"][at] else 3.0
                pull += -3.0 if one["x"][at] == lead[at] else 3.0
                speed = inertia * one["v"][at] + (1 - inertia) * pull
                one["v"][at] = min(max(speed, -3.0), 3.0)
            for target, chance in ((one["b"], inertia), (lead, shared)):
                if rng.random() < chance:
                    new = list(one["x"])
                    for at in places:
                        if rng.random() < 1 / (1 + math.exp(-one["v"][at])):
                            new[at] = target[at]
                    one["x"] = new
        rows = []
        for one in swarm:
            try:
                rows.append(o.logits(" ".join(one["x"])))
            except BudgetError:
                o.exhausted = True
                break
        for one, row in zip(swarm, rows, strict=False):
            one["m"] = o.margin(row)
            if o.flips(row) and len(changed(o, one["x"])) <= limit:
                raise FoundError(" ".join(one["x"]))
        if o.exhausted:
            raise BudgetError
        chosen = [
            one for one in swarm if rng.random() < 1 - 2 * len(changed(o, one["x"])) / len(o.words)
        ]
        for one, (words, margin) in zip(
            chosen, mutants([(one["x"], one["m"]) for one in chosen]), strict=True
        ):
            one["x"], one["m"] = words, margin
        for one in swarm:
            if len(changed(o, one["x"])) <= limit:
                if one["m"] < one["bm"]:
                    one["b"], one["bm"] = one["x"], one["m"]
                if one["m"] < lead_margin:
                    lead, lead_margin = one["x"], one["m"]


def hard_label(
    scores: Any, text: str, label: int, fields: Fields, rng: random.Random, budget: int | None
) -> Expected:
    kept: list[str] = []

    @oracle
    def attack(o: Slow) -> str | None:
        names, f = names_of(o), o.fields

        def flips(texts: Sequence[str]) -> list[bool]:
            """Answer as many as are paid for; the rest count as no flips."""
            found = []
            for text in texts:
                try:
                    found.append(o.flips(o.logits(text)))
                except BudgetError:
                    if not found and texts:
                        raise
                    found.append(False)
            return found

        def near(text: str) -> float:
            return cosine(f["encoder"], o.text, text)

        left = f["num_tries"]
        while left > 0 and not kept:
            texts = []
            for _ in range(min(f["chunk"], left)):
                words = list(o.words)
                for at in rng.sample(sorted(names), rng.randint(1, len(names))):
                    words[at] = rng.choice(names[at])
                texts.append(" ".join(words))
            left -= len(texts)
            kept.extend([t for t, flip in zip(texts, flips(texts), strict=True) if flip][:1])
        if not kept:
            return None
        start = kept[0].split(" ")
        done = changed(o, start)
        singles = [with_word(start, at, o.words[at]) for at in done]
        good = zip(done, singles, flips(singles), strict=True)
        ranked = sorted((-near(text), at) for at, text, flip in good if flip)
        for _, at in ranked:
            text = with_word(kept[-1].split(" "), at, o.words[at])
            if flips([text])[0]:
                kept.append(text)
        members = [(near(kept[-1]), kept[-1])]
        best, stale = members[0][0], 0
        for _ in range(f["generations"]):
            if stale >= f["patience"] or len(changed(o, kept[-1].split(" "))) <= 1:
                break
            children = []
            for _ in range(f["population"]):
                mother, father = rng.choices([text.split(" ") for _, text in members], k=2)
                child = list(mother)
                for at in [at for at in sorted(names) if rng.random() < 0.5]:
                    child[at] = father[at]
                edits = changed(o, child)
                if edits:
                    at = rng.choice(edits)
                    child[at] = rng.choice([o.words[at], *names[at]])
                children.append(" ".join(child))
            kept_now = [c for c, flip in zip(children, flips(children), strict=True) if flip]
            pool: dict[str, float] = {}
            for value, text in reversed([*members, *((near(c), c) for c in kept_now)]):
                pool[text] = value
            members = sorted(((v, t) for t, v in pool.items()), key=lambda pair: -pair[0])
            members = members[: f["population"]]
            stale = 0 if members[0][0] > best else stale + 1
            best = members[0][0]
            kept.append(members[0][1])
        return kept[-1]

    found = attack(scores, text, label, fields, rng, budget)
    if found.reason == "budget" and kept:
        return Expected("flipped", "", kept[-1], found.num_queries)
    return found
