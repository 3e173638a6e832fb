from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from textadv.attacks import Example, build_attack, run
from textadv.errors import ConfigError, DataError, UnsupportedModelError
from textadv.evaluate import attack
from textadv.testing import tiny_model
from textadv.victim import CallableVictim, ModelVictim, as_victim
from textadv.words import Words

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "very", "plot", "is"]


def tokenizer(pad: bool = True, special: bool = True, size: int = 0) -> PreTrainedTokenizerFast:
    names = VOCABULARY + [f"extra{n}" for n in range(size - len(VOCABULARY))]
    inner = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(names)}, unk_token="[UNK]")
    )
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    names_of: dict[str, Any] = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    if pad:
        names_of["pad_token"] = "[PAD]"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_input_names=["input_ids", "token_type_ids"], **names_of
    )


TEXTS = [
    ("good film",),
    ("a very very bad plot is a bad film",),
    ("good",),
    ("",),
    ("a film",),
    ("GOOD film",),
    ("very " * 200,),
]
PAIRS = [
    ("good film", "a plot"),
    ("bad", "very very very bad plot"),
    ("", "a"),
    ("a " * 90, "good " * 90),
]


def victim(kind: str = "bert", **options: Any) -> ModelVictim:
    return ModelVictim(tiny_model(kind, num_labels=3), tokenizer(), device="cpu", **options)


def alone(model: Any, tokenizer: Any, text: tuple[str, ...]) -> torch.Tensor:
    encoded = tokenizer(*text, return_tensors="pt", truncation=True, max_length=64)
    with torch.no_grad():
        result: torch.Tensor = model(**encoded).logits[0]
    return result


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
@pytest.mark.parametrize("texts", [TEXTS, PAIRS])
def test_ragged_batches_equal_one_text_at_a_time(
    texts: list[tuple[str, ...]], batch_tokens: int
) -> None:
    made = victim(batch_tokens=batch_tokens)
    scores = made.logits(texts)
    assert scores.dtype == torch.float32
    assert scores.shape == (len(texts), 3)
    for text, row in zip(texts, scores, strict=True):
        torch.testing.assert_close(
            row, alone(made.model, made.tokenizer, text), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "llama", "xlnet", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_changes_an_answer(kind: str, side: str) -> None:
    model, words = tiny_model(kind, num_labels=2), tokenizer()
    words.padding_side = side
    made = ModelVictim(model, words, device="cpu")
    together = made.logits(TEXTS[:6])
    single = torch.cat([made.logits([text]) for text in TEXTS[:6]])
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_batches_are_sorted_by_length_and_stay_in_the_token_budget() -> None:
    made = victim(batch_tokens=24)
    shapes: list[tuple[int, ...]] = []
    made.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    texts = [("very " * (count % 9 + 1) + f"film {'good' * (count % 2)}",) for count in range(40)]
    made.logits(texts)
    assert all(rows * width <= 24 for rows, width in shapes)
    assert [width for _, width in shapes] == sorted((width for _, width in shapes), reverse=True)
    assert max(rows for rows, _ in shapes) >= 3


def test_texts_with_the_same_tokens_share_a_row() -> None:
    made = victim()
    rows: list[int] = []
    made.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    scores = made.logits([("good film",), ("GOOD film",), ("xyz",), ("zyx",), ("film",)])
    assert sum(rows) == 3
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[2], scores[3])
    assert made.logits([]).shape == (0, 3)


def test_model_is_in_evaluation_mode_and_keeps_no_graph() -> None:
    model = tiny_model("bert", num_labels=2).train()
    made = ModelVictim(model, tokenizer(), device="cpu")
    assert not model.training
    scores = made.logits([("good film",)])
    assert not scores.requires_grad
    assert torch.equal(scores, made.logits([("good film",)]))


