"""Slow, literal searches: beams, populations, slopes, and attacks that are neither."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from tests.oracles import toy
from tests.oracles.attacks import Expected
from tests.oracles.slow import (
    GRID,
    BudgetError,
    Fields,
    FoundError,
    Slow,
    cased,
    cosine,
    fill,
    is_stop,
    lattice,
    oracle,
    window,
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


def fall(o: Slow, words: Sequence[str], at: int, name: str) -> float:
    """Return what the toy victim's made-up slope promises for a substitution."""
    row = o.scores([" ".join(words)])[0]
    others = [value if label != o.label else -math.inf for label, value in enumerate(row)]
    rival = others.index(max(others))
    old, new = toy.word_vector(words[at]), toy.word_vector(name)
    change = (new[o.label] - old[o.label]) - (new[rival] - old[rival])
    return round(-change * toy.steepness(words[at]) / o.spread / GRID) * GRID


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
