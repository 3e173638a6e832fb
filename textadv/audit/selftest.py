"""Victims on which the right answer is known, to test the attacks before the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from textadv.audit.finding import NotRunnableError
from textadv.audit.model_rules import Result
from textadv.audit.probe import Probe
from textadv.audit.texts import TextProbe
from textadv.audit.thresholds import grade
from textadv.ball import margins
from textadv.embeddings import EmbeddingPort
from textadv.errors import UnsupportedModelError
from textadv.norms import Norm
from textadv.seeding import torch_generator

__all__ = ["MeanLinear", "self_test"]

TEXTS, LENGTH = 64, 8
DUAL: dict[Norm, float] = {"l2": 2.0, "linf": 1.0, "l1": torch.inf}
NEAR = 0.03
LEAST_BROKEN = 0.95


class MeanLinear(nn.Module):
    """Two logits, linear in the mean embedding, so that every optimum has a closed form.

    The margin `m` of a text of T tokens falls by at most `epsilon * ||w||_dual * T^(1/p) / T`,
    where p = 2, infinity, 1 turns T^(1/p) into the dual of the mean: sqrt(T) / T for l2, 1 for
    linf, 1 / T for l1.
    """

    def __init__(self, dim: int = 8, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.word = nn.Embedding(64, dim)
        self.head = nn.Linear(dim, 2, bias=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        config: Any = SimpleNamespace(
            problem_type="single_label_classification",
            num_labels=2,
            vocab_size=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            model_type="mean-linear",
        )
        config.get_text_config = lambda: config
        self.config = config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Return an object with `logits` (B, 2)."""
        weights = attention_mask.float() / attention_mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.head((self.word(input_ids) * weights[..., None]).sum(1)))

    def reach(self, epsilon: float, norm: Norm, length: int) -> float:
        """Return how far the margin can fall in a ball around a text of `length` tokens."""
        push = (self.head.weight[0] - self.head.weight[1]).detach()
        size = float(torch.linalg.vector_norm(push, DUAL[norm]))
        spread = {"l2": length**-0.5, "linf": 1.0, "l1": 1.0 / length}[norm]
        return epsilon * size * spread


def self_test(probe: Probe) -> Result:
    """A16: the attacks win where they must, and never where they cannot."""
    parts: list[str] = []
    impossible, missed_share = 0, 0.0
    if probe.subject.port is not None:
        impossible, missed, total = _gradient_attack(probe)
        missed_share = missed / max(total, 1)
        parts.append(
            f"the gradient attack misses {missed} of {total} certain wins on a linear model and "
            f"claims {impossible} impossible ones"
        )
    missing, tested = [], 0
    for name in probe.subject.attacks:
        try:
            records = TextProbe.of(probe, name).fragile
        except UnsupportedModelError:
            continue  # It asks for gradients, which this victim does not have.
        tried = [record for record in records if record.reason != "no_candidates"]
        broken = sum(record.status == "flipped" for record in tried)
        tested += 1
        if not tried or broken / len(tried) < LEAST_BROKEN:
            missing.append(f"{name} flips {broken} of {len(records)} texts that any change flips")
            missed_share = max(missed_share, 1 - broken / max(len(tried), 1))
    if missing:
        parts += missing
    elif tested:
        who = "the text attack" if tested == 1 else f"each of {tested} text attacks"
        parts.append(f"{who} flips what any change flips")
    if not parts:
        raise NotRunnableError("no attack is part of the claim")
    outcome = "FAIL" if impossible else grade("A16", missed_share)
    return outcome, "; ".join(parts), missed_share


def _gradient_attack(probe: Probe) -> tuple[int, int, int]:
    """Return impossible wins, certain wins that were missed, and certain wins."""
    attack = probe.subject.perturbation
    norm: Norm = getattr(attack, "norm", "l2")
    if attack.scope != "sequence":
        raise NotRunnableError("the closed form is that of a radius per text")
    model = MeanLinear()
    port = EmbeddingPort(model)
    stream = torch_generator("cpu", probe.config.seed, "self-test")
    ids = torch.randint(3, 64, (TEXTS, LENGTH), generator=stream)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "special_tokens_mask": torch.zeros_like(ids),
    }
    logits = port.logits(batch).detach()
    batch["labels"] = logits.argmax(1)
    clean = margins(logits, batch["labels"])
    epsilon = float(clean.median()) / model.reach(1.0, norm, LENGTH)
    delta = probe.at_radius(attack, epsilon)(port, batch, generator=stream)
    with torch.no_grad():
        broken = margins(port.logits(batch, delta, inner=True), batch["labels"]) <= 0
    # l1 climbs one entry a step and may stop short of the corner.
    possible = clean <= model.reach(epsilon, norm, LENGTH) * (1 + 1e-4)
    certain = clean <= model.reach(epsilon, norm, LENGTH) * (1 - NEAR)
    impossible = int((broken & ~possible).sum())
    return impossible, int((certain & ~broken).sum()), int(certain.sum())
