"""Rules about text attacks: did they try, did they count, and do their successes hold?"""

from __future__ import annotations

from textadv.attacks.constraints import attackable
from textadv.audit.ball_rules import temperature
from textadv.audit.finding import NotRunnableError, Outcome
from textadv.audit.model_rules import Result
from textadv.audit.probe import Probe
from textadv.audit.texts import Blind, Scaled, TextProbe, lattice
from textadv.audit.thresholds import LEAST_COUNT, grade
from textadv.ball import margins
from textadv.errors import UnsupportedModelError
from textadv.words import Words

__all__ = [
    "coverage",
    "guided",
    "outcomes_repeat",
    "queries_counted",
    "query_ladder",
    "replay",
    "scale_invariant",
    "visible",
]

SCALES = (0.2, 5.0)
PLACES = 6
HIDDEN = 0.01
RANK: dict[Outcome, int] = {"PASS": 0, "FLAG": 1, "INCONCLUSIVE": 1, "FAIL": 2}


def scale_invariant(probe: Probe) -> Result:
    """A11: scaling the logits changes nothing, for attacks on texts and on embeddings."""
    parts: list[Result] = []
    if probe.subject.port is not None:
        count, scale = temperature(probe)
        share = count / probe.n
        figure = f"at temperature {scale:.2g} {count} more texts break in embedding space"
        parts.append((grade("A11", share, count), figure, share))
    if probe.subject.attacks:
        texts = TextProbe.of(probe)
        own = texts.standing(probe.subject.victim)
        scales = [*SCALES, 1 / _median_margin(probe)]
        others = [texts.standing(Scaled(probe.subject.victim, factor)) for factor in scales]
        change = max(abs(other - own) for other in others)
        n = len(texts.examples)
        listed = ", ".join(f"{k} at logits x{f:.2g}" for k, f in zip(others, scales, strict=True))
        figure = f"of {n} texts {own} stand under {texts.name}, {listed}"
        parts.append((grade("A11", change / max(n, 1), change), figure, change / max(n, 1)))
    if not parts:
        raise NotRunnableError("neither embeddings nor text attacks")
    outcome = max((part[0] for part in parts), key=lambda one: RANK[one])
    value = max(part[2] or 0.0 for part in parts)
    return outcome, "; ".join(part[1] for part in parts), value


def _median_margin(probe: Probe) -> float:
    return float(margins(probe.victim_logits, probe.labels).abs().median()) or 1.0


def guided(probe: Probe) -> Result:
    """A17: the search does no worse than the same one guided by random scores."""
    texts = TextProbe.of(probe)
    own = texts.standing(probe.subject.victim)
    blind = texts.standing(Blind(probe.subject.victim, probe.config.seed))
    n = max(len(texts.examples), 1)
    worse = max(own - blind, 0)
    figure = f"of {n} texts {own} stand under {texts.name}, {blind} under the same without scores"
    return grade("A17", worse / n, worse), figure, worse / n


