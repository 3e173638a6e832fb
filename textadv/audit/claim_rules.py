"""Rules about the claim: is it the worst case, on clean data, of enough examples, valid?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textadv.attacks.base import Attack, attack_config
from textadv.attacks.constraints import levenshtein
from textadv.attacks.records import Record
from textadv.audit.finding import NotRunnableError
from textadv.audit.model_rules import Result
from textadv.audit.probe import Probe
from textadv.audit.texts import lattice
from textadv.audit.thresholds import LEAST_COUNT, grade
from textadv.diff import edit_distance
from textadv.errors import shown
from textadv.metrics import wilson_interval, worst_case
from textadv.words import Words

__all__ = [
    "constraints",
    "contamination",
    "enough",
    "searched",
    "unresolved",
    "validity",
    "worst_case_claimed",
]

SHINGLE = 5
NEAR = 0.8
LEAST_RATINGS = 50


def worst_case_claimed(probe: Probe) -> Result:
    """A15: the claim is the worst case of each example over all attacks, and follows from them."""
    results = probe.subject.results
    report = results.report
    n = report.num_examples
    wrong = []
    for name, result in report.attacks.items():
        statuses = [record.status for record in results.outcomes(name)]
        if len(statuses) != n or sum(result.counts.values()) != n:
            wrong.append(f"{name} has {len(statuses)} outcomes of {n} examples")
            continue
        stated, found = round(result.accuracy_under_attack * n), statuses.count("survived")
        if stated != found:
            wrong.append(f"{name} states {stated} survivors, its records {found}")
    claimed: dict[str, tuple[Sequence[str], float]] = {}
    if report.worst_case:
        claimed["worst case"] = (report.worst_case["attacks"], report.worst_case["accuracy"])
    if report.cascade:
        main = report.cascade["headline"]
        claimed["headline"] = (main["attacks"], main["accuracy"])
    for name, (attacks, accuracy) in claimed.items():
        together: dict[str, list[Any]] = {}
        for record in probe.subject.records:
            if record.attack in attacks:
                together.setdefault(record.id, []).append(record.status)
        standing = sum(worst_case(statuses) == "survived" for statuses in together.values())
        if round(accuracy * n) != standing:
            wrong.append(f"the {name} states {round(accuracy * n)} survivors, records {standing}")
    if len(report.attacks) > 1 and not claimed:
        wrong.append("no worst case over several attacks")
    if wrong:
        return "FAIL", "; ".join(wrong), float(len(wrong))
    named = f"{len(report.attacks)} attack{'s' * (len(report.attacks) != 1)}"
    return "PASS", f"the figures of {named} and the worst case follow from the records", 0.0


def constraints(probe: Probe) -> Result:
    """A20: every success keeps the limits its attack states, checked on the final text."""
    breaches, total, first = 0, 0, ""
    for record in probe.subject.records:
        attack = probe.subject.attacks.get(record.attack)
        if attack is None or record.adversarial_text is None:
            continue
        total += 1
        found = list(_breaches(record, attack))
        breaches += bool(found)
        first = first or (f", such as {record.id}: {found[0]}" if found else "")
    figure = f"{breaches} of {total} successes break a limit{first}"
    return grade("A20", breaches / max(total, 1)), figure, breaches / max(total, 1)


def _breaches(record: Record, attack: Attack) -> list[str]:
    config, found = attack_config(attack), []
    if record.adversarial_text == record.text:
        found.append("the text is unchanged")
    for field, check in LIMITS.items():
        limit = config.get(field)
        if limit is not None and (problem := check(record, limit, config)):
            found.append(problem)
    return found + _strangers(record, attack)


def _strangers(record: Record, attack: Attack) -> list[str]:
    """Return replacements that are not among the candidates the attack has for the word."""
    before, after = Words.of(record.text), Words.of(record.adversarial_text or ())
    candidates = lattice(attack, before)
    if candidates is None or len(before) != len(after):
        return []
    return [
        f"{shown(new)} is no candidate for {shown(old)}"
        for at, (old, new) in enumerate(zip(before.words, after.words, strict=True))
        if old != new and new not in candidates.get(at, ())
    ]


def _distance(record: Record, limit: Any, config: Mapping[str, Any]) -> str:
    pairs = list(zip(record.text, record.adversarial_text or (), strict=True))
    # The cheap bound first: the exact distance of whole texts is slow and never larger.
    if sum(edit_distance(*pair) for pair in pairs) <= limit:
        return ""
    size = sum(levenshtein(*pair) for pair in pairs)
    return f"edit distance {size} above {limit}" if size > limit else ""


def _rate(record: Record, limit: Any, config: Mapping[str, Any]) -> str:
    most = max(math.ceil(limit * record.num_words), config.get("min_modified") or 0)
    gone = Counter(" ".join(record.text).split())
    gone.subtract(" ".join(record.adversarial_text or ()).split())
    # A changed word takes at most two stretches of text between blanks with it.
    changed = max(record.num_modified_words, sum(n for n in gone.values() if n > 0) // 2)
    return f"{changed} words changed, {most} allowed" if changed > most else ""


LIMITS: dict[str, Callable[[Record, Any, Mapping[str, Any]], str]] = {
    "max_distance": _distance,
    "max_rate": _rate,
}
"""How a stated limit is checked on a record, by the attack's field."""


