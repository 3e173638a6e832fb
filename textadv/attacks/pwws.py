"""PWWS: synonyms in the order of saliency times effect, and TextAttack's form of it."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textadv.attacks.base import Checked, Example, NoCandidatesError, Search
from textadv.attacks.candidates import match_case, prepare_resources
from textadv.attacks.constraints import attackable
from textadv.attacks.tagger import load_tagger
from textadv.attacks.wordnet import load_wordnet
from textadv.resources import find
from textadv.words import Words

__all__ = ["PWWS", "PWWSTextAttack"]

_WORDNET_TAG = {"NOUN": "n", "VERB": "v", "ADJ": "a", "ADV": "r"}

_EDGES = "'-_*@"
# Characters that look like ASCII ones, which TextAttack counts as parts of words.
_LOOKALIKES = "˗৭Ȣ𝟕бƼᏎƷᒿlO`ɑЬϲԁе𝚏ɡհіϳ𝒌ⅼｍոорԛⲅѕ𝚝սѵԝ×уᴢ"
_WORDLIKE = re.compile(rf"[\w{_LOOKALIKES}'\-_*@]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PWWS(Checked):
    """Replace words by WordNet synonyms of their part of speech, ordered by saliency times effect.

    The best synonym of each word and its effect are found on the unchanged text; the words are then
    replaced in the order of softmax(saliency) times effect until the prediction changes. Nothing is
    chosen again, and edits without gain are made too.

    Source: Ren et al., Generating Natural Language Adversarial Examples through Probability
    Weighted Word Saliency, ACL 2019.

    Deviations: no exchange of named entities, which needs lists made from the data set; saliency
    and effect are falls of the margin, not of a probability; the text after each edit is asked
    about in one request per edit.

    Cost: 1 + n + all synonyms of all words + one for each edit.

    Known failure: rare senses of WordNet.

    Args:
        wordnet: Folder or zip with WordNet, or an nltk data folder.
        tagger: The nltk tagger's folder or zip, or an nltk data folder.
        unknown: What stands for a word the model does not know.
        skip_stopwords: Leave function words alone.
    """

    wordnet: str | None = None
    tagger: str | None = None
    unknown: str = "[UNK]"
    skip_stopwords: bool = False

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return {"wordnet": self.wordnet, "tagger": self.tagger}

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def synonyms(self, words: Words, index: int) -> list[str]:
        """Return the synonyms of one word that share its part of speech, of up to two words."""
        tag = _WORDNET_TAG.get(load_tagger(self.tagger).tags(words.words)[index])
        if tag is None:
            return []
        net, word = load_wordnet(self.wordnet), words.words[index]
        forms = {"be", word.lower(), *net.base_forms(word, tag)}
        names = (name.replace("_", " ") for name in net.lemmas(word, tag))
        fitting = [n for n in names if n.lower() not in forms and len(n.split()) <= 2]
        return list(dict.fromkeys(match_case(name, word) for name in fitting))

    def search(self, example: Example, rng: random.Random) -> Search:
        """Find every word's best synonym, then put them in by weight until one flips."""
        words = example.words
        positions = attackable(words, skip_stopwords=self.skip_stopwords)
        synonyms = {index: self.synonyms(words, index) for index in positions}
        if not any(synonyms.values()):
            raise NoCandidatesError
        masked = example.margins((yield [words.replace(at, self.unknown) for at in positions]))
        edits = [(at, name) for at in positions for name in synonyms[at]]
        margins = example.margins((yield [words.replace(at, name) for at, name in edits]))
        chosen: dict[int, tuple[float, str]] = {}
        for (at, name), margin in zip(edits, margins, strict=True):
            if at not in chosen or margin < chosen[at][0]:
                chosen[at] = margin, name
        clean = example.clean_margin
        weights = _softmax([clean - margin for margin in masked])
        effects = {
            at: weight * (clean - chosen[at][0])
            for at, weight in zip(positions, weights, strict=True)
            if at in chosen
        }
        current = words
        for at in sorted(effects, key=lambda at: -effects[at]):
            current = current.replace(at, chosen[at][1])
            if example.flips((yield [current]))[0]:
                return current
        return None


