from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from textadv.attacks import chars
from textadv.attacks.constraints import attackable, edit_distance, is_stopword, levenshtein
from textadv.words import Words

words_of_letters = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


def test_small_words_by_hand() -> None:
    assert chars.swaps("abba") == ["baba", "abab"]
    assert chars.deletions("abc") == ["bc", "ac", "ab"]
    assert chars.deletions("a") == []
    assert chars.substitutions("Ab", "bc") == ["Bb", "Cb", "Ac"]
    assert chars.insertions("a", "bc") == ["ba", "ca", "ab", "ac"]
    assert chars.all_typos("ab", "a") == ["ba", "b", "a", "aa", "aab", "aba"]


@given(words_of_letters)
def test_every_typo_is_another_word_near_by(word: str) -> None:
    typos = chars.all_typos(word, "ae")
    assert word not in typos
    assert len(set(typos)) == len(typos)
    assert all(1 <= levenshtein(word, typo) <= 2 for typo in typos)


@given(words_of_letters, st.integers(0, 99))
def test_random_typos_are_among_all_and_repeat_with_the_seed(word: str, seed: int) -> None:
    found = chars.one_typo_each(word, random.Random(seed))
    assert found == chars.one_typo_each(word, random.Random(seed))
    assert 1 <= len(found) <= 4
    assert all(1 <= levenshtein(word, typo) <= 2 for typo in found)


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_levenshtein_equals_its_definition(first: str, second: str) -> None:
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return distance(a[1:], b[1:])
        return 1 + min(distance(a[1:], b), distance(a, b[1:]), distance(a[1:], b[1:]))

    assert levenshtein(first, second) == distance(first, second)


def test_edit_distance_follows_the_alignment() -> None:
    words = Words.of("a warm film")
    assert edit_distance(words) == 0
    assert edit_distance(words.replace(1, "wram").replace(2, "firm")) == 3
    assert edit_distance(words.insert_before(0, "not")) == levenshtein(
        "a warm film", "not a warm film"
    )
    assert edit_distance(words.delete(1)) == levenshtein("a warm film", "a film")


def test_attackable_leaves_out_stopwords_protected_and_modified_words() -> None:
    words = Words.of("The warm film isn’t it").protect([2])
    assert attackable(words) == [1]
    assert attackable(words, skip_stopwords=False) == [0, 1, 3, 4]
    assert attackable(words, skip_stopwords=False, min_length=4) == [1, 3]
    assert attackable(words.replace(1, "cold")) == []
    assert is_stopword("ISN’T")
    assert not is_stopword("warm")
