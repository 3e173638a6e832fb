"""Slow, literal greedy attacks on words."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Sequence
from typing import Any

import torch

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


@oracle
def pwws(o: Slow) -> str | None:
    names: dict[int, list[str]] = {}
    for at, word in enumerate(o.words):
        kind = {"NOUN": "noun", "VERB": "verb", "ADJ": "adj", "ADV": "adv"}.get(tag(o.words, at))
        found: list[str] = []
        for group in toy.SYNSETS[kind] if kind else []:
            for lemma in group if word.lower() in group else []:
                name = cased(lemma.replace("_", " "), word)
                if lemma != word.lower() and name not in found:
                    found.append(name)
        names[at] = found
    if not any(names.values()):
        raise LookupError
    saliency = [o.clean - m for m in o.ask(with_word(o.words, at, "[UNK]") for at in names)]
    best: dict[int, tuple[float, str]] = {}
    for at, found in names.items():
        margins = o.ask(with_word(o.words, at, name) for name in found)
        if found:
            row = min(range(len(found)), key=lambda row: margins[row])
            best[at] = margins[row], found[row]
    total = sum(math.exp(value - max(saliency)) for value in saliency)
    weight = {
        at: math.exp(saliency[at] - max(saliency)) / total * (o.clean - best[at][0]) for at in best
    }
    words = list(o.words)
    for at in sorted(weight, key=lambda at: -weight[at]):
        words[at] = best[at][1]
        if o.flips(o.logits(" ".join(words))):
            return " ".join(words)
    return None


@oracle
def pwws_textattack(o: Slow) -> str | None:
    def score(text: str) -> tuple[float, bool]:
        row = o.logits(text)
        return float(1 - torch.tensor(row).softmax(dim=0)[o.label]), o.flips(row)

    def names(word: str) -> list[str]:
        groups = [group for pos in toy.SYNSETS.values() for group in pos]
        found = {n for group in groups if word.lower() in group for n in group}
        return [n for n in found if n != word and "_" not in n]

    stop = toy.FUNCTION_WORDS
    positions = [at for at, word in enumerate(o.words) if word not in stop]
    if not any(names(o.words[at]) for at in positions):
        raise LookupError
    # The set's own order is that of small integers here: texts have fewer than ten words.
    positions = list(set(range(len(o.words))) & set(positions))
    unknown = [score(with_word(o.words, at, "[UNK]"))[0] for at in positions]
    saliency = torch.tensor(unknown).softmax(dim=0).numpy()
    effect = []
    for at in positions:
        texts = sorted(with_word(o.words, at, name) for name in names(o.words[at]))
        effect.append(max((score(text)[0] for text in texts), default=0.0))
    clean = float(1 - torch.tensor(o.scores([o.text])[0]).softmax(dim=0)[o.label])
    import numpy as np

    order = np.array(positions)[(-(saliency * np.array(effect))).argsort()].tolist()
    words, current = list(o.words), clean
    for at in order:
        texts = sorted(with_word(words, at, name) for name in names(words[at]))
        results, short = [], False
        for text in texts:
            try:
                results.append((*score(text), text))
            except BudgetError:
                short = True
                break
        results.sort(key=lambda result: -result[0])
        if short and not (results and results[0][0] > current and results[0][1]):
            raise BudgetError
        if not results or not results[0][0] > current:
            continue
        current, words = results[0][0], results[0][2].split(" ")
        if results[0][1]:
            return results[0][2]
    return None


def _bugs(word: str, rng: random.Random) -> list[str]:
    found = []
    if 2 <= len(word) <= 5:
        cut = rng.randrange(1, len(word))
        found.append(word[:cut] + " " + word[cut:])
    if len(word) >= 3:
        cut = rng.randrange(1, len(word) - 1)
        found.append(word[:cut] + word[cut + 1 :])
    if len(word) >= 5:
        swapped = []
        for at in range(1, len(word) - 2):
            if word[at] != word[at + 1]:
                swapped.append(word[1:at] + word[at + 1] + word[at] + word[at + 2 : -1])
        if swapped:
            found.append(word[0] + rng.choice(swapped) + word[-1])
    like = dict(zip(string.ascii_lowercase, _LOOKALIKES, strict=True))
    found += [word[:at] + like[c] + word[at + 1 :] for at, c in enumerate(word) if c in like]
    return [bug for bug in dict.fromkeys(found) if bug != word]


_LOOKALIKES = "ɑЬϲԁе𝚏ɡհіϳ𝒌ⅼｍոорԛⲅѕ𝚝սѵԝ×уᴢ"


@oracle
def textbugger(o: Slow) -> None:
    positions = [at for at, word in enumerate(o.words) if not is_stop(word)]
    if not positions:
        raise LookupError
    names = lattice(o.text, o.fields)

    def propose(tokens: Tokens, at: int) -> Proposals:
        word, origin = tokens[at]
        near = [cased(name, word) for name in names.get(origin, [])]
        texts = [put(tokens, at, bug) for bug in dict.fromkeys([*_bugs(word, o.rng), *near])]
        return filtered(
            o, tokens, at, texts, {"pos": "any", "reference": "original", "window": None}
        )

    climb(o, by_deletion(o, positions), propose)


@oracle
def pruthi(o: Slow) -> str | None:
    words, margin = list(o.words), o.clean
    for round_ in range(o.fields["max_words"]):
        texts = []
        for at, word in enumerate(words):
            if word == o.words[at] and len(word) >= 4 and not is_stop(word):
                texts += [with_word(words, at, slip) for slip in _slips(word, o.rng)]
        if not texts and not round_:
            raise LookupError
        margins = o.try_all(texts)
        best = min(range(len(texts)), key=lambda row: margins[row], default=None)
        if best is None or margins[best] >= margin:
            return None
        words, margin = texts[best].split(" "), margins[best]
    return None


def _slips(word: str, rng: random.Random) -> list[str]:
    inner = word[1:-1]
    found = [
        inner[:at] + inner[at + 1] + inner[at] + inner[at + 2 :]
        for at in range(len(inner) - 1)
        if inner[at] != inner[at + 1]
    ]
    found += [inner[:at] + inner[at + 1 :] for at in range(len(inner))]
    for at in range(len(inner) + 1):
        found.append(inner[:at] + rng.choice(string.ascii_lowercase) + inner[at:])
    for at, letter in enumerate(inner):
        found += [inner[:at] + new + inner[at + 1 :] for new in _KEYS[letter]]
    return [w for w in dict.fromkeys(word[0] + f + word[-1] for f in found) if w != word]


# Beside, above and below on the keyboard, written out.
_KEYS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj",
    "i": "uojk", "o": "ipkl", "p": "ol", "a": "sqwz", "s": "adwezx", "d": "sferxc",
    "f": "dgrtcv", "g": "fhtyvb", "h": "gjyubn", "j": "hkuinm", "k": "jliom", "l": "kop",
    "z": "xas", "x": "zcsd", "c": "xvdf", "v": "cbfg", "b": "vngh", "n": "bmhj", "m": "njk",
}  # fmt: skip
