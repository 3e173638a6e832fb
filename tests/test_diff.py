"""Word diffs, and text in which nothing is hidden."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textadv.diff import edit_distance, marked, visible, word_diff

TEXTS = st.text(st.sampled_from("ab c\n\u200b\u0456"), max_size=14)


@given(TEXTS, TEXTS)
def test_the_parts_make_up_both_texts(before: str, after: str) -> None:
    changes = word_diff(before, after)
    assert "".join(text for kind, text in changes if kind != "added") == before
    assert "".join(text for kind, text in changes if kind != "removed") == after
    assert all(text for _, text in changes)
    assert (edit_distance(before, after) == 0) is (before == after)


@given(st.text(max_size=20))
def test_visible_text_holds_nothing_that_is_hidden_or_that_a_terminal_obeys(text: str) -> None:
    seen = visible(text)
    for character in seen:
        assert character in " \n\t" or unicodedata.category(character)[0] not in "CZ"
    if text.isascii() and text.isprintable():
        assert seen == text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("fi\u200blm", "fi<U+200B>lm"),
        ("a\u00a0b", "a<U+00A0>b"),
        ("x\b", "x<U+0008>"),
        ("\x1b[31mred", "<U+001B>[31mred"),
        ("\u202eab\u202c", "<U+202E>ab<U+202C>"),
        ("a\u3164b\ufe0f", "a<U+3164>b<U+FE0F>"),
        ("caf\u00e9 \u4f60\u597d e\u0301", "caf\u00e9 \u4f60\u597d e\u0301"),
        ("\ud800", "<U+D800>"),
        ("one\ttwo\nthree", "one\ttwo\nthree"),
    ],
)
def test_what_cannot_be_seen_is_named(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_marks_stand_around_what_went_and_came() -> None:
    assert marked(word_diff("a fine film", "a film")) == "a [-fine -]film"
    assert marked(word_diff("film", "good film")) == "{+good +}film"
    assert marked(word_diff("a b", "a\nb")) == "a[- -]{+<U+000A>+}b"
    changes = word_diff("my \u0456 film", "my \u0456 f\u0456lm")
    # Lookalikes are named where they came, and left alone where they were.
    assert marked(changes, "\u0456") == "my \u0456 [-film-]{+f<\u0456 U+0456>lm+}"
