"""DeepWordBug: typos in the words that matter most."""

from __future__ import annotations

import dataclasses
import random
import string
from typing import Literal

from textadv.attacks.base import Example, NoCandidatesError, Search
from textadv.attacks.chars import all_typos, one_typo_each
from textadv.attacks.constraints import attackable, edit_distance
from textadv.attacks.search import greedy, rank
from textadv.errors import ConfigError
from textadv.words import Words

__all__ = ["DeepWordBug", "DeepWordBugAll"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepWordBug:
    """Misspell words, most important first, with one random edit of each kind per word.

    A word is swapped, substituted, deleted and inserted into at a random place; all four typos are
    asked about and the best is kept when it lowers the margin.

    Source: Gao et al., Black-box Generation of Adversarial Text Sequences, SPW 2018,
    arXiv 1801.04354.

    Deviations: the paper ranks by a sum of temporal scores and applies one kind of edit blindly
    until its distance is used up; here words are ranked by replacement (its Replace-1) and every
    edit is asked about, as TextAttack's recipe does. Stopwords are left alone unless told
    otherwise. Importance is measured by margins, not probabilities.

    Cost: 1 + n + 4 queries for each attackable word, n of them to rank.

    Known failure: a spelling corrector in front of the model undoes it.

    Args:
        max_distance: Most character edits in all (the paper: 30).
        ranking: Replace a word with `unknown`, or delete it.
        unknown: What stands for a word the model does not know.
        skip_stopwords: Leave function words alone.
        min_length: Shortest word that is edited.
    """

    max_distance: int = 30
    ranking: Literal["unk", "delete"] = "unk"
    unknown: str = "[UNK]"
    skip_stopwords: bool = True
    min_length: int = 1

    def __post_init__(self) -> None:
        if self.max_distance < 1:
            raise ConfigError("max_distance", got=str(self.max_distance), expected=">= 1")
        if self.ranking not in ("unk", "delete"):
            raise ConfigError("ranking", got=repr(self.ranking), expected="'unk' or 'delete'")

    def prepare(self) -> None:
        """Need nothing."""

    def typos(self, word: str, rng: random.Random) -> list[str]:
        """Return the misspellings of one word that are asked about."""
        return one_typo_each(word, rng)

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank the words once, then misspell them greedily within the distance."""
        positions = attackable(
            example.words, skip_stopwords=self.skip_stopwords, min_length=self.min_length
        )
        if not positions:
            raise NoCandidatesError
        order = yield from rank(example, positions, self.ranking, self.unknown)

        def propose(words: Words, index: int) -> list[Words]:
            typos = (words.replace(index, typo) for typo in self.typos(words.words[index], rng))
            return [typo for typo in typos if edit_distance(typo) <= self.max_distance]

        return (yield from greedy(example, order, propose))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepWordBugAll(DeepWordBug):
    """Misspell words, most important first, asking about every single typo of each word.

    Deterministic: every swap and deletion, every substitution and insertion of `letters`.

    Source: as `deepwordbug`, whose random edit is replaced by all of them.

    Cost: about 53 queries per character of each attackable word with 26 letters, until the
    prediction changes; fewer `letters` make it cheaper.

    Args:
        letters: What is substituted and inserted.
    """

    letters: str = string.ascii_lowercase

    def typos(self, word: str, rng: random.Random) -> list[str]:
        """Return all misspellings of one word."""
        return all_typos(word, self.letters)
