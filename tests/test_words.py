from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textadv.words import Words, word_spans

anything = st.text(max_size=40)
texty = st.text(st.sampled_from(list("ab é'-.,!? \n\u0301\u200d你🙂")), max_size=30)
columns = st.lists(anything | texty, min_size=1, max_size=3)


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


def test_what_a_word_is() -> None:
    assert words_of("It's \"good\", isn't it? 3.5% (well-made)") == [
        *("It's", "good", "isn't", "it", "3", "5", "well-made"),
    ]
    assert words_of("हिन्दी के शब्द") == ["हिन्दी", "के", "शब्द"]
    assert words_of("cafe\u0301 nai\u0308ve") == ["cafe\u0301", "nai\u0308ve"]
    assert words_of("می\u200cخواهم ❤\ufe0f 🙂 --") == ["می\u200cخواهم"]
    assert words_of("dogs' 'quoted' a--b") == ["dogs", "quoted", "a--b"]


@given(columns)
def test_split_and_join_is_lossless(texts: list[str]) -> None:
    words = Words.of(texts)
    assert words.texts == tuple(texts)
    assert list(words.words) == [word for text in texts for word in words_of(text)]
    assert words.num_modified == 0
    assert words.origins == tuple(range(len(words)))


@given(columns, st.data())
def test_replace_changes_that_span_only(texts: list[str], data: st.DataObject) -> None:
    words = Words.of(texts)
    if not len(words):
        return
    index = data.draw(st.integers(0, len(words) - 1))
    column = words.columns[index]
    within = index - words.columns.index(column)
    start, end = word_spans(texts[column])[within]
    new = data.draw(anything)
    changed = words.replace(index, new)
    expected = texts[column][:start] + new + texts[column][end:]
    assert changed.texts == (*texts[:column], expected, *texts[column + 1 :])
    assert changed.num_modified == int(new != words.words[index])
    assert changed.replace(index, words.words[index]) == words
    assert words.replace_many({index: new}) == changed


edits = st.lists(
    st.tuples(
        st.sampled_from(["replace", "delete", "insert_before", "insert_after"]),
        st.integers(0, 99),
        st.sampled_from(["x", "y", "a"]),
    ),
    max_size=12,
)


@given(st.lists(texty, min_size=1, max_size=2), edits)
def test_alignment_equals_a_list_of_pairs(
    texts: list[str], steps: list[tuple[str, int, str]]
) -> None:
    """Any sequence of edits counts as in a plain list of (word, original index) pairs."""
    words = Words.of(texts)
    model = [(word, index) for index, word in enumerate(words.words)]
    for kind, place, new in steps:
        if not model:
            break
        index = place % len(model)
        if kind == "delete":
            words = words.delete(index)
            del model[index]
        elif kind == "replace":
            words = words.replace(index, new)
            model[index] = (new, model[index][1])
        else:
            words = getattr(words, kind)(index, new)
            model.insert(index + (kind == "insert_after"), (new, -1))
    original = words.original
    assert list(zip(words.words, words.origins, strict=True)) == model
    changed = [i for i, (word, at) in enumerate(model) if at < 0 or word != original[at]]
    gone = [at for at in range(len(original)) if at not in [origin for _, origin in model]]
    assert words.num_modified == len(changed) + len(gone)
    assert words.modified_positions == tuple(changed)
    for at in range(len(original)):
        position = words.position(at)
        assert position is None if at in gone else words.origins[position or 0] == at
    assert sum(map(len, words.texts)) == sum(map(len, (*words.words, *words.gaps, *words.leads)))


@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [
        ("A fine film.", 0, "fine film."),
        ("A fine film.", 1, "A film."),
        ("A fine film.", 2, "A fine."),
        ("A fine, warm film", 1, "A, warm film"),
        ("A (fine) film", 1, "A () film"),
        ("A fine film", 2, "A fine"),
        ("one", 0, ""),
        ("a/b c", 1, "a/ c"),
    ],
)
def test_delete_takes_one_space_along(text: str, index: int, expected: str) -> None:
    assert Words.of(text).delete(index).texts == (expected,)


def test_insert_puts_the_word_beside_its_neighbour() -> None:
    words = Words.of("Good, warm film.")
    assert words.insert_before(0, "Very").texts == ("Very Good, warm film.",)
    assert words.insert_after(0, "one").texts == ("Good one, warm film.",)
    assert words.insert_after(2, "here").texts == ("Good, warm film here.",)
    assert words.insert_before(1, "so").num_modified == 1


def test_columns_and_editable_words() -> None:
    pair = Words.of(("A man sleeps.", "Nobody is awake."), editable=[1])
    assert pair.editable_positions == (3, 4, 5)
    assert pair.protect([4]).editable_positions == (3, 5)
    assert pair.delete(3).texts == ("A man sleeps.", "is awake.")
    assert pair.insert_before(3, "Almost").texts == ("A man sleeps.", "Almost Nobody is awake.")
    assert pair.insert_after(2, "now").texts == ("A man sleeps now.", "Nobody is awake.")
    assert Words.of(("", "one")).insert_before(0, "just").texts == ("", "just one")


def test_rates_and_bounds() -> None:
    words = Words.of("a b c d")
    assert words.replace(0, "x").delete(3).modified_rate == 0.5
    assert Words.of("?!").modified_rate == 0.0
    for edit in (words.delete, words.position):
        edit(0)
    for index in (-1, 4):
        with pytest.raises(IndexError):
            words.replace(index, "x")
        with pytest.raises(IndexError):
            words.delete(index)
        with pytest.raises(IndexError):
            words.insert_after(index, "x")


def test_a_splitter_of_ones_own() -> None:
    words = Words.of("你好吗", split=lambda text: [(i, i + 1) for i in range(len(text))])
    assert words.words == ("你", "好", "吗")
    assert words.delete(1).texts == ("你吗",)
    assert words.replace(2, "么").texts == ("你好么",)
