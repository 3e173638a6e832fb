from __future__ import annotations

import pytest

from textadv.data.columns import choose_columns
from textadv.data.readers import Table
from textadv.errors import DataError


def table(*columns: str) -> Table:
    return Table(name="a.csv", columns=list(columns), rows=lambda wanted: iter(()))


@pytest.mark.parametrize(
    ("columns", "text", "label", "identifier"),
    [
        (["text", "label"], ["text"], "label", None),
        (["idx", "sentence", "label"], ["sentence"], "label", "idx"),
        (["label", "label_text", "content"], ["content"], "label", None),
        (["premise", "hypothesis", "label", "id"], ["premise", "hypothesis"], "label", "id"),
        (["label", "question", "sentence"], ["question", "sentence"], "label", None),
        (["sentence2", "sentence1", "target"], ["sentence1", "sentence2"], "target", None),
        (["text_a", "text_b", "class"], ["text_a", "text_b"], "class", None),
        (["Text", "Label"], ["Text"], "Label", None),
        (["what was said", "category"], ["what was said"], "category", None),
    ],
)
def test_well_known_names_are_guessed(columns, text, label, identifier):
    found = choose_columns(table(*columns))
    assert (found.text, found.label, found.id) == (text, label, identifier)
    assert "guessed text from" in found.guessed
    assert "and label from" in found.guessed


def test_given_columns_win_and_are_not_called_guesses():
    found = choose_columns(table("text", "body", "label", "y"), text=["body"], label="y")
    assert (found.text, found.label, found.guessed) == (["body"], "y", "")


def test_an_id_column_that_is_asked_for_as_text_or_label_is_not_an_id():
    assert choose_columns(table("id", "label"), text=["id"]).id is None
    assert choose_columns(table("id", "text"), label="id").id is None


@pytest.mark.parametrize(
    ("columns", "options", "fragments"),
    [
        (["text", "content", "label"], {}, ["text column", "'text, content", "--text-column"]),
        (["text", "label", "target"], {}, ["label column", "label, target are possible"]),
        (
            ["text", "sentiment_of_it"],
            {},
            ["label column", "text, sentiment_of_it", "--label-column"],
        ),
        (["a", "b", "label"], {}, ["text column", "a, b, label", "data.text"]),
        (["premise", "hypothesis", "text", "label"], {}, ["premise+hypothesis, text are possible"]),
        (["text", "label"], {"text": ["txt"]}, ["no column 'txt'", "text, label", "to 'text'?"]),
        (["text", "lable"], {"label": "label"}, ["label column", "no column 'label'", "'lable'?"]),
    ],
)
def test_unclear_columns_are_listed_with_the_option_to_set(columns, options, fragments):
    with pytest.raises(DataError) as caught:
        choose_columns(table(*columns), **options)
    message = str(caught.value)
    assert message.startswith("a.csv: ")
    assert all(fragment.strip("'") in message for fragment in fragments), message
