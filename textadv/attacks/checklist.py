"""Edits that should change no prediction: contractions, names, numbers and places."""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from textadv.attacks.base import Checked, Example, NoCandidatesError, Search
from textadv.attacks.candidates import match_case
from textadv.attacks.search import best
from textadv.words import Words

__all__ = ["CheckListInvariance"]

_PAIRS = """
isn't=is not, aren't=are not, wasn't=was not, weren't=were not, don't=do not, doesn't=does not,
didn't=did not, haven't=have not, hasn't=has not, hadn't=had not, can't=can not,
couldn't=could not, won't=will not, wouldn't=would not, shouldn't=should not, mustn't=must not,
it's=it is, that's=that is, there's=there is, what's=what is, who's=who is, where's=where is,
he's=he is, she's=she is, i'm=i am, you're=you are, we're=we are, they're=they are, i've=i have,
you've=you have, we've=we have, they've=they have, i'll=i will, you'll=you will, he'll=he will,
she'll=she will, we'll=we will, they'll=they will, i'd=i would, you'd=you would
"""
_CONTRACTIONS = {
    pair: short
    for short, pair in (entry.split("=") for entry in " ".join(_PAIRS.split()).split(", "))
}
_EXPANSIONS = {short: pair for pair, short in _CONTRACTIONS.items()}
_GROUPS = {
    "names": (
        "James John Robert Michael William David Richard Joseph Thomas Charles Christopher Daniel "
        "Matthew Anthony Mark Donald Steven Paul Andrew Joshua",
        "Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Nancy Lisa Betty "
        "Margaret Sandra Ashley Kimberly Emily Donna Michelle",
        "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez "
        "Gonzalez Wilson Anderson Taylor Moore Jackson Martin Lee",
    ),
    "locations": (
        "London Paris Berlin Madrid Rome Vienna Lisbon Athens Dublin Moscow Tokyo Beijing Delhi "
        "Cairo Nairobi Toronto Chicago Boston Houston Seattle",
        "France Germany Spain Italy Austria Portugal Greece Ireland Russia Japan China India Egypt "
        "Kenya Canada Mexico Brazil Australia Norway Sweden",
    ),
}
_OTHERS = {
    kind: {
        name: [n for n in group.split() if n != name] for group in groups for name in group.split()
    }
    for kind, groups in _GROUPS.items()
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckListInvariance(Checked):
    """Change what should not matter: contractions, names, numbers and places.

    A text with a changed prediction is a failed invariance test, so its rate says more than the
    search does. Each round asks about all edits left and makes the best one.

    Source: Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models with CheckList, ACL
    2020, arXiv 2005.04118; greedy search as in TextAttack's recipe.

    Deviations: names and places are recognised by short lists of the most common ones, not by a
    tagger; numbers are integers in digits, changed by up to a fifth and never 2 or 4.

    Cost: for each round `choices` for each name, number and place, and 1 for each contraction.

    Known failure: a number, name or place can matter, in arithmetic or about a certain person.

    Args:
        contractions: Contract and expand, as in "is not" and "isn't".
        names: Exchange first names of the same kind, and family names.
        numbers: Change integers.
        locations: Exchange cities, and countries.
        choices: Most substitutes of one word, drawn at random.
    """

    contractions: bool = True
    names: bool = True
    numbers: bool = True
    locations: bool = True
    choices: int = 10

    def prepare(self) -> None:
        """Need nothing."""

    def search(self, example: Example, rng: random.Random) -> Search:
        """Make the best invariant edit of all, until some text flips or none helps."""
        current, margin = example.words, example.clean_margin
        for round_ in range(len(current) or 1):
            texts = self.edits(current, rng)
            if not texts and not round_:
                raise NoCandidatesError
            found = best(example, (yield texts))
            if found is None or not (found[2] or found[1] < margin):
                return None
            if found[2]:
                return texts[found[0]]
            current, margin = texts[found[0]], found[1]
        return None

    def edits(self, words: Words, rng: random.Random) -> list[Words]:
        """Return all invariant edits of words that are not modified yet."""
        modified = set(words.modified_positions)
        found = []
        for at in words.editable_positions:
            if at in modified:
                continue
            found += [words.replace(at, name) for name in self._substitutes(words.words[at], rng)]
            if self.contractions:
                found += _contracted(words, at, modified)
        return found

    def _substitutes(self, word: str, rng: random.Random) -> list[str]:
        names: list[str] = []
        kinds: tuple[Literal["names", "locations"], ...] = ("names", "locations")
        for kind in kinds:
            if getattr(self, kind):
                names += _OTHERS[kind].get(word, [])
        if self.numbers and word.isascii() and word.isdigit() and word not in ("2", "4"):
            value = int(word)
            span = max(value // 5, 1)
            around = range(max(value - span, 0), value + span + 1)
            if len(word) > 6:
                around = range(value - span, value + span + 1, 2 * span)
            near = [number for number in around if number not in (2, 4, value)]
            names += map(str, near)
        chosen = names if len(names) <= self.choices else rng.sample(names, self.choices)
        if self.contractions and word.lower().replace("’", "'") in _EXPANSIONS:
            chosen = [*chosen, match_case(_EXPANSIONS[word.lower().replace("’", "'")], word[:1])]
        return chosen


def _contracted(words: Words, at: int, modified: set[int]) -> list[Words]:
    """Return the text with the word and the next one contracted, if they can be."""
    after = at + 1
    if after >= len(words) or after in modified or not words.editable[after]:
        return []
    if words.gaps[at] != " " or words.columns[after] != words.columns[at]:
        return []
    short = _CONTRACTIONS.get(f"{words.words[at]} {words.words[after]}".lower())
    if short is None:
        return []
    return [words.delete(after).replace(at, match_case(short, words.words[at][:1]))]
