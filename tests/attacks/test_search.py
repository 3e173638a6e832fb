"""Searches driven by hand-written scores, without a victim."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from textadv.attacks import Example
from textadv.attacks.search import greedy, rank
from textadv.words import Words

TEXT = Words.of("one two three")


def example(margin: float = 1.0) -> Example:
    return Example(id="a", words=TEXT, label=0, clean=torch.tensor([margin, 0.0]))


def drive(
    search: Generator[list[Words], Tensor, Any], answers: list[list[float]]
) -> tuple[list[list[str]], Any]:
    """Send margins in units of the clean one and return what was asked and the result."""
    asked: list[list[str]] = []
    request = next(search)
    try:
        for margins in answers:
            asked.append([words.texts[0] for words in request])
            request = search.send(torch.tensor([[margin, 0.0] for margin in margins]))
    except StopIteration as stop:
        return asked, stop.value
    raise AssertionError("the search goes on")


def letters(words: Words, index: int) -> list[Words]:
    return [words.replace(index, letter) for letter in "xy"]


def test_rank_orders_by_margin_then_position() -> None:
    asked, order = drive(rank(example(), [0, 1, 2], "unk"), [[0.5, 0.2, 0.5]])
    assert asked == [["[UNK] two three", "one [UNK] three", "one two [UNK]"]]
    assert order == [1, 0, 2]
    asked, order = drive(rank(example(), [0, 2], "delete"), [[0.5, 0.2]])
    assert asked == [["two three", "one two"]]
    assert order == [2, 0]


def test_greedy_keeps_only_what_lowers_the_margin() -> None:
    answers = [[1.0, 1.0], [0.6, 0.4], [0.4, 0.5]]
    asked, found = drive(greedy(example(), [0, 1, 2], letters), answers)
    assert asked == [
        ["x two three", "y two three"],
        ["one x three", "one y three"],
        ["one y x", "one y y"],
    ]
    assert found is None


def test_greedy_takes_the_first_of_equal_candidates_and_stops_at_a_flip() -> None:
    answers = [[0.5, 0.5], [0.7, -0.1]]
    asked, found = drive(greedy(example(), [2, 0], letters), answers)
    assert asked[1] == ["x two x", "y two x"]
    assert found.texts == ("y two x",)


def test_greedy_follows_positions_through_edits_and_skips_those_without_candidates() -> None:
    def drop(words: Words, index: int) -> list[Words]:
        return [] if words.words[index] == "two" else [words.delete(index)]

    asked, found = drive(greedy(example(), [0, 1, 0, 2], drop), [[0.5], [0.2]])
    assert asked == [["two three"], ["two"]]
    assert found is None
