"""TextBugger, and misspellings inside words."""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from textadv.attacks.base import Checked, Example, NoCandidatesError, Search, ranged
from textadv.attacks.candidates import SynonymLattice, match_case, prepare_resources
from textadv.attacks.chars import bugs, slips
from textadv.attacks.constraints import attackable
from textadv.attacks.meaning import Allowed, Meaning
from textadv.attacks.search import best, climb, rank
from textadv.words import Words

__all__ = ["Pruthi", "TextBugger"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextBugger(SynonymLattice, Meaning):
    """Bug the words that matter most: split, shorten, swap, imitate or replace them.

    Words are ranked by the fall of the margin when they are deleted. Each gets a space, a deletion
    and a swap at random places inside, every lookalike character, and its five nearest words.

    Source: Li et al., TextBugger, NDSS 2019, arXiv 1812.05271, with the search of TextAttack: no
    ranking of sentences, similarity 0.8 in angle (0.809 as cosine) to the whole unchanged text.

    Deviations: any sentence encoder; words that an inserted space splits stay one word, so that
    later edits hit the word they mean.

    Cost: 1 + m + about 8 and the number of letters for each of the m words.

    Known failure: lookalikes become unknown tokens; Unicode folding undoes them.
    """

    source: Literal["wordnet", "vectors", "sememes", "masked-lm"] = "vectors"
    max_candidates: int = 5
    min_similarity: float | None = ranged(0.809, -1, 1)
    window: int | None = None
    reference: Literal["previous", "original"] = "original"

    def needs(self) -> dict[str, str | None]:
        """Return the resources that are read."""
        return SynonymLattice.needs(self) | Meaning.needs(self)

    def prepare(self) -> None:
        """Load what is needed; ResourceError when it is not there."""
        prepare_resources(self.needs())

    def search(self, example: Example, rng: random.Random) -> Search:
        """Rank the words by deletion, then bug them greedily."""
        positions = self.positions(example.words)
        if not positions:
            raise NoCandidatesError
        lattice = yield from self.propose(example.words)
        order = yield from rank(example, positions, "delete")

        def propose(words: Words, index: int) -> Allowed:
            word = words.words[index]
            near = [match_case(name, word) for name in lattice.get(words.origins[index], [])]
            texts = [words.replace(index, bug) for bug in dict.fromkeys([*bugs(word, rng), *near])]
            return (yield from self.allowed(example, words, index, texts))

        return (yield from climb(example, order, propose))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruthi(Checked):
    """Misspell the inside of one or two words, trying every place of every word.

    Source: Pruthi et al., Combating Adversarial Misspellings with Robust Word Recognition, ACL
    2019, arXiv 1905.11268: swaps, deletions, insertions and keyboard slips that leave the first and
    last character of words of at least four.

    Deviations: a place gets one random letter inserted, not each.

    Cost: about 10 for each character of every word, for each of `max_words` rounds.

    Known failure: a spelling corrector in front of the model undoes it.

    Args:
        max_words: Most words misspelled.
        min_length: Shortest word that is edited.
        skip_stopwords: Leave function words alone.
    """

    max_words: int = 1
    min_length: int = ranged(4, 3)
    skip_stopwords: bool = True

    def prepare(self) -> None:
        """Need nothing."""

    def search(self, example: Example, rng: random.Random) -> Search:
        """Make the best misspelling of all, then the best one more."""
        current, margin = example.words, example.clean_margin
        for round_ in range(self.max_words):
            positions = attackable(
                current, skip_stopwords=self.skip_stopwords, min_length=self.min_length
            )
            texts = [
                current.replace(at, typo)
                for at in positions
                for typo in slips(current.words[at], rng)
            ]
            if not texts and not round_:
                raise NoCandidatesError
            found = best(example, (yield texts))
            if found is None or not (found[2] or found[1] < margin):
                return None
            if found[2]:
                return texts[found[0]]
            current, margin = texts[found[0]], found[1]
        return None
