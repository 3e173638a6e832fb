"""Slow, literal PWWS and what TextAttack makes of it."""

from __future__ import annotations

import math

import numpy as np
import torch

from tests.oracles import toy
from tests.oracles.slow import BudgetError, Slow, cased, oracle, tag, with_word


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