def contamination(probe: Probe) -> Result:
    """A23: the examples are not in the training data, and did not choose the model."""
    if probe.subject.selected_on_sample:
        return "FAIL", "the model was selected by its figures on this sample", 1.0
    if probe.subject.train_texts is None:
        raise NotRunnableError("no training texts were given")
    seen = {_normal(text) for text in probe.subject.train_texts}
    shingles = {one for text in probe.subject.train_texts for one in _shingles(text)}
    same, near = 0, 0
    for example in probe.subject.examples:
        text = " ".join(example.words.texts)
        if _normal(text) in seen:
            same += 1
            continue
        own = _shingles(text)
        near += bool(own) and len(own & shingles) / len(own) >= NEAR
    n = len(probe.subject.examples)
    figure = f"{same} of {n} examples are training texts, {near} more nearly"
    outcome = grade("A23", same / n, same)
    if outcome == "PASS" and near:
        outcome = "FLAG"
    return outcome, figure, same / n


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _shingles(text: str) -> set[str]:
    words = _normal(text).split()
    return {" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)}


def searched(probe: Probe) -> Result:
    """A24: the successes come of searches on this model, not of a set made for another."""
    flipped = [r for r in probe.subject.records if r.adversarial_text is not None]
    foreign = sum(record.num_queries <= 1 for record in flipped)
    share = foreign / max(len(flipped), 1)
    return grade("A24", share), f"{foreign} of {len(flipped)} successes took no query", share


def unresolved(probe: Probe) -> Result:
    """A25: no example ended in an error; those without candidates are counted by A19."""
    records = probe.subject.records
    if not records:
        raise NotRunnableError("no records of a text attack")
    failed = {r.id for r in records if r.status == "unresolved" and r.reason != "no_candidates"}
    n = len({record.id for record in records})
    figure = f"{len(failed)} of {n} examples ended without a result"
    return grade("A25", len(failed) / n, len(failed)), figure, len(failed) / n


def enough(probe: Probe) -> Result:
    """A26: there are enough examples for the claim."""
    report = probe.subject.report
    n = report.num_examples if report is not None else len(probe.subject.examples)
    survived = round((report.worst_case or {}).get("accuracy", 0) * n) if report else 0
    low, high = wilson_interval(survived, n)
    width = f", its 95 % interval is {100 * (high - low):.1f} points wide" if report else ""
    return grade("A26", n), f"{n} examples{width}", float(n)


def validity(probe: Probe) -> Result:
    """A27: people agree that the successes keep their label."""
    ratings = probe.subject.ratings
    if ratings is None:
        return "FLAG", "unvalidated: no ratings were given", None
    if len(ratings) < LEAST_RATINGS:
        return "FLAG", f"{len(ratings)} ratings, {LEAST_RATINGS} are needed", None
    valid = sum(map(bool, ratings))
    low, _ = wilson_interval(valid, len(ratings))
    figure = f"{valid} of {len(ratings)} successes keep their label, at least {100 * low:.0f} %"
    return grade("A27", low, LEAST_COUNT), figure, low