def test_half_precision_gives_float32_scores() -> None:
    model = tiny_model("bert", num_labels=2)
    full = ModelVictim(model, tokenizer(), device="cpu").logits(TEXTS)
    half = ModelVictim(model.to(torch.bfloat16), tokenizer(), device="cpu").logits(TEXTS)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("kind", "argument", "expected"),
    [
        ("bert", None, 64),
        ("bert", 16, 16),
        ("bert", 900, 64),
        ("roberta", None, 65),
        ("t5", None, 512),
    ],
)
def test_max_length_is_the_least_of_all_limits(
    kind: str, argument: int | None, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = ModelVictim(
        tiny_model(kind, num_labels=2), tokenizer(), device="cpu", max_length=argument
    )
    assert made.max_length == expected
    assert ("no length limit" in caplog.text) == (kind == "t5")
    made.logits([("film " * 700,)])


def test_a_model_without_pad_token_gets_one_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("gpt2", num_labels=2)
    model.config.pad_token_id = None
    with caplog.at_level(logging.WARNING):
        made = ModelVictim(model, tokenizer(pad=False, special=False), device="cpu")
    assert "no pad token" in caplog.text
    texts = [("good film",), ("a very bad plot",), ("",)]
    single = torch.cat([made.logits([text]) for text in texts])
    torch.testing.assert_close(made.logits(texts), single, rtol=1e-4, atol=1e-5)


def test_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = victim()
    expected = made.logits(TEXTS)
    forward: Callable[..., Any] = made.model.forward

    def limited(**batch: Any) -> Any:
        if len(batch["input_ids"]) > 2:
            raise torch.OutOfMemoryError("full")
        return forward(**batch)

    monkeypatch.setattr(made.model, "forward", limited)
    torch.testing.assert_close(made.logits(TEXTS), expected, rtol=1e-5, atol=1e-5)


def test_unusable_models_are_one_clear_line() -> None:
    with pytest.raises(UnsupportedModelError, match="got 1 label"):
        ModelVictim(tiny_model("bert", num_labels=1), tokenizer(), device="cpu")
    with pytest.raises(UnsupportedModelError, match=r"ids up to 499.*saved with this model"):
        ModelVictim(tiny_model("bert", num_labels=2), tokenizer(size=500), device="cpu")
    with pytest.raises(DataError, match="3 columns"):
        victim().logits([("a", "b", "c")])


def test_load_from_a_directory(tmp_path: Path) -> None:
    model = tiny_model("bert", num_labels=2)
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    made = ModelVictim.load(tmp_path, device="cpu")
    expected = ModelVictim(model, tokenizer(), device="cpu").logits(TEXTS)
    torch.testing.assert_close(made.logits(TEXTS), expected)
    half = ModelVictim.load(tmp_path, device="cpu", dtype="bfloat16", max_length=9)
    assert half.model.dtype == torch.bfloat16
    assert half.max_length == 9


def test_load_refuses_pickles_strangers_heads_and_bad_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model\.bin, a pickle.*safetensors"):
        ModelVictim.load(tmp_path)
    with pytest.raises(UnsupportedModelError, match="no such directory"):
        ModelVictim.load(tmp_path / "none")
    model = tiny_model("bert", num_labels=2)
    tokenizer().save_pretrained(tmp_path)
    model.bert.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"without 'classifier.*head included"):
        ModelVictim.load(tmp_path)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"classifier\.weight: got NaN"):
        ModelVictim.load(tmp_path)


def test_callable_victim_takes_lists_arrays_and_tensors() -> None:
    rows = [[1.0, 2.0], [3.0, 0.5]]
    for value in (rows, np.array(rows), torch.tensor(rows, requires_grad=True)):
        found = CallableVictim(lambda texts, value=value: value).logits([("a",), ("b",)])
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert found.tolist() == rows
    given: list[Any] = []
    CallableVictim(lambda texts: given.extend(texts) or rows).logits([("a", "b"), ("c", "d")])  # type: ignore[func-returns-value]
    assert given == [("a", "b"), ("c", "d")]


def test_probabilities_become_logits_with_the_same_margins() -> None:
    logits = torch.tensor([[4.0, 1.0, -9.0], [0.0, 0.5, 0.25]])
    made = CallableVictim(lambda texts: logits.softmax(dim=1), scores="probabilities")
    found = made.logits([("a",), ("b",)])
    torch.testing.assert_close(found - found[:, :1], logits - logits[:, :1], rtol=1e-4, atol=1e-4)
    sure = CallableVictim(lambda texts: [[1.0, 0.0]], scores="probabilities").logits([("a",)])
    assert torch.isfinite(sure).all()


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ([["a", "b"]], {}, "victim scores: got list .*expected one row of numbers"),
        (None, {}, "got NoneType None"),
        ([[1.0, 2.0], [1.0]], {}, "one row of numbers per text"),
        ([[-3.0, 5.0]], {"scores": "probabilities"}, "numbers from -3 to 5, expected probabil"),
    ],
)
def test_scores_of_the_wrong_kind_end_a_run(value: Any, options: Any, message: str) -> None:
    victim = CallableVictim(lambda texts: value, **options)
    with pytest.raises(DataError, match=message):
        victim.logits([("a",)])
    with pytest.raises(DataError, match=message):
        attack(victim, ["a good film"], [0])


