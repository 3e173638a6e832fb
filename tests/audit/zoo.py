"""Honest models, and planted flaws with the rule that must catch each, in two halves."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable

from tests.audit import flaws
from tests.audit.flaws import attacked_by, with_attack
from tests.audit.toys import (
    OTHER,
    examples,
    flawed,
    flawed_net,
    honest,
    subject,
    trained,
    victim_of,
)
from textadv.audit import Subject
from textadv.perturb import PGD


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A subject, and for a planted flaw the rule that must catch it."""

    name: str
    make: Callable[[], Subject]
    rule: str = ""


# Honest models: kinds, numbers of classes, seeds, with and without adversarial training.

HONEST = [
    Specimen(f"{kind}-{classes}{'-robust' if robust else ''}-{seed}", functools.partial(
        lambda kind, classes, seed, robust: subject(
            trained(kind, classes, seed, robust=robust), classes=classes
        ),
        kind, classes, seed, robust,
    ))
    for kind, classes, seed, robust in [
        ("mean", 2, 0, False),
        ("mean", 2, 1, True),
        ("max", 2, 2, False),
        ("convolution", 2, 3, False),
        ("gru", 2, 4, False),
        ("gru", 3, 5, True),
        ("mean", 3, 6, True),
        ("convolution", 3, 7, True),
        ("max", 3, 12, False),
        ("bert", 2, 8, False),
        ("distilbert", 2, 9, False),
        ("roberta", 3, 10, False),
    ]
]  # fmt: skip

CROSS_ENTROPY = PGD(epsilon=0.3, num_steps=20)
SATURATED = functools.partial(flawed, "saturated", perturbation=CROSS_ENTROPY)

