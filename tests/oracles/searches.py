"""Slow, literal searches in the lattice: beams and slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.oracles import toy
from tests.oracles.slow import (
    FINE_GRID,
    BudgetError,
    FoundError,
    Slow,
    lattice,
    oracle,
    with_word,
)

Names = dict[int, list[str]]


def changed(o: Slow, words: Sequence[str]) -> list[int]:
    return [at for at, (a, b) in enumerate(zip(words, o.words, strict=True)) if a != b]


def names_of(o: Slow) -> Names:
    names = lattice(o.text, o.fields)
    if not names:
        raise LookupError
    return names


def successors(o: Slow, words: list[str], names: Names, limit: int) -> list[list[str]]:
    done = changed(o, words)
    if len(done) >= limit:
        return []
    return [
        with_word(words, at, name).split(" ")
        for at in names
        if at not in done
        for name in names[at]
    ]


@oracle
def synonym_beam(o: Slow) -> None:
    names = names_of(o)
    limit = math.ceil(0.4 * len(o.words))
    beam = [o.words]
    while beam:
        texts: list[str] = []
        for words in beam:
            for new in successors(o, words, names, limit):
                if " ".join(new) not in texts:
                    texts.append(" ".join(new))
        margins = o.try_all(texts)
        order = sorted(range(len(texts)), key=lambda row: margins[row])
        beam = [texts[row].split(" ") for row in order[: o.fields["beam"]]]


@oracle
def synonym_best_first(o: Slow) -> None:
    names = names_of(o)
    limit = math.ceil(0.4 * len(o.words))
    queue, seen = [(o.clean, o.text)], {o.text}
    for _ in range(o.fields["max_texts"]):
        if not queue:
            return
        lowest = min(range(len(queue)), key=lambda row: queue[row][0])
        _, text = queue.pop(lowest)
        new = [" ".join(w) for w in successors(o, text.split(" "), names, limit)]
        texts = [text for text in new if text not in seen]
        queue += zip(o.try_all(texts), texts, strict=True)
        seen |= set(texts)


def fall(o: Slow, words: Sequence[str], at: int, name: str) -> float:
    """Return what the toy victim's made-up slope promises for a substitution."""
    row = o.scores([" ".join(words)])[0]
    others = [value if label != o.label else -math.inf for label, value in enumerate(row)]
    rival = others.index(max(others))
    old, new = toy.word_vector(words[at]), toy.word_vector(name)
    change = (new[o.label] - old[o.label]) - (new[rival] - old[rival])
    return round(-change * toy.steepness(words[at]) / o.spread / FINE_GRID) * FINE_GRID


@oracle
def token_gradient(o: Slow) -> None:
    names, rng, f = names_of(o), o.rng, o.fields
    limit = math.ceil(0.4 * len(o.words))
    for restart in range(f["num_restarts"]):
        words, margin = list(o.words), o.clean
        if restart:
            for at in rng.sample(sorted(names), rng.randint(1, min(limit, len(names)))):
                words[at] = rng.choice(names[at])
        for step in range(f["num_steps"]):
            row = o.logits(" ".join(words))
            if restart and not step:
                margin = o.margin(row)
                if o.flips(row):
                    raise FoundError(" ".join(words))
            done = changed(o, words)
            ranked = []
            for at in names:
                if at in done or len(done) < limit:
                    options = [n for n in [o.words[at], *names[at]] if n != words[at]]
                    ranked += [(-fall(o, words, at, n), at, r, n) for r, n in enumerate(options)]
            best = sorted(ranked)[: f["top_k"]]
            texts = [with_word(words, at, name) for _, at, _, name in best]
            margins = o.try_all(texts)
            if not margins or min(margins) >= margin:
                break
            margin = min(margins)
            words = texts[margins.index(margin)].split(" ")


@oracle
def textgrad(o: Slow) -> None:
    names, rng, f = names_of(o), o.rng, o.fields
    limit = max(1, math.floor(0.25 * len(o.words)))

    def sample(z: list[float], u: list[list[float]]) -> list[str]:
        words, count = list(o.words), 0
        for chance, weight, at in zip(z, u, names, strict=True):
            hit = rng.random() < chance
            (name,) = rng.choices(names[at], weight)
            if hit and count < limit:
                words[at], count = name, count + 1
        return words

    for _ in range(f["num_restarts"]):
        z = box([rng.random() for _ in names], limit)
        u = [simplex([rng.random() for _ in names[at]]) for at in names]
        for step in range(1, f["num_steps"] + 1):
            texts = [sample(z, u) for _ in range(f["num_samples"])]
            o.try_all([" ".join(words) for words in texts], raises=False)
            if o.exhausted:
                raise BudgetError
            mean = {
                at: [
                    sum(fall(o, words, at, name) for words in texts) / len(texts)
                    for name in [o.words[at], *names[at]]
                ]
                for at in names
            }
            size = f.get("step_size", 0.8) / math.sqrt(step)
            pull = [
                sum(a * b for a, b in zip(weight, mean[at][1:], strict=True)) - mean[at][0]
                for weight, at in zip(u, names, strict=True)
            ]
            moved = []
            for weight, chance, at in zip(u, z, names, strict=True):
                slope = unit([chance * value for value in mean[at][1:]])
                moved.append(simplex([a + size * b for a, b in zip(weight, slope, strict=True)]))
            z = box([a + size * b for a, b in zip(z, unit(pull), strict=True)], limit)
            u = moved
        o.try_all([" ".join(sample(z, u)) for _ in range(f["num_samples"])])


def unit(values: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values] if length else values


def simplex(values: list[float]) -> list[float]:
    """Find the shift by trying how many entries stay positive."""
    ordered = sorted(values, reverse=True)
    for count in range(len(values), 0, -1):
        shift = (sum(ordered[:count]) - 1) / count
        if ordered[count - 1] > shift:
            break
    return [max(value - shift, 0.0) for value in values]


def box(values: list[float], budget: int) -> list[float]:
    def clip(shift: float) -> list[float]:
        return [min(max(value - shift, 0.0), 1.0) for value in values]

    low, high = 0.0, max(values)
    if sum(clip(0.0)) <= budget:
        return clip(0.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(clip(middle)) > budget else (low, middle)
    return clip(high)