@pytest.mark.parametrize("width", [1, 64])
def test_attack_on_a_model_is_the_same_at_any_width_and_budget(width: int) -> None:
    texts = [
        "a good film",
        "very bad plot is a film",
        "good",
        "a very very good plot",
        "film is bad",
    ]
    scores = victim().logits([(text,) for text in texts])
    examples = [
        Example(id=str(at), words=Words.of(text), label=int(scores[at].argmax()))
        for at, text in enumerate(texts)
    ]
    attacks = {"deepwordbug": build_attack("deepwordbug")}
    reference = set(run(attacks, victim(), examples, width=3))
    for batch_tokens in (1, 50, 8192):
        assert (
            set(run(attacks, victim(batch_tokens=batch_tokens), examples, width=width)) == reference
        )


def multi_label(**options: Any) -> ModelVictim:
    model = tiny_model("bert", num_labels=3, problem_type="multi_label_classification")
    model.config.id2label = {0: "toxic", 1: "spam", 2: "fine"}
    return ModelVictim(model, tokenizer(), device="cpu", **options)


@pytest.mark.parametrize("label", ["spam", 1])
def test_one_label_of_a_multi_label_model_is_a_victim_of_two_classes(label: str | int) -> None:
    made = multi_label(label=label)
    single = torch.stack([alone(made.model, made.tokenizer, text) for text in TEXTS])
    scores = made.logits(TEXTS)
    assert made.num_labels == 2
    assert scores[:, 0].tolist() == [0.0] * len(TEXTS)
    torch.testing.assert_close(scores[:, 1], single[:, 1], rtol=1e-5, atol=1e-5)
    (slope,) = made.gradients([TEXTS[0]], [1])
    assert slope.gradient.abs().sum() > 0


def test_a_multi_label_model_needs_the_name_of_a_label_it_has() -> None:
    with pytest.raises(UnsupportedModelError, match=r"a multi-label model.*toxic, spam, fine"):
        multi_label()
    with pytest.raises(ConfigError, match=r"unknown label.*did you mean 'toxic'"):
        multi_label(label="toxik")
    with pytest.raises(UnsupportedModelError, match=r"single-label model.*leave the label out"):
        victim(label="toxic")


def test_readable_is_what_comes_before_the_cut() -> None:
    made = victim(max_length=7)
    assert made.readable(("good film",)) == (9,)
    text = "good film is a very bad plot"
    (end,) = made.readable((text,))
    assert text[:end] == "good film is a very"
    first, second = made.readable(("good film is a very bad plot", "a plot"))
    assert ("good film is a very bad plot"[:first], "a plot"[:second]) == ("good film", "a plot")
    assert made.readable(("x" * 500,)) == (500,)


def test_words_behind_the_cut_are_not_edited_and_counted() -> None:
    made = victim(max_length=7)
    text = "good film is a very bad plot good"
    label = int(made.logits([(text,)]).argmax())
    example = Example(id="0", words=Words.of(text), label=label)
    typos = build_attack("deepwordbug", {"skip_stopwords": False})
    (record,) = run({"d": typos}, made, [example])
    assert record.num_unread_words == 3
    assert record.num_queries <= 1 + 5 + 4 * 5
    if record.adversarial_text is not None:
        assert record.adversarial_text[0].endswith("bad plot good")


def test_scikit_learn_classifiers_are_victims() -> None:
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    texts = ["good film", "bad plot", "very good", "bad film", "a plot", "the plot"]
    inputs = [(text,) for text in texts]
    for labels in ([1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 2, 2]):
        for classifier in (LinearSVC(), LogisticRegression(), MultinomialNB()):
            fitted = make_pipeline(TfidfVectorizer(), classifier).fit(texts, labels)
            made = as_victim(fitted)
            scores = made.logits(inputs)
            assert scores.shape == (6, len(set(labels))) == (6, made.num_labels)  # type: ignore[attr-defined]
            assert scores.argmax(dim=1).tolist() == fitted.predict(texts).tolist()
    found = attack(fitted, texts, labels, ["deepwordbug"])
    assert found.clean_accuracy > 0.8
    assert any(record.status == "flipped" for record in found.records)


def test_what_cannot_be_attacked_is_one_clear_line() -> None:
    class Unfitted:
        def predict(self) -> None: ...

    class OnlyClasses(Unfitted):
        classes_ = (0, 1)

    with pytest.raises(UnsupportedModelError, match="Unfitted: got no `classes_`"):
        as_victim(Unfitted())
    with pytest.raises(UnsupportedModelError, match="neither decision_function nor predict_proba"):
        as_victim(OnlyClasses())
    with pytest.raises(UnsupportedModelError, match="model of type int"):
        as_victim(3)
    made = CallableVictim(lambda texts: [])
    assert as_victim(made) is made
