"""Slow, literal attacks on characters, invariances and length, and CLARE."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.oracles.attacks import Expected
from tests.oracles.slow import (
    BudgetError,
    Fields,
    Slow,
    cased,
    cosine,
    fill,
    is_stop,
    oracle,
    window,
)


@oracle
def clare(o: Slow) -> None:
    f = o.fields
    least = {"replace": 5e-4, "insert": f["min_insert"], "merge": 5e-3}
    words = [(word, at) for at, word in enumerate(o.words)]

    def edits(tokens: list[tuple[str, int]], kind: str, at: int) -> list[tuple[list[Any], float]]:
        left, here, right = tokens[:at], tokens[at], tokens[at + 1 :]
        if kind == "insert":
            left = [*left, here]
        elif kind == "merge":
            right = tokens[at + 2 :]
        masked = " ".join(word for word, _ in [*left, ("[MASK]", 0), *right])
        found = []
        for name, chance in fill(f["masked_lm"], masked, f["top_k"]):
            if chance <= least[kind] or (kind != "insert" and name == here[0].lower()):
                continue
            new = (name, -1) if kind == "insert" else (cased(name, here[0]), here[1])
            text = [*left, new, *right]
            near = 1.0
            if len(o.words) >= f["window"]:
                old = window(o.words, max(here[1], 0), f["window"])
                place = min(at, len(text) - 1)
                near = cosine(f["encoder"], old, window([w for w, _ in text], place, f["window"]))
            if near >= f["min_similarity"]:
                found.append((text, near))
        return found

    ranked: dict[tuple[str, int], list[tuple[list[Any], float]]] = {}
    for at, word in enumerate(o.words):
        if not is_stop(word):
            for kind in ("replace", "insert", "merge"):
                if kind != "merge" or at + 1 < len(o.words):
                    ranked[kind, at] = edits(words, kind, at)
    pairs = [pair for many in ranked.values() for pair in many]
    if not pairs:
        raise LookupError
    margins = iter(o.try_all([_join(t) for t, _ in pairs], [near for _, near in pairs], False))
    falls = {key: min(next(margins) for _ in many) for key, many in ranked.items() if many}
    current, margin, touched = words, o.clean, set()
    for kind, origin in sorted(falls, key=lambda key: falls[key]):
        last = origin + 1 if kind == "merge" else origin
        places = [place for place, (_, at) in enumerate(current) if at == origin]
        if not places or any(origin - 1 <= at <= last + 1 for at in touched):
            continue
        found = edits(current, kind, places[0])
        if not found:
            continue
        got = o.try_all([_join(text) for text, _ in found], [near for _, near in found])
        if min(got) < margin:
            margin = min(got)
            current = found[got.index(margin)][0]
            touched |= {origin, last}


def _join(tokens: list[tuple[str, int]]) -> str:
    return " ".join(word for word, _ in tokens)


def imperceptible(kind: str) -> Any:
    def choices(word: str, at: int) -> list[str]:
        if kind == "invisible":
            return [mark + word[at] for mark in "\u200b\u200c\u200d"]
        if kind == "homoglyph":
            like = dict(zip("abcdefghijklmnopqrstuvwxyz", _LIKE, strict=True))
            return [like[word[at]]] if word[at] in like else []
        if kind == "delete":
            return [chr(letter) + "\b" + word[at] for letter in range(97, 123)]
        if at + 1 < len(word) and word[at] != word[at + 1]:
            marks = "\u202d\u2066\u202e\u2066{}\u2069\u2066{}\u2069\u202c\u2069\u202c"
            return [marks.format(word[at + 1], word[at])]
        return []

    @oracle
    def attack(o: Slow) -> None:
        rng, size = o.rng, 6
        slots = [
            (place, at, choices(word, at))
            for place, word in enumerate(o.words)
            for at in range(len(word))
            if choices(word, at)
        ]
        if not slots:
            raise LookupError

        def render(genes: Sequence[float]) -> str:
            picked = {}
            for spot, choice in zip(genes[::2], genes[1::2], strict=True):
                slot = min(int(spot * (len(slots) + 1)), len(slots))
                if slot < len(slots):
                    place, at, strings = slots[slot]
                    picked[place, at] = strings[min(int(choice * len(strings)), len(strings) - 1)]
            words = []
            for place, word in enumerate(o.words):
                out, at = "", 0
                while at < len(word):
                    out += picked.get((place, at), word[at])
                    at += 2 if (place, at) in picked and kind == "reorder" else 1
                words.append(out)
            return " ".join(words)

        count = max(o.fields["population"] * size, 4)
        members = [[rng.random() for _ in range(size)] for _ in range(count)]
        margins = o.try_all([render(genes) for genes in members], raises=False)
        for _ in range(o.fields["generations"]):
            if o.exhausted:
                raise BudgetError
            leader = members[margins.index(min(margins))]
            factor = rng.uniform(0.5, 1.0)
            children = []
            for row, parent in enumerate(members):
                a, b = rng.sample([other for other in range(count) if other != row], 2)
                forced = rng.randrange(size)
                child = []
                for at in range(size):
                    value = leader[at] + factor * (members[a][at] - members[b][at])
                    if at != forced and rng.random() >= 0.7:
                        value = parent[at]
                    elif not 0 <= value <= 1:
                        value = rng.random()
                    child.append(value)
                children.append(child)
            got = o.try_all([render(genes) for genes in children], raises=False)
            for row in range(count):
                if got[row] <= margins[row]:
                    members[row], margins[row] = children[row], got[row]

    return attack


_LIKE = "ɑЬϲԁе𝚏ɡհіϳ𝒌ⅼｍոорԛⲅѕ𝚝սѵԝ×уᴢ"


@oracle
def checklist(o: Slow) -> None:
    """Literal on the words of `toy.INVARIANT`: their tables are written out here."""
    first = "James John Robert Michael William David Richard Joseph Thomas Charles Christopher"
    first += " Daniel Matthew Anthony Mark Donald Steven Paul Andrew Joshua"
    second = "Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Nancy Lisa"
    second += " Betty Margaret Sandra Ashley Kimberly Emily Donna Michelle"
    family = "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez"
    family += " Lopez Gonzalez Wilson Anderson Taylor Moore Jackson Martin Lee"
    cities = "London Paris Berlin Madrid Rome Vienna Lisbon Athens Dublin Moscow Tokyo Beijing"
    cities += " Delhi Cairo Nairobi Toronto Chicago Boston Houston Seattle"
    lands = "France Germany Spain Italy Austria Portugal Greece Ireland Russia Japan China India"
    lands += " Egypt Kenya Canada Mexico Brazil Australia Norway Sweden"
    words: list[tuple[str, int]] = [(word, at) for at, word in enumerate(o.words)]
    margin = o.clean
    for round_ in range(len(o.words)):
        texts: list[list[tuple[str, int]]] = []
        for at, (word, origin) in enumerate(words):
            if word != o.words[origin]:
                continue
            names = []
            for group in (first, second, family, cities, lands):
                if word in group.split():
                    names += [name for name in group.split() if name != word]
            if word == "7":
                names += ["6", "8"]
            if word == "30":
                names += [str(n) for n in range(24, 37) if n != 30]
            chosen = names if len(names) <= 10 else o.rng.sample(names, 10)
            if word.lower() == "isn't":
                chosen = [*chosen, "Is not" if word[0] == "I" else "is not"]
            texts += [[*words[:at], (name, origin), *words[at + 1 :]] for name in chosen]
            if at + 1 < len(words) and words[at + 1][0] == o.words[words[at + 1][1]]:
                pair = f"{word} {words[at + 1][0]}".lower()
                if pair == "is not":
                    short = "Isn't" if word[0] == "I" else "isn't"
                    texts.append([*words[:at], (short, origin), *words[at + 2 :]])
        if not texts and not round_:
            raise LookupError
        margins = o.try_all([_join(text) for text in texts])
        if not texts or min(margins) >= margin:
            return
        margin = min(margins)
        words = texts[margins.index(margin)]


def input_reduction(
    scores: Any, text: str, label: int, fields: Fields, rng: random.Random, budget: int | None
) -> Expected:
    left: list[str] = []

    @oracle
    def attack(o: Slow) -> str | None:
        words = list(o.words)
        if len(words) < 2:
            raise LookupError
        while len(words) > 1:
            best: tuple[float, list[str]] | None = None
            for at in range(len(words)):
                shorter = words[:at] + words[at + 1 :]
                try:
                    row = o.logits(" ".join(shorter))
                except BudgetError:
                    o.exhausted = True
                    break
                if not o.flips(row) and (best is None or o.margin(row) > best[0]):
                    best = o.margin(row), shorter
            if best is None:
                break
            words = best[1]
            left[:] = words
        return None

    found = attack(scores, text, label, fields, rng, budget)
    if left:
        return Expected("survived", "reduced", " ".join(left), found.num_queries)
    return found
