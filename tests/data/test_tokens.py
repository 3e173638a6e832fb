from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from textadv.data.tokens import token_notes


@pytest.fixture(scope="module")
def tokenizer():
    """Return a tokenizer that drops controls and zero-width characters, as BERT's does."""
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "film": 2}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")


def test_cut_texts_are_counted_with_their_length(tokenizer):
    texts = [["a film"]] * 9 + [["a " * 50]]
    (note,) = token_notes("train", texts, tokenizer, 10)
    expected = "train: 10.0% of 10 texts have more than 10 tokens and are cut; 95 % have at most 50"
    assert note == expected
    assert token_notes("train", texts, tokenizer, 50) == []
    assert token_notes("train", [], tokenizer, 50) == []


def test_characters_that_leave_no_trace_are_counted(tokenizer):
    texts = [["a fi\u200blm"], ["a film\x00"], ["a film \u2066"], ["a film"], ["a\tfilm\n"]]
    (note,) = token_notes("examples", texts, tokenizer, 10)
    assert note.startswith("examples: 3 of 5 texts hold invisible characters; in 3 the tokenizer")


def test_pairs_and_large_sets_are_sampled(tokenizer):
    texts = [["a film", "a film"]] * 4999 + [["a " * 30_000, "a"]]
    (note,) = token_notes("train", texts[::-1], tokenizer, 5)
    assert "0.1% of a sample of 1667 texts" in note
