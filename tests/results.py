"""Finished evaluations made from toy models, or straight from outcomes."""

from __future__ import annotations

import random
from typing import Any

from tests.oracles import toy
from textadv.attacks import Record
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.metrics import outcome_counts, wilson_interval, worst_case
from textadv.report import AttackResult, RobustnessReport
from textadv.results import Results


def made(outcomes: dict[str, list[str]], *, model: str = "m", **fields: Any) -> Results:
    """Return results with the statuses given for each attack, example by example."""
    records, attacks = [], {}
    n = len(next(iter(outcomes.values())))
    for name, statuses in outcomes.items():
        counts = outcome_counts(statuses, n)
        for row, status in enumerate(statuses):
            records.append(
                Record(
                    id=f"id-{row:04}",
                    attack=name,
                    status=status,
                    label=row % 2,
                    prediction=1 - row % 2 if status == "wrong_before" else row % 2,
                    text=(f"text number {row} of many",),
                    adversarial_text=(f"test number {row} of many",)
                    if status == "flipped"
                    else None,
                    adversarial_prediction=1 - row % 2 if status == "flipped" else None,
                    num_queries=10 + row % 7,
                    num_words=5,
                    num_modified_words=int(status == "flipped"),
                )
            )
        attacks[name] = AttackResult(
            accuracy_under_attack=counts["survived"] / n,
            interval=wilson_interval(counts["survived"], n),
            attack_success_rate=0.5,
            mean_queries=12.0,
            median_queries=12.0,
            query_budget=100,
            counts=counts,
            config_hash=name,
        )
    worst = [worst_case(row) for row in zip(*outcomes.values(), strict=True)]
    counts = outcome_counts(worst, n)
    right = sum(status != "wrong_before" for status in next(iter(outcomes.values())))
    report = RobustnessReport(
        **{
            "model": model,
            "data": "toy",
            "num_examples": n,
            "seed": 0,
            "clean_accuracy": right / n,
            "clean_interval": wilson_interval(right, n),
            "attacks": attacks,
            "data_hash": "d",
            "worst_case": {
                "accuracy": counts["survived"] / n,
                "interval": list(wilson_interval(counts["survived"], n)),
                "counts": counts,
                "attacks": list(outcomes),
            },
            **fields,
        }
    )
    return Results(report=report, records=tuple(records), source=model)


def statuses(n: int, *, clean: float = 0.9, flip: float = 0.5, seed: int = 0) -> list[str]:
    """Draw outcomes: each example is hard or easy in the same way whatever the seed."""
    source = random.Random(f"outcomes-{seed}")
    found = []
    for row in range(n):
        if random.Random(row).random() > clean:
            found.append("wrong_before")
        else:
            hard = random.Random(row + 10**6).random()
            chance = min(1.0, max(0.0, flip + 0.8 * (hard - 0.5)))
            found.append("flipped" if source.random() < chance else "survived")
    return found


def toy_results(seed: int = 0, n: int = 100, **fields: Any) -> Results:
    """Attack the toy model; the seed is that of the attack's typos."""
    config = EvaluationConfig(
        attacks=["deepwordbug"], num_examples=n, query_budget=40, seed=seed, **fields
    )
    report = evaluate_attacks(toy.victim(), toy.examples(n), config, model="toy", data="toy")
    return Results(report=report, records=report.records)
