"""The rules of the audit, as one table."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from textadv.audit import ball_rules, claim_rules, model_rules, selftest, text_rules
from textadv.audit.finding import AuditReport, Finding, NotRunnableError
from textadv.audit.model_rules import Result
from textadv.audit.probe import Probe
from textadv.audit.subject import AuditConfig, Subject
from textadv.errors import TextAdvError, shown, unknown_name

__all__ = ["RULES", "Rule", "audit"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule: what it checks, what to do when it does not pass, and the check."""

    title: str
    advice: str
    check: Callable[[Probe], Result]


RULES: dict[str, Rule] = {
    "A1": Rule(
        "the model answers the same",
        "Switch dropout off, check padding and caches, and evaluate in float32.",
        model_rules.stable,
    ),
    "A2": Rule(
        "outputs are logits",
        "Give the attacks logits, or wrap the model in CallableVictim(scores='probabilities').",
        model_rules.logits,
    ),
    "A3": Rule(
        "the model is not degenerate",
        "Train with a smaller radius or weight: the model hardly does better than one label.",
        model_rules.degenerate,
    ),
    "A4": Rule(
        "gradients exist",
        "Attack through the layer that stops the gradient, and climb the margin, not a saturated "
        "loss.",
        model_rules.gradients,
    ),
    "A5": Rule(
        "the radius is used",
        "Check the step size and the mask of the gradient attack.",
        ball_rules.budget_used,
    ),
    "A6": Rule(
        "no bound, no survivor",
        "The gradient attack is broken: without a bound it must break every text.",
        ball_rules.unbounded,
    ),
    "A7": Rule(
        "the attack beats noise",
        "The gradient attack does hardly more than chance: check its sign, steps and gradients.",
        ball_rules.beats_noise,
    ),
    "A8": Rule(
        "search without gradients finds nothing new",
        "Gradients are masked: report the search as an attack and find out what hides them.",
        ball_rules.search_without_gradients,
    ),
    "A9": Rule(
        "transfer finds nothing new",
        "Report the transferred attack in the worst case, and attack with more steps and starts.",
        ball_rules.transfer,
    ),
    "A10": Rule(
        "other losses find nothing new",
        "Climb the margin: the loss in use saturates.",
        ball_rules.other_losses,
    ),
    "A11": Rule(
        "the scale of the logits does not matter",
        "Search by margins, not by probabilities, and climb at a fitted temperature.",
        text_rules.scale_invariant,
    ),
    "A12": Rule(
        "accuracy falls with the radius",
        "Raise the number of steps or starts until larger radii never help the model.",
        ball_rules.with_radius,
    ),
    "A13": Rule(
        "the attack has converged",
        "Use more steps and starts for the published figure.",
        ball_rules.converged,
    ),
    "A14": Rule(
        "one step finds nothing new",
        "Keep the best iterate of each text, and lower the step size.",
        ball_rules.best_kept,
    ),
    "A15": Rule(
        "the claim is the worst case of its records",
        "Compute the figure from the records again, over all attacks together.",
        claim_rules.worst_case_claimed,
    ),
    "A16": Rule(
        "the attacks win where they must",
        "The attack itself is broken: it misses victims that are known to fall.",
        selftest.self_test,
    ),
    "A17": Rule(
        "the search is better than chance",
        "The text attack does no better without scores: check how it ranks.",
        text_rules.guided,
    ),
    "A18": Rule(
        "the query budget does not decide",
        "Raise the query budget: the figure is limited by it.",
        text_rules.query_ladder,
    ),
    "A19": Rule(
        "there are candidates",
        "Check the resources of the attack: words without candidates cannot be attacked.",
        text_rules.coverage,
    ),
    "A20": Rule(
        "successes keep the limits",
        "Fix the constraint: the final texts break what the attack states.",
        claim_rules.constraints,
    ),
    "A21": Rule(
        "successes replay",
        "Evaluate again without caches, in float32, with the model the claim is about.",
        text_rules.replay,
    ),
    "A22": Rule(
        "edits are visible to the model",
        "Raise the input length, or attack the part of the text the model reads.",
        text_rules.visible,
    ),
    "A23": Rule(
        "the examples are unseen",
        "Give the training texts, remove duplicates, and measure on examples no choice was made "
        "with.",
        claim_rules.contamination,
    ),
    "A24": Rule(
        "successes were searched on this model",
        "Call figures on texts made for another model transfer, and do not headline them.",
        claim_rules.searched,
    ),
    "A25": Rule(
        "nothing ended in an error",
        "Find out why examples ended in an error and run them again.",
        claim_rules.unresolved,
    ),
    "A26": Rule(
        "the sample is large enough",
        "Evaluate at least 500 examples for a published claim.",
        claim_rules.enough,
    ),
    "A27": Rule(
        "successes keep their label",
        "Have two people rate 50 random successes and give the ratings.",
        claim_rules.validity,
    ),
    "A28": Rule(
        "the forward pass is ordinary",
        "Attack what the model does at inference: average over its randomness, or differentiate "
        "through its inner steps.",
        model_rules.unusual_forward,
    ),
    "A29": Rule(
        "queries are counted",
        "Count every text the model is asked about, those of the ranking included.",
        text_rules.queries_counted,
    ),
    "A30": Rule(
        "outcomes repeat",
        "Fix the seed and the model's randomness: the same attack ends otherwise.",
        text_rules.outcomes_repeat,
    ),
}


def audit(
    subject: Subject,
    config: AuditConfig | None = None,
    *,
    rules: Sequence[str] | None = None,
    progress: Callable[[Finding], None] | None = None,
) -> AuditReport:
    """Try to show that a claim is wrong, rule by rule.

    Args:
        subject: What is claimed, and what it rests on.
        config: How much work to do.
        rules: Ids of `RULES`; all by default.
        progress: Told every finding.

    Returns:
        The findings. A rule that lacks what it needs, or ends in an error, is inconclusive.

    Raises:
        ConfigError: An unknown rule.
    """
    chosen = list(RULES) if rules is None else list(rules)
    for name in chosen:
        if name not in RULES:
            raise unknown_name("rule", name, RULES)
    config = config or AuditConfig()
    probe = Probe(subject, config)
    findings = []
    for name in chosen:
        findings.append(_finding(name, RULES[name], probe))
        if progress is not None:
            progress(findings[-1])
    return AuditReport(
        model=subject.model,
        num_examples=probe.n,
        findings=tuple(findings),
        settings=dataclasses.asdict(config),
    )


def _finding(name: str, rule: Rule, probe: Probe) -> Finding:
    try:
        outcome, figure, value = rule.check(probe)
    except (NotRunnableError, TextAdvError) as error:
        outcome, figure, value = "INCONCLUSIVE", f"not run: {error}", None
    except Exception as error:
        logger.warning("audit rule %s: %s", name, shown(error))
        problem = f"{type(error).__name__}: {shown(str(error), 160)[1:-1]}"
        outcome, figure, value = "INCONCLUSIVE", f"not run: {problem}", None
    return Finding(
        rule=name,
        title=rule.title,
        outcome=outcome,
        figure=figure,
        value=value,
        advice="" if outcome == "PASS" else rule.advice,
    )
