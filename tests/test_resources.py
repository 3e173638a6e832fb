from __future__ import annotations

import os
from pathlib import Path

import pytest

from textadv import resources
from textadv.errors import ResourceError
from textadv.resources import KINDS, STOPWORDS, content_hash, find


def test_stopwords_are_lowercase_function_words() -> None:
    assert {"the", "not", "isn't", "without"} <= STOPWORDS
    assert not {"good", "film", "bad", "man"} & STOPWORDS
    assert all(word == word.lower().strip() for word in STOPWORDS)


def test_a_path_wins_over_the_environment_and_that_over_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for file in (first, second):
        file.write_text("x")
    third.mkdir()
    monkeypatch.setattr(resources, "_package_model", lambda package: third)
    monkeypatch.setenv("TEXTADV_ENCODER", str(second))
    assert find("encoder", str(first)) == first
    assert find("encoder") == second
    monkeypatch.delenv("TEXTADV_ENCODER")
    assert find("encoder") == third


@pytest.mark.parametrize("kind", [kind for kind, spec in KINDS.items() if not spec.nltk])
def test_what_is_missing_says_where_it_was_looked_for_and_how_to_get_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_package_model", lambda package: None)
    monkeypatch.delenv(KINDS[kind].variable, raising=False)
    with pytest.raises(ResourceError, match=rf"{kind}: .*{KINDS[kind].variable} is not set.*Fix: "):
        find(kind)
    with pytest.raises(ResourceError, match=r"nowhere': got no such file.*Fix: "):
        find(kind, str(tmp_path / "nowhere"))
    monkeypatch.setenv(KINDS[kind].variable, str(tmp_path / "gone"))
    with pytest.raises(ResourceError, match=r"gone': got no such file"):
        find(kind)


def test_content_hash_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.npy").write_bytes(b"12")
        (tmp_path / folder / "words.txt").write_text("one")
    first, second = tmp_path / "a", tmp_path / "b"
    assert content_hash(first) == content_hash(second)
    assert content_hash(first / "v.npy") == content_hash(second / "v.npy")
    before = content_hash(second / "v.npy")
    (second / "words.txt").write_text("two")
    os.utime(second / "words.txt", ns=(1, 1))
    assert content_hash(second / "v.npy") != before
    assert content_hash(second) != content_hash(first)
