from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.test_victim import PAIRS, TEXTS, tokenizer, victim
from textadv.classifier import ModelVictim
from textadv.embeddings import EmbeddingPort
from textadv.errors import UnsupportedModelError
from textadv.testing import tiny_model
from textadv.whitebox import margins


def test_margins_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margins(logits, [0, 1]).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("kind", ["bert", "llama", "roberta", "deberta-v2"])
def test_the_slope_is_that_of_finite_differences(kind: str) -> None:
    model = tiny_model(kind, num_labels=3).double()
    made = ModelVictim(model, tokenizer(), device="cpu")
    (found,) = made.gradients([("a very good film",)], [1])
    port = EmbeddingPort(model, tokenizer())
    ids = torch.tensor([made.encode([("a very good film",)])["input_ids"][0]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def margin(delta: torch.Tensor) -> float:
        with torch.no_grad():
            return float(margins(port.logits(batch, delta), [1])[0])

    assert len(found.spans) == ids.shape[1] == len(found.gradient)
    assert torch.allclose(found.embedding.double(), port.embed(batch)[0], atol=1e-6)
    for place, dim in [(0, 0), (2, 3), (3, 7)]:
        step = torch.zeros_like(port.embed(batch))
        step[0, place, dim] = 1e-3
        slope = (margin(step) - margin(-step)) / 2e-3
        assert slope == pytest.approx(float(found.gradient[place, dim]), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS])
@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_batches_equal_one_text_at_a_time(texts: list[tuple[str, ...]], batch_tokens: int) -> None:
    together = victim(batch_tokens=batch_tokens)
    labels = [row % 3 for row in range(len(texts))]
    for text, label, found in zip(texts, labels, together.gradients(texts, labels), strict=True):
        (alone,) = victim().gradients([text], [label])
        assert alone.spans == found.spans
        torch.testing.assert_close(alone.gradient, found.gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(alone.logits, together.logits([text])[0], rtol=1e-4, atol=1e-5)


def test_spans_point_at_the_words() -> None:
    made = victim()
    (found,) = made.gradients([("good film", "bad plot")], [0])
    words = [("good film", "bad plot")[c][a:b] for c, a, b in found.spans if c >= 0]
    assert words == ["good", "film", "bad", "plot"]


def test_word_vectors_are_mean_embeddings() -> None:
    made = victim()
    weight = made.model.get_input_embeddings().weight.detach()
    ids = [made.tokenizer.convert_tokens_to_ids(word) for word in ("good", "film")]
    found = made.word_vectors(["good film", "good", "unheard"])
    torch.testing.assert_close(found[0], weight[ids].mean(dim=0))
    torch.testing.assert_close(found[1], weight[ids[0]])
    torch.testing.assert_close(found[2], weight[made.tokenizer.unk_token_id])


def test_nothing_is_left_behind() -> None:
    made = victim()
    before = {name: p.requires_grad for name, p in made.model.named_parameters()}
    scores = made.logits(TEXTS)
    made.gradients(TEXTS, [0] * len(TEXTS))
    assert {name: p.requires_grad for name, p in made.model.named_parameters()} == before
    assert all(p.grad is None for p in made.model.parameters())
    assert not made.model.training
    assert torch.equal(made.logits(TEXTS), scores)


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer(), name)

    made = victim()
    made.tokenizer = Slow()
    with pytest.raises(UnsupportedModelError, match="slow tokenizer Slow"):
        made.gradients([("good",)], [0])