def query_ladder(probe: Probe) -> Result:
    """A18: four times the queries flip hardly more."""
    texts = TextProbe.of(probe)
    if texts.budget is None:
        return "PASS", f"{texts.name} ran without a limit", 0.0
    budgets = [max(1, texts.budget // 4), texts.budget, 4 * texts.budget]
    n = max(len(texts.examples), 1)
    standing = []
    for budget in budgets:
        records = texts.run(probe.subject.victim, budget=budget)
        standing.append(sum(record.status != "flipped" for record in records))
    fall = standing[1] - standing[2]
    shown = ", ".join(f"{s} at {b}" for s, b in zip(standing, budgets, strict=True))
    figure = f"of {n} texts stand {shown} queries"
    return grade("A18", fall / n, fall), figure, fall / n


def coverage(probe: Probe) -> Result:
    """A19: most words, or for attacks that cannot say which, most texts have something to try."""
    shares: list[tuple[float, str]] = []
    for name in probe.subject.attacks:
        texts = TextProbe.of(probe, name)
        try:
            have, total, what = _covered(texts)
        except UnsupportedModelError:
            continue  # It asks for gradients, which the self-test's victim does not have.
        words = f"{have} of {total} {what} have candidates under {name}"
        shares.append((have / max(total, 1), words))
    if not shares:
        raise NotRunnableError("no text attack whose candidates can be counted")
    least, figure = min(shares)
    if len(shares) > 1:
        figure += f", the fewest of {len(shares)} attacks"
    return grade("A19", least), figure, least


def _covered(texts: TextProbe) -> tuple[int, int, str]:
    """Return how many words, or texts, have candidates, of how many."""
    words = [(attackable(one.words), lattice(texts.attack, one.words)) for one in texts.sample]
    if words and all(found is not None for _, found in words):
        total = sum(len(positions) for positions, _ in words)
        have = sum(sum(at in (found or ()) for at in positions) for positions, found in words)
        return have, total, "words"
    records = texts.fragile
    have = sum(r.num_queries > 1 and r.reason != "no_candidates" for r in records)
    return have, len(records), "texts"


def replay(probe: Probe) -> Result:
    """A21: every success, asked again alone from its text, is a success."""
    flipped = [r for r in probe.subject.records if r.adversarial_text is not None]
    if not flipped:
        return "PASS", "no success to replay", 0.0
    failed = 0
    for record in flipped[: 10 * probe.config.num_texts]:
        text = record.adversarial_text or record.text
        predicted = int(probe.subject.victim.logits([text]).argmax())
        answers = [predicted]
        if probe.subject.port is not None:
            answers.append(_differentiable(probe, record.label, text))
        failed += any(
            answer == record.label or answer != record.adversarial_prediction for answer in answers
        )
    n = min(len(flipped), 10 * probe.config.num_texts)
    figure = f"{n - failed} of {n} successes repeat"
    return grade("A21", failed / n, failed), figure, failed / n


def _differentiable(probe: Probe, label: int, text: tuple[str, ...]) -> int:
    """Return the prediction for one text by the model itself, past every cache."""
    import torch

    from textadv.attacks.base import Example

    encoded = probe.encode([Example(id="replay", words=Words.of(text), label=label)])
    with torch.no_grad():
        return int(probe.port.logits(encoded.batch([0], probe.port.device), inner=True).argmax())


def visible(probe: Probe) -> Result:
    """A22: the model reads the words that were edited."""
    survivors = {record.id for record in probe.subject.records if record.status == "survived"}
    examples = probe.examples[: 5 * probe.config.num_texts]
    words = [word for example in examples for word in example.words.words]
    cut, hidden = 0, 0
    for number, example in enumerate(examples):
        positions = example.words.editable_positions
        if len(positions) < 2:
            continue
        step = max(1, len(positions) // PLACES)
        chosen = list(dict.fromkeys([*positions[::step], positions[-1]]))
        others = [words[(number * 37 + offset) % len(words)] for offset in (11, 101, 503)]
        changed = [
            variant.texts
            for at in chosen
            for variant in (
                example.words.delete(at),
                *(example.words.replace(at, other) for other in others),
            )
        ]
        found = probe.subject.victim.logits([example.words.texts, *changed])
        same = (found[1:] == found[0]).all(1).view(len(chosen), -1).all(1).tolist()
        cut += same[-1]
        hidden += sum(same) > len(same) / 2 and example.id in survivors
    n = max(len(examples), 1)
    figure = f"the end of {cut} of {n} texts changes nothing; {hidden} survivors hardly show"
    outcome: Outcome = "PASS" if grade("A22", cut / n, cut) == "PASS" else "FLAG"
    if hidden / n > HIDDEN and hidden >= LEAST_COUNT:
        outcome = "FAIL"
    return outcome, figure, cut / n


def queries_counted(probe: Probe) -> Result:
    """A29: the claim counts every text that the model was asked about."""
    texts = TextProbe.of(probe)
    records, seen = texts.again
    claimed = {r.id: r for r in probe.subject.records if r.attack == texts.name}
    total, missing = 0, 0
    for record, distinct in zip(records, seen, strict=True):
        own = claimed.get(record.id, record)
        # The replay of a success may be one more text that no search asked about.
        asked = distinct - (record.status == "flipped")
        fewer = record.num_queries - own.num_queries if own.status == record.status else 0
        missing += max(0, asked - own.num_unique_queries, fewer)
        total += max(asked, record.num_queries, 1)
    share = missing / max(total, 1)
    figure = f"{missing} of {total} queries of {len(records)} searches are not counted"
    return grade("A29", share), figure, share


def outcomes_repeat(probe: Probe) -> Result:
    """A30: run again, the attack ends the same."""
    texts = TextProbe.of(probe)
    records, _ = texts.again
    claimed = {r.id: r.status for r in probe.subject.records if r.attack == texts.name}
    both = [(record.status, claimed[record.id]) for record in records if record.id in claimed]
    if not both:
        raise NotRunnableError("no records of the claim")
    changed = sum(new != old for new, old in both)
    figure = f"{len(both) - changed} of {len(both)} outcomes of {texts.name} repeat"
    return grade("A30", changed / len(both), changed), figure, changed / len(both)
