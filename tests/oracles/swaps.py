"""Slow, literal greedy attacks on words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tests.oracles import toy
from tests.oracles.slow import (
    BudgetError,
    Slow,
    Tokens,
    cased,
    cosine,
    fill,
    is_stop,
    lattice,
    oracle,
    same_kind,
    tag,
    window,
    with_word,
)

Proposals = list[tuple[Tokens, float]]


def text_of(tokens: Tokens) -> str:
    return " ".join(word for word, _ in tokens)


def climb(
    o: Slow,
    order: Sequence[int],
    propose: Callable[[Tokens, int], Proposals],
    accept: str = "current",
    limit: float = math.inf,
) -> None:
    current: Tokens = [(word, at) for at, word in enumerate(o.words)]
    margin = o.clean
    for origin in order:
        edited = sum(at < 0 or word != o.words[at] for word, at in current)
        if edited + sum(at not in [a for _, a in current] for at in range(len(o.words))) >= limit:
            return
        places = [place for place, (_, at) in enumerate(current) if at == origin]
        found = propose(current, places[0]) if places else []
        if not found:
            continue
        margins = o.try_all([text_of(tokens) for tokens, _ in found], [near for _, near in found])
        best = min(range(len(found)), key=lambda row: margins[row])
        if margins[best] < (margin if accept == "current" else o.clean):
            current, margin = found[best][0], margins[best]


def by_deletion(o: Slow, positions: Sequence[int]) -> list[int]:
    margins = o.ask(" ".join(o.words[:at] + o.words[at + 1 :]) for at in positions)
    return [positions[row] for row in sorted(range(len(positions)), key=lambda row: margins[row])]


def by_unknown(o: Slow, positions: Sequence[int]) -> list[int]:
    margins = o.ask(with_word(o.words, at, "[UNK]") for at in positions)
    return [positions[row] for row in sorted(range(len(positions)), key=lambda row: margins[row])]


def keeps_tag(o: Slow, tokens: Tokens, at: int, word: str, rule: str, context: str) -> bool:
    if rule == "any":
        return True
    origin, words = tokens[at][1], o.words
    if context == "window":
        before, after = words[max(origin - 4, 0) : origin], words[origin + 1 : origin + 4]
        old = tag([*before, words[origin], *after], len(before))
        new = tag([*before, word, *after], len(before))
    else:
        new_words = [w if i != at else word for i, (w, _) in enumerate(tokens)]
        start = 0 if len(new_words) <= 10 else max(at - 4, 0)
        old, new = tag(words, origin), tag(new_words[start : at + 5], at - start)
    return same_kind(old, new, rule)


def similarity(
    o: Slow, old: Tokens, new: Tokens, at: int, reference: str, size: int | None
) -> float:
    words, place = [word for word, _ in old], at
    if reference == "original":
        words, place = o.words, max(old[at][1], 0)
    if size is not None and len(words) < size:
        return 1.0
    changed = [word for word, _ in new]
    first = window(words, place, size)
    return cosine(o.fields["encoder"], first, window(changed, min(at, len(new) - 1), size))


def filtered(
    o: Slow, old: Tokens, at: int, texts: Sequence[Tokens], settings: dict[str, Any]
) -> Proposals:
    kept = []
    for new in texts:
        if keeps_tag(o, old, at, new[at][0], settings["pos"], settings.get("context", "window")):
            near = similarity(o, old, new, at, settings["reference"], settings["window"])
            if near >= o.fields["min_similarity"]:
                kept.append((new, near))
    return kept


def put(tokens: Tokens, at: int, word: str) -> Tokens:
    return [*tokens[:at], (word, tokens[at][1]), *tokens[at + 1 :]]


def substituting(accept: str = "current", order: Any = by_deletion, **settings: Any) -> Any:
    def attack(o: Slow) -> None:
        names = lattice(o.text, o.fields)
        if not names:
            raise LookupError
        size = o.fields["window"] if "window" in o.fields else settings.get("window", 15)

        def propose(tokens: Tokens, at: int) -> Proposals:
            texts = [put(tokens, at, name) for name in names[tokens[at][1]]]
            return filtered(o, tokens, at, texts, {**settings, "window": size})

        limit = settings["limit"](len(o.words)) if "limit" in settings else math.inf
        climb(o, order(o, sorted(names)), propose, accept, limit)

    return oracle(attack)


def by_slope(o: Slow, positions: Sequence[int]) -> list[int]:
    o.logits(o.text)
    return sorted(positions, key=lambda at: (-toy.steepness(o.words[at]), at))


textfooler = substituting(pos="noun-verb", reference="previous")
textfooler_author = substituting(
    accept="clean", order=by_unknown, pos="noun-verb", reference="previous", context="text"
)
textfooler_strict = substituting(pos="exact", reference="original", window=None)
a2t = substituting(
    order=by_slope,
    pos="exact",
    reference="original",
    window=None,
    limit=lambda n: max(math.ceil(n / 10), 4),
)


@oracle
def bae_r(o: Slow) -> None:
    positions = [at for at, word in enumerate(o.words) if not is_stop(word)]
    if not positions:
        raise LookupError

    def propose(tokens: Tokens, at: int) -> Proposals:
        words = [word for word, _ in tokens]
        names = fill(o.fields["masked_lm"], with_word(words, at, "[MASK]"), o.fields["top_k"])
        texts = [
            put(tokens, at, cased(name, words[at]))
            for name, _ in names
            if name != words[at].lower()
        ]
        settings = {"pos": "noun-verb", "reference": "original", "window": o.fields["window"]}
        return filtered(o, tokens, at, texts, settings)

    climb(o, by_deletion(o, positions), propose)


@oracle
def bae_i(o: Slow) -> None:
    positions = [at for at, word in enumerate(o.words) if not is_stop(word)]
    if not positions:
        raise LookupError

    def propose(tokens: Tokens, at: int) -> Proposals:
        texts = []
        for place in (at, at + 1):
            words = [word for word, _ in tokens]
            masked = " ".join([*words[:place], "[MASK]", *words[place:]])
            for name, _ in fill(o.fields["masked_lm"], masked, o.fields["top_k"]):
                texts.append([*tokens[:place], (name, -1), *tokens[place:]])
        settings = {"pos": "any", "reference": "original", "window": o.fields["window"]}
        return filtered(o, tokens, at, texts, settings)

    climb(o, by_deletion(o, positions), propose)


@oracle
def bert_attack(o: Slow) -> str | None:
    names = {}
    table = dict(zip(*_vectors(o.fields["vectors"]), strict=True))
    for at, found in lattice(o.text, o.fields).items():
        kept = []
        for name in found:
            near = _cosine(table, o.words[at].lower(), name.lower())
            if not is_stop(name) and (near is None or near >= o.fields["antonym_cosine"]):
                kept.append(name)
        if kept:
            names[at] = kept
    if not names:
        raise LookupError
    current, margin = list(o.words), o.clean
    for at in by_unknown(o, sorted(names)):
        changed = sum(a != b for a, b in zip(current, o.words, strict=True))
        if changed >= math.ceil(0.4 * len(o.words)):
            return None
        base = list(current)
        step = o.fields["chunk"]
        for start in range(0, len(names[at]), step):
            texts = [with_word(base, at, name) for name in names[at][start : start + step]]
            rows = []
            for text in texts:
                try:
                    rows.append(o.logits(text))
                except BudgetError:
                    if any(map(o.flips, rows)):
                        break
                    raise
            for text, row in zip(texts, rows, strict=False):
                if o.flips(row):
                    return text
            for text, row in zip(texts, rows, strict=True):
                if o.margin(row) < margin:
                    current, margin = text.split(" "), o.margin(row)
    return None


def _vectors(path: str) -> tuple[list[str], Any]:
    import numpy as np

    file = __import__("pathlib").Path(path)
    names = file.with_name("words.txt").read_text(encoding="utf-8").split()
    return names, np.load(file).astype(np.float64)


def _cosine(table: dict[str, Any], first: str, second: str) -> float | None:
    if first not in table or second not in table:
        return None
    a, b = table[first], table[second]
    return float(a @ b / (a @ a) ** 0.5 / (b @ b) ** 0.5)
