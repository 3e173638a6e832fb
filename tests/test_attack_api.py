"""`textadv.attack`: every kind of model, labels as they are written, a report that prints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import textadv
from tests.models import make_tokenizer, sentiment_rows
from tests.oracles import toy
from textadv.errors import ConfigError, DataError, UnsupportedModelError
from textadv.testing import tiny_model
from textadv.victim import EstimatorVictim, ModelVictim, as_victim, label_ids, label_names


class Estimator:
    """What scikit-learn promises of a fitted pipeline, with a word count for a model."""

    def __init__(self, classes: list[Any]) -> None:
        self.classes_ = np.array(classes)

    def predict_proba(self, texts: list[str]) -> np.ndarray:
        scores = np.array([[text.count("dull"), text.count("warm"), 0.5] for text in texts])
        powers = np.exp(scores[:, : len(self.classes_)])
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def predict(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self.classes_[self.predict_proba(texts).argmax(axis=1)])


TEXTS = ["a warm film", "a dull plot", "dull dull scene", "warm story"]


def test_the_report_prints_and_holds_figures_and_records() -> None:
    texts, labels = toy.texts_and_labels(12)
    report = textadv.attack(toy.victim(), texts, labels, attacks=["deepwordbug", "pruthi"])
    printed = str(report)
    assert "Clean accuracy" in printed
    assert "| deepwordbug |" in printed
    assert "Worst case per example over deepwordbug, pruthi" in printed
    assert len(report.records) == 24
    flipped = sum(r.status == "flipped" for r in report.records if r.attack == "pruthi")
    assert report.attacks["pruthi"].counts["flipped"] == flipped
    assert report.attacks["pruthi"].attack_success_rate == flipped / (
        flipped + report.attacks["pruthi"].counts["survived"]
    )


def test_labels_of_an_estimator_are_its_classes() -> None:
    for classes in (["ham", "spam"], [2, 1], [1, 2, 7]):
        estimator = Estimator(classes)
        gold = estimator.predict(TEXTS).tolist()
        report = textadv.attack(estimator, TEXTS, gold)
        assert report.clean_accuracy == 1.0
        assert report.attacks["deepwordbug"].counts["flipped"] > 0
        wrong = [next(one for one in classes if one != label) for label in gold]
        assert textadv.attack(estimator, TEXTS, wrong).clean_accuracy == 0.0
    with pytest.raises(DataError, match=r"row 1, label: got 'eggs', expected one of 'ham, spam'"):
        textadv.attack(Estimator(["ham", "spam"]), TEXTS[:2], ["ham", "eggs"])


def test_a_scikit_learn_pipeline_with_named_classes() -> None:
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    rows = sentiment_rows(60)
    texts = [row["text"] for row in rows]
    names = ["poor" if row["label"] == 0 else "fine" for row in rows]
    for classifier in (LogisticRegression(), LinearSVC()):
        fitted = make_pipeline(TfidfVectorizer(), classifier).fit(texts, names)
        report = textadv.attack(fitted, texts[:10], names[:10], ["deepwordbug"])
        assert report.clean_accuracy == np.mean(fitted.predict(texts[:10]) == names[:10])
        found = [r for r in report.records if r.adversarial_text is not None]
        assert found
        after = fitted.predict([r.adversarial_text[0] for r in found])
        assert [list(fitted.classes_).index(one) for one in after] == [
            r.adversarial_prediction for r in found
        ]


def model(**config: Any) -> Any:
    made = tiny_model("bert", **{"num_labels": 2, **config})
    made.config.id2label = {0: "Poor", 1: "Fine"}
    return made


def test_names_of_a_models_classes_are_labels_in_any_case() -> None:
    victim = ModelVictim(model(), make_tokenizer(), device="cpu")
    assert label_names(victim) == ("Poor", "Fine")
    assert label_ids(victim, ["fine", "Poor", "Fine"]) == [1, 0, 1]
    assert label_ids(victim, [1, 0]) == [1, 0]
    with pytest.raises(DataError, match=r"row 1, label: got 'good', expected one of 'Poor, Fine'"):
        label_ids(victim, ["fine", "good"])
    many = model(problem_type="multi_label_classification")
    one = ModelVictim(many, make_tokenizer(), device="cpu", label="Fine")
    assert label_names(one) == ("not Fine", "Fine")
    assert label_ids(one, ["not fine", "Fine"]) == [0, 1]
    with pytest.raises(DataError, match="an integer: the model names no classes"):
        label_ids(as_victim(toy.scores), ["fine"])


def test_a_pipeline_brings_model_and_tokenizer() -> None:
    class Pipeline:
        def __init__(self) -> None:
            self.model, self.tokenizer = model(), make_tokenizer()

        def __call__(self, texts: list[str]) -> None:
            raise AssertionError("its labels are no scores")

        predict = __call__

    pipeline = Pipeline()
    victim = as_victim(pipeline)
    assert isinstance(victim, ModelVictim)
    direct = ModelVictim(pipeline.model, pipeline.tokenizer)
    assert torch.equal(victim.logits([("a film",)]), direct.logits([("a film",)]))
    with pytest.raises(UnsupportedModelError, match=r"ModelVictim\(model, tokenizer\)"):
        as_victim(pipeline.model)
    assert isinstance(as_victim(Estimator(["a", "b"])), EstimatorVictim)


def test_a_real_transformers_pipeline() -> None:
    from transformers import TextClassificationPipeline

    pipeline = TextClassificationPipeline(model=model(), tokenizer=make_tokenizer())
    report = textadv.attack(pipeline, ["a good film", "a dull plot"], ["fine", "poor"])
    assert sum(report.attacks["deepwordbug"].counts.values()) == 2


def test_texts_that_do_not_fit_are_one_clear_line_before_the_first_query() -> None:
    pairs = model()
    pairs.config.id2label = {0: "entailment", 1: "not_entailment"}
    victim = ModelVictim(pairs, make_tokenizer(), device="cpu")
    with pytest.raises(DataError, match=r"single texts for a model of pairs.*--text-column"):
        textadv.attack(victim, ["a film"], [0])
    assert textadv.attack(victim, [("a film", "a plot")], [0]).num_examples == 1
    with pytest.raises(DataError, match="got 3 columns, expected one, or a pair"):
        textadv.attack(victim, [("a", "b", "c")], [0])

    def never(texts: list[str]) -> None:
        raise AssertionError("asked")

    with pytest.raises(DataError, match=r"columns 1 \(example '0'\) and 2 \(example '1'\)"):
        textadv.attack(never, ["a film", ("a film", "a plot")], [0, 1])
    with pytest.raises(DataError, match=r"examples: got none, expected at least one"):
        textadv.attack(never, [], [])
    with pytest.raises(DataError, match="1 texts, 2 labels"):
        textadv.attack(never, ["a film"], [0, 1])
    with pytest.raises(ConfigError, match="did you mean 'deepwordbug'"):
        textadv.attack(never, ["a film"], [0], attacks=["deepwordbgu"])
