"""Subjects of an audit from a model and data, or from a finished evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textadv.attacks import ATTACKS, Attack, Example
from textadv.attacks.examples import make_examples
from textadv.attacks.records import Record
from textadv.audit.subject import GRADIENT_ATTACK, Subject
from textadv.classifier import ModelVictim
from textadv.embeddings import EmbeddingPort
from textadv.errors import DataError, shown
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.perturb import PERTURBATIONS, Perturbation
from textadv.report import RobustnessReport
from textadv.results import Results, load_results
from textadv.victim import Victim

__all__ = ["subject_of_model", "subject_of_run"]


def subject_of_model(
    victim: Victim,
    examples: Sequence[Example],
    *,
    attacks: Sequence[str | Mapping[str, Any]] = ("deepwordbug",),
    num_examples: int = 200,
    query_budget: int | None = None,
    seed: int = 0,
    model: str = "",
    data: str = "",
    output_dir: str | Path | None = None,
    progress: Callable[[Record], None] | None = None,
    **evidence: Any,
) -> Subject:
    """Attack a model and return the subject of an audit of what comes out.

    Args:
        victim: The model; a `ModelVictim` is audited with gradients too.
        examples: What the sample is drawn from.
        attacks: Text attacks of the claim.
        num_examples: Size of the sample.
        query_budget: Most queries per example.
        seed: Of sample and attacks.
        model: Its name.
        data: Name of the data.
        output_dir: Where records and report are written, if anywhere.
        progress: Told every record.
        evidence: Further fields of `Subject`, such as `train_texts` or `twin`.
    """
    config = EvaluationConfig(
        attacks=attacks, num_examples=num_examples, query_budget=query_budget, seed=seed
    )
    report = evaluate_attacks(
        victim, examples, config, output_dir, progress, model=model, data=data
    )
    sampled = {record.id for record in report.records}
    return Subject(
        model=model,
        victim=victim,
        examples=[example for example in examples if example.id in sampled],
        attacks=config.build(),
        budgets=dict.fromkeys(report.attacks, query_budget),
        seed=seed,
        records=report.records,
        report=report,
        **_access(victim),
        **evidence,
    )


def subject_of_run(
    run: str | Path | Results,
    victim: Victim | None = None,
    *,
    editable: Sequence[int] | None = None,
    **evidence: Any,
) -> Subject:
    """Return the subject of an audit of a finished evaluation.

    Examples and attacks are those of its records and report; the gradient attack is the one behind
    the lowest figure in embedding space.

    Args:
        run: The directory of the evaluation, or its results.
        victim: The model; the one in `model` in the directory, or the one the report names, by
            default.
        editable: Columns the attacks edited; all by default.
        evidence: Further fields of `Subject`.

    Raises:
        DataError: No report or records, or attacks this version does not have.
        UnsupportedModelError: A model that cannot be loaded.
    """
    results = run if isinstance(run, Results) else load_results(run)
    if victim is None:
        inside = Path(results.source) / "model"
        victim = ModelVictim.load(inside if inside.is_dir() else results.report.model)
    report = results.report
    texts, labels = results.texts, results.labels
    names = list(texts)
    if not names:
        raise DataError(
            results.source or "results",
            got="no records",
            expected="an evaluation with an attack",
            fix="attack the model first, with `textadv evaluate`",
        )
    examples = make_examples(
        [texts[name] for name in names],
        [labels[name] for name in names],
        ids=names,
        editable=editable,
    )
    return Subject(
        model=results.name,
        victim=victim,
        examples=examples,
        attacks={name: _rebuilt(name, attack.config) for name, attack in _ordered(report).items()},
        budgets={name: attack.query_budget for name, attack in report.attacks.items()},
        seed=report.seed,
        records=results.records,
        report=report,
        **{"perturbation": _claimed(report), **_access(victim), **evidence},
    )


def _access(victim: Victim) -> dict[str, Any]:
    """Return what a differentiable model adds to a subject."""
    if not isinstance(victim, ModelVictim) or victim.output is not None:
        return {}
    return {
        "port": EmbeddingPort(victim.model, victim.tokenizer),
        "tokenizer": victim.tokenizer,
        "max_length": victim.max_length,
    }


def _claimed(report: RobustnessReport) -> Perturbation:
    """Return the gradient attack behind the lowest figure in embedding space."""
    rows = [
        row
        for row in report.embedding.values()
        if row.get("name") in PERTURBATIONS and row.get("epsilon") and row.get("num_steps", 1) > 1
    ]
    if not rows:
        return GRADIENT_ATTACK
    row = min(rows, key=lambda one: float(one["accuracy"]))
    kind = PERTURBATIONS[row["name"]]
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    fields = {name: value for name, value in row.items() if name in known}
    if report.cascade is not None:
        # Its own climb follows the margin and keeps every iterate; this one is no stronger.
        fields |= {"loss": "margin", "restarts": 1}
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise DataError(
            "report.json: embedding", got=shown(dict(row), 200), expected=f"settings of {kind}"
        ) from error


def _ordered(report: RobustnessReport) -> dict[str, Any]:
    """Return the attacks, those tried on every example first: these are run again."""
    return dict(
        sorted(
            report.attacks.items(), key=lambda item: item[1].reasons.get("flipped_earlier", 0) > 0
        )
    )


def _rebuilt(name: str, config: Mapping[str, Any]) -> Attack:
    """Return an attack from the configuration a report holds."""
    fields = dict(config)
    kind = fields.pop("class", None)
    found = next((one for one in ATTACKS.values() if one.__name__ == kind), None)
    if found is None:
        raise DataError(
            f"report.json: attacks.{shown(name)[1:-1]}",
            got=f"class {shown(kind)}",
            expected="an attack of this version",
            fix="audit it with the textadv that made it",
        )
    known = {field.name for field in dataclasses.fields(found)}
    attack: Attack = found(**{key: value for key, value in fields.items() if key in known})
    return attack