def _softmax(values: Sequence[float]) -> list[float]:
    """Return the softmax; an infinite saliency, of an unanswered row, counts as none."""
    finite = [value if math.isfinite(value) else -math.inf for value in values]
    top = max(finite)
    powers = [math.exp(value - top) if math.isfinite(top) else 0.0 for value in finite]
    return [power / (sum(powers) or 1.0) for power in powers]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PWWSTextAttack(Checked):
    """Replace words by WordNet synonyms exactly as TextAttack 0.3.11's recipe `pwws` does.

    For comparison, not for use: probabilities instead of margins (so that scaling the logits
    changes its outcome), no part of speech, every synonym asked about twice, TextAttack's own word
    boundaries, nltk's function words in lower case only, and only the candidate of the largest
    score checked for a flip.

    Source: TextAttack 0.3.11, recipe `pwws`, after Ren et al., ACL 2019.

    Deviations: a text without any candidate is `unresolved`, not survived; texts with Chinese
    characters are not segmented. Ties that float32 rounding makes in TextAttack,
    which pads its batches otherwise, can fall differently.

    Cost: 1 + n + twice all synonyms of all words that are no function words.

    Args:
        wordnet: Folder or zip with WordNet, or an nltk data folder.
        stopwords: Folder or zip with nltk's stopwords, or an nltk data folder.
    """

    wordnet: str | None = None
    stopwords: str | None = None

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return {"wordnet": self.wordnet, "stopwords": self.stopwords}

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())
        _stopwords(self.stopwords)

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank by softmax(saliency) times the best score, then substitute greedily."""
        words = _resplit(example.words)
        stop = _stopwords(self.stopwords)
        # Sets, because the order in which Python walks through them decides ties there.
        free = {at for at, word in enumerate(words.words) if word not in stop}
        open_ = set(range(len(words))) & set(range(len(words))) & free
        positions = [at for at in open_ if words.editable[at]]
        if not any(self._candidates(words, at) for at in positions):
            raise NoCandidatesError
        masked = _scores(example, (yield [words.replace(at, "[UNK]") for at in positions]))
        saliency = torch.softmax(torch.tensor(masked.tolist()), dim=0).numpy()
        requests = [self._candidates(words, at) for at in positions]
        found = _scores(example, (yield [text for texts in requests for text in texts]))
        effects, start = [], 0
        for texts in requests:
            effects.append(float(found[start : start + len(texts)].max()) if texts else 0.0)
            start += len(texts)
        order = np.array(positions)[(-(saliency * np.array(effects))).argsort()]
        current, score = words, float(_scores(example, example.clean[None])[0])  # type: ignore[index]
        for at in order.tolist():
            texts = self._candidates(current, at)
            if not texts:
                continue
            reply = yield texts
            scores = _scores(example, reply)
            winner = max(range(len(texts)), key=lambda row: (float(scores[row]), -row))
            if not scores[winner] > score:
                continue
            current, score = texts[winner], float(scores[winner])
            if example.flips(reply)[winner]:
                return current
        return None

    def _candidates(self, words: Words, index: int) -> list[Words]:
        word = words.words[index]
        names = load_wordnet(self.wordnet).lemmas(word)
        fitting = {n for n in names if n != word and "_" not in n and len(_spans(n)) == 1}
        return sorted(
            (words.replace(index, name) for name in fitting), key=lambda w: "\n".join(w.texts)
        )


def _scores(example: Example, logits: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return 1 minus the gold probability, in float32; 0 for rows that were not answered."""
    result: np.ndarray[Any, np.dtype[np.float32]] = (
        (1 - logits.softmax(dim=1)[:, example.label]).nan_to_num(0).numpy()
    )
    return result


def _spans(text: str) -> list[tuple[int, int]]:
    """Return TextAttack's words of a text."""
    found = []
    for chunk in re.finditer(r"\S+", text):
        left = chunk.start() + len(chunk[0]) - len(chunk[0].lstrip(_EDGES))
        for match in _WORDLIKE.finditer(chunk[0].strip(_EDGES)):
            word = match[0].strip(_EDGES)
            start = left + match.start() + len(match[0]) - len(match[0].lstrip(_EDGES))
            if word:
                found.append((start, start + len(word)))
    return found


def _resplit(words: Words) -> Words:
    """Return the same texts in TextAttack's words; what may not be edited stays so."""
    fresh = Words.of(words.texts, split=_spans)
    fixed = [span for span, free in zip(words.spans, words.editable, strict=True) if not free]
    closed = [
        at
        for at, (column, start, end) in enumerate(fresh.spans)
        if any(c == column and start < e and end > s for c, s, e in fixed)
    ]
    return fresh.protect(closed)


@functools.cache
def _stopwords(path: str | None) -> frozenset[str]:
    """Return nltk's English function words."""
    place = find("stopwords", path)
    if place.is_dir():
        return frozenset((place / "english").read_text(encoding="utf-8").split())
    with zipfile.ZipFile(place) as archive:
        return frozenset(archive.read("stopwords/english").decode().split())