# At least two for each rule: the first is in the calibration half, the second in the other.
FLAWS = [
    Specimen("dropout left on", lambda: flawed("dropout"), "A1"),
    Specimen("padding is read", lambda: flawed("padding"), "A1"),
    Specimen("probabilities", lambda: flawed("probabilities"), "A2"),
    Specimen("probabilities of three classes", lambda: flawed("probabilities", other=True), "A2"),
    Specimen("constant model", lambda: flawed("constant"), "A3"),
    Specimen(
        "collapsed in adversarial training",
        lambda: subject(trained("distilbert", 2, 9, robust=True)),
        "A3",
    ),
    Specimen("rounded embeddings", lambda: flawed("rounded"), "A4"),
    Specimen("detached graph", lambda: flawed("detached", other=True), "A4"),
    Specimen("no-op attack", lambda: attacked_by(flaws.Idle), "A5"),
    Specimen("padding only", lambda: attacked_by(flaws.OnPadding, other=True), "A5"),
    Specimen("tiny steps", lambda: attacked_by(PGD, step_size=1e-4), "A5"),
    Specimen("outside the ball", lambda: attacked_by(flaws.TooFar, other=True), "A5"),
    Specimen("no-op attack without a bound", lambda: attacked_by(flaws.Idle), "A6"),
    Specimen("no-op on some texts", lambda: attacked_by(flaws.IdleOnSome, other=True), "A6"),
    Specimen("wrong sign", lambda: attacked_by(flaws.Descend), "A7"),
    Specimen("random directions", lambda: attacked_by(flaws.Stray, other=True), "A7"),
    Specimen("gradients dead, seen by search", lambda: flawed("rounded"), "A8"),
    Specimen("graph detached, seen by search", lambda: flawed("detached", other=True), "A8"),
    Specimen("gradients dead, seen by transfer", lambda: flawed("rounded"), "A9"),
    Specimen("graph detached, seen by transfer", lambda: flawed("detached", other=True), "A9"),
    Specimen("saturated logits", lambda: SATURATED(), "A10"),
    Specimen("saturated logits of three classes", lambda: SATURATED(other=True), "A10"),
    Specimen("saturated logits, seen by temperature", lambda: SATURATED(), "A11"),
    Specimen(
        "logits scaled under a search by probabilities",
        lambda: with_attack(flaws.ByProbability(), flawed_net("scaled")),
        "A11",
    ),
    Specimen("weak in large balls", lambda: attacked_by(flaws.Shy, limit=2.0), "A12"),
    Specimen("weak in larger balls", lambda: attacked_by(flaws.Shy, limit=9.0, other=True), "A12"),
    Specimen("too few steps", lambda: attacked_by(PGD, num_steps=2, step_size=0.06), "A13"),
    Specimen(
        "too short steps", lambda: attacked_by(PGD, num_steps=4, step_size=0.04, other=True), "A13"
    ),
    Specimen("last iterate kept", lambda: attacked_by(flaws.Overshoot), "A14"),
    Specimen("a third of it returned", lambda: attacked_by(flaws.Shrink, other=True), "A14"),
    Specimen("headline is the best case", flaws.best_case, "A15"),
    Specimen("one flip forgotten", flaws.one_flip_forgotten, "A15"),
    Specimen("wrong sign, seen by the self-test", lambda: attacked_by(flaws.Descend), "A16"),
    Specimen(
        "no candidates, seen by the self-test", lambda: with_attack(flaws.NoCandidates()), "A16"
    ),
    Specimen("search goes backwards", lambda: with_attack(flaws.Backwards()), "A17"),
    Specimen(
        "search goes backwards, robust model",
        lambda: with_attack(flaws.Backwards(), trained("mean", 2, 1, robust=True)),
        "A17",
    ),
    Specimen("small query budget", lambda: subject(query_budget=12), "A18"),
    Specimen(
        "small query budget, three classes",
        lambda: subject(trained(**OTHER), classes=3, query_budget=14),
        "A18",
    ),
    Specimen("no candidates", lambda: with_attack(flaws.NoCandidates()), "A19"),
    Specimen("few candidates", lambda: with_attack(flaws.FewCandidates(), other=True), "A19"),
    Specimen("constraint accepts all", lambda: with_attack(flaws.Unchecked()), "A20"),
    Specimen(
        "words that are no candidates",
        lambda: with_attack(flaws.OffTheLattice(), other=True),
        "A20",
    ),
    Specimen("cached scores of another model", flaws.another_models_records, "A21"),
    Specimen(
        "some scores of another model", lambda: flaws.another_models_records(share=0.4), "A21"
    ),
    Specimen("truncation", lambda: subject(victim=flaws.Short(victim_of(trained()), 3)), "A22"),
    Specimen(
        "truncation of three classes",
        lambda: subject(
            trained(**OTHER), classes=3, victim=flaws.Short(victim_of(trained(**OTHER)), 4)
        ),
        "A22",
    ),
    Specimen("contaminated test set", lambda: flaws.contaminated(20), "A23"),
    Specimen("few examples leaked", lambda: flaws.contaminated(4, other=True), "A23"),
    Specimen("static set", flaws.static_set, "A24"),
    Specimen("partly a static set", lambda: flaws.static_set(5, other=True), "A24"),
    Specimen("errors", lambda: subject(victim=flaws.Failing(victim_of(trained()), "story")), "A25"),
    Specimen(
        "errors of three classes",
        lambda: subject(
            trained(**OTHER),
            classes=3,
            victim=flaws.Failing(victim_of(trained(**OTHER)), "superb"),
        ),
        "A25",
    ),
    Specimen("too few examples", lambda: subject(examples=examples(count=40)), "A26"),
    Specimen(
        "hardly enough examples",
        lambda: subject(trained(**OTHER), classes=3, examples=examples(3, 90)),
        "A26",
    ),
    Specimen(
        "invalid successes",
        lambda: dataclasses.replace(honest(), ratings=[True] * 15 + [False] * 45),
        "A27",
    ),
    Specimen(
        "as many invalid successes as valid ones",
        lambda: dataclasses.replace(honest(other=True), ratings=[True, False] * 30),
        "A27",
    ),
    Specimen("autograd in the forward pass", lambda: flawed("autograd"), "A28"),
    Specimen("random numbers in the forward pass", lambda: flawed("noise", other=True), "A28"),
    Specimen("queries not counted", lambda: flaws.fewer_queries(1 / 3), "A29"),
    Specimen("some queries not counted", lambda: flaws.fewer_queries(0.9, other=True), "A29"),
    Specimen("outcomes of another model", flaws.another_models_records, "A30"),
    Specimen("an attack without a seed", flaws.unseeded, "A30"),
]


def halves() -> tuple[list[Specimen], list[Specimen]]:
    """Return the flaws to calibrate with, and those to confirm with, by turns for each rule."""
    seen: Counter[str] = Counter()
    parts: tuple[list[Specimen], list[Specimen]] = ([], [])
    for flaw in FLAWS:
        parts[seen[flaw.rule] % 2].append(flaw)
        seen[flaw.rule] += 1
    return parts
