"""The models under attack: texts in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from textadv.classifier import ModelVictim
from textadv.errors import DataError, UnsupportedModelError, shown

__all__ = [
    "CallableVictim",
    "EstimatorVictim",
    "ModelVictim",
    "Victim",
    "as_victim",
    "label_ids",
    "label_names",
]


class Victim(Protocol):
    """Score texts. One tuple of columns per text in, logits `(N, C)` float32 on the CPU out.

    A victim may also have `num_labels`; `noise`, how much the batch around a text moves its logits
    (`ModelVictim.noise`); `readable(text)`, how many characters of each column it reads; and, for
    white-box attacks, `gradients(texts, labels)` and `word_vectors(words)` as
    `ModelVictim` has them.
    """

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return one row of logits per text, in the order given."""
        ...


class CallableVictim:
    """Make a victim of any function from a list of texts to scores.

    Args:
        function: Gets a list of strings (of tuples of strings when texts have several columns) and
            returns `(N, C)` scores: a list of lists, an array or a tensor.
        scores: `"probabilities"` are turned into log-probabilities, whose margins are the logits'
            margins; `"logits"` are taken as they are.

    Example:
        >>> victim = CallableVictim(lambda texts: [[len(text), 3.0] for text in texts])
        >>> victim.logits([("good",)]).tolist()
        [[4.0, 3.0]]
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        *,
        scores: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        self.function, self.scores = function, scores

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return the function's scores as a float32 tensor `(N, C)`; DataError if they are none."""
        inputs = [text[0] if len(text) == 1 else text for text in texts]
        found = self.function(inputs)
        try:
            scores = torch.as_tensor(found).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                "victim scores",
                got=f"{type(found).__name__} {shown(found)}",
                expected="one row of numbers per text",
            ) from error
        if self.scores == "probabilities":
            if ((scores < 0) | (scores > 1 + 1e-4)).any():
                raise DataError(
                    "victim scores",
                    got=f"numbers from {scores.min():.3g} to {scores.max():.3g}",
                    expected="probabilities, from 0 to 1",
                    fix='give scores="logits" if they are logits',
                )
            tiny = torch.finfo(torch.float64).tiny
            scores = scores.double().clamp_min(tiny).log()
        return scores.float()


class EstimatorVictim(CallableVictim):
    """Make a victim of a fitted scikit-learn classifier or pipeline that takes raw texts.

    Its `decision_function` gives the logits where there is one, else the logarithm of
    `predict_proba`. Class ids are positions in `classes_`; see `label_ids`.

    Args:
        estimator: A fitted classifier, such as `make_pipeline(TfidfVectorizer(), LinearSVC())`.

    Raises:
        UnsupportedModelError: An estimator without either method, or fewer than two classes.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.num_labels = len(getattr(estimator, "classes_", ()))
        margin = getattr(estimator, "decision_function", None)
        name = type(estimator).__name__
        if self.num_labels < 2:
            raise UnsupportedModelError(
                f"estimator {name}",
                got=f"{self.num_labels} classes" if self.num_labels else "no `classes_`",
                expected="a fitted classifier of 2 classes or more",
            )
        if margin is None and not hasattr(estimator, "predict_proba"):
            raise UnsupportedModelError(
                f"estimator {name}",
                got="neither decision_function nor predict_proba",
                expected="one of them: an attack needs scores",
            )
        if margin is None:
            super().__init__(estimator.predict_proba, scores="probabilities")
        else:
            super().__init__(lambda texts: _two_columns(torch.as_tensor(margin(texts))))


def _two_columns(scores: Tensor) -> Tensor:
    """Return scores per class, also for the one column scikit-learn gives for two classes."""
    return scores if scores.ndim == 2 else torch.stack([torch.zeros_like(scores), scores], dim=1)


def as_victim(model: Any, **options: Any) -> Victim:
    """Return a victim for whatever can be attacked.

    Args:
        model: A model directory or Hub id, a `Victim`, a Transformers pipeline, a scikit-learn
            classifier, or a function from a list of texts to logits.
        options: Passed to `ModelVictim.load`, or to `ModelVictim` for a pipeline.

    Raises:
        UnsupportedModelError: None of these, or a model that cannot be attacked.

    Example:
        >>> as_victim(lambda texts: [[0.0, 1.0]] * len(texts)).logits([("a",)]).tolist()
        [[0.0, 1.0]]
    """
    if isinstance(model, str | Path):
        return ModelVictim.load(model, **options)
    if hasattr(model, "logits"):
        victim: Victim = model
        return victim
    if hasattr(model, "model") and hasattr(model, "tokenizer"):
        return ModelVictim(model.model, model.tokenizer, **options)
    if isinstance(model, torch.nn.Module):
        raise UnsupportedModelError(
            f"model of type {type(model).__name__}",
            got="a model without its tokenizer",
            expected="both",
            fix="give textadv.ModelVictim(model, tokenizer)",
        )
    if hasattr(model, "predict"):
        return EstimatorVictim(model)
    if callable(model):
        return CallableVictim(model)
    raise UnsupportedModelError(
        f"model of type {type(model).__name__}",
        got=shown(model),
        expected="a directory, a victim, a scikit-learn classifier, or a function of texts",
    )


def label_names(victim: Any) -> tuple[Any, ...]:
    """Return what a victim calls its classes, in the order of their ids; empty if it does not say.

    One label of a multi-label model makes the classes `not NAME` and `NAME`.
    """
    if isinstance(victim, ModelVictim):
        named = {int(index): str(name) for index, name in victim.model.config.id2label.items()}
        if victim.output is not None:
            return f"not {named[victim.output]}", named[victim.output]
        return tuple(named[index] for index in sorted(named))
    if isinstance(victim, EstimatorVictim):
        return tuple(victim.estimator.classes_)
    return ()


def label_ids(victim: Any, labels: Sequence[Any]) -> list[Any]:
    """Return labels as class ids.

    Labels of a scikit-learn classifier are looked up in its `classes_`, and names in those of a
    Hugging Face model, by case alone if need be. Integers for any other victim are ids already.

    Raises:
        DataError: A label the victim does not have.

    Example:
        >>> label_ids(lambda texts: [[0.0, 1.0]] * len(texts), [1, 0])
        [1, 0]
    """
    names = label_names(victim)
    by_value = {name: index for index, name in reversed(list(enumerate(names)))}
    folded = {name.casefold(): at for name, at in by_value.items() if isinstance(name, str)}
    if not isinstance(victim, EstimatorVictim) and not any(isinstance(v, str) for v in labels):
        return list(labels)
    found = []
    for row, label in enumerate(labels):
        index = by_value.get(label)
        if index is None and isinstance(label, str):
            index = folded.get(label.casefold())
        if index is None:
            raise DataError(
                f"row {row}, label",
                got=shown(label),
                expected="one of " + shown(", ".join(map(str, names)), 200)
                if names
                else "an integer: the model names no classes",
            )
        found.append(index)
    return found
