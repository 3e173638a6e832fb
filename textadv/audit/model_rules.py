"""Rules about the model alone: does it answer the same twice, and can it be differentiated?"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from textadv.audit.finding import Outcome
from textadv.audit.probe import Probe
from textadv.audit.thresholds import THRESHOLDS, grade
from textadv.ball import batches, gradient, margins
from textadv.metrics import wilson_interval
from textadv.norms import random_point
from textadv.seeding import torch_generator

__all__ = ["Result", "degenerate", "gradients", "logits", "stable", "unusual_forward"]

Result = tuple[Outcome, str, float | None]

ALONE = 16
ONE_LABEL = 0.95


def stable(probe: Probe) -> Result:
    """A1: the same text twice, alone, and with gradients on."""
    texts = [example.words.texts for example in probe.examples]
    first, second = probe.victim_logits, probe.subject.victim.logits(texts)
    alone = torch.cat([probe.subject.victim.logits([text]) for text in texts[:ALONE]])
    others = [(first, second, "twice"), (first[:ALONE], alone, "alone")]
    if probe.subject.port is not None:
        others.append((first, probe.logits, "by the differentiable model"))
        others.append((probe.logits, _with_gradients(probe), "with gradients on"))
    spread = float((first.amax(1) - first.amin(1)).median()) or 1.0
    worst, how, labels = 0.0, "", 0
    for one, other, name in others:
        change = float((one - other).abs().max()) / spread
        flips = int((one.argmax(1) != other.argmax(1)).sum())
        labels = max(labels, flips)
        if not change <= worst:
            worst, how = change, name
    figure = f"largest change of a logit {worst:.1e} of their spread"
    figure += f" ({how}); {labels} labels change" if how else f"; {labels} labels change"
    outcome = grade("A1", worst)
    if labels:
        outcome = "FLAG" if labels / probe.n <= 0.001 else "FAIL"
    return outcome, figure, worst


def _with_gradients(probe: Probe) -> Tensor:
    found = torch.empty_like(probe.logits)
    for indices, batch in batches(probe.port, probe.encoded, None, probe.config.batch_size):
        with torch.enable_grad():
            found[indices] = probe.port.logits(batch, inner=True).detach().float().cpu()
    return found


def logits(probe: Probe) -> Result:
    """A2: the outputs are logits, not probabilities."""
    found = probe.victim_logits
    sums = (found.sum(1) - 1).abs().max()
    probabilities = bool((found >= 0).all() and (found <= 1).all() and sums < 1e-3)
    if probabilities:
        return "FLAG", "rows lie in 0 to 1 and sum to 1", 1.0
    return "PASS", f"values from {found.min():.2g} to {found.max():.2g}", 0.0


def degenerate(probe: Probe) -> Result:
    """A3: the model is better than answering with one label."""
    predicted = probe.victim_logits.argmax(1)
    right = int((predicted == probe.labels).sum())
    low, _ = wilson_interval(right, probe.n)
    majority = Counter(probe.labels.tolist()).most_common(1)[0][1] / probe.n
    often = Counter(predicted.tolist()).most_common(1)[0][1] / probe.n
    figure = (
        f"accuracy {right}/{probe.n}, at least {100 * low:.1f} %; the most frequent label is "
        f"{100 * majority:.1f} % of the data and {100 * often:.1f} % of the answers"
    )
    if often > ONE_LABEL and majority <= ONE_LABEL:
        return "FAIL", figure, low - majority
    # Strictly better than the majority, or worth a flag.
    return ("PASS" if low > majority else "FLAG"), figure, low - majority


def gradients(probe: Probe) -> Result:
    """A4: the gradient is finite and not zero, at the text and at a random start."""
    zero = {"margin": 0, "cross-entropy": 0}
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "margin": lambda values, gold: -margins(values, gold),
        "cross-entropy": lambda values, gold: torch.nn.functional.cross_entropy(
            values.float(), gold, reduction="none"
        ),
    }
    right = torch.nonzero(probe.right).flatten().tolist()
    for indices, batch in batches(probe.port, probe.encoded, right, probe.config.batch_size):
        for name, loss in losses.items():
            dead = torch.zeros(len(indices), dtype=torch.bool)
            for start in _starts(probe, batch, indices[0]):
                z = start.requires_grad_()
                with probe.port.attack_mode("eval"), torch.enable_grad():
                    value = loss(probe.port.logits(batch, z, inner=True), batch["labels"])
                    size = gradient(value, z).flatten(1).abs().amax(1).cpu()
                dead |= ~(torch.isfinite(size) & (size > 0))
            zero[name] += int(dead.sum())
    share = {name: count / max(len(right), 1) for name, count in zero.items()}
    figure = f"none for {zero['margin']} of {len(right)} texts by the margin, "
    figure += f"{zero['cross-entropy']} by the cross-entropy"
    outcome = grade("A4", share["margin"])
    if outcome == "PASS" and share["cross-entropy"] > THRESHOLDS["A4"][0]:
        outcome = "FLAG"
    return outcome, figure, share["margin"]


def _starts(probe: Probe, batch: dict[str, Tensor], key: int) -> Iterator[Tensor]:
    embeds = probe.port.embed(batch)
    stream = torch_generator(probe.port.device, probe.config.seed, "gradients", key)
    yield torch.zeros_like(embeds, dtype=torch.promote_types(embeds.dtype, torch.float32))
    mask, size = probe.port.editable(batch), 0.1 * probe.token_norm
    yield random_point(embeds, mask, "normal", size, "l2", "sequence", stream)


def unusual_forward(probe: Probe) -> Result:
    """A28: a forward pass neither differentiates nor draws random numbers."""
    port = probe.port
    _, batch = next(batches(port, probe.encoded, range(min(8, probe.n))))
    state = torch.get_rng_state()
    with _watched() as calls, torch.enable_grad():
        port.logits(batch, inner=True)
    drawn = not torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(state)
    found = [name for name, yes in (("autograd", bool(calls)), ("random numbers", drawn)) if yes]
    if not found:
        return "PASS", "neither autograd nor random numbers in a forward pass", 0.0
    figure = f"a forward pass uses {' and '.join(found)}"
    return ("FLAG" if probe.subject.adaptive else "FAIL"), figure, 1.0


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Note calls of autograd while the context lasts."""
    calls: list[str] = []
    own, own_backward = torch.autograd.grad, torch.autograd.backward

    def grad(*arguments: Any, **options: Any) -> Any:
        calls.append("grad")
        return own(*arguments, **options)

    def backward(*arguments: Any, **options: Any) -> Any:
        calls.append("backward")
        return own_backward(*arguments, **options)

    torch.autograd.grad, torch.autograd.backward = grad, backward
    try:
        yield calls
    finally:
        torch.autograd.grad, torch.autograd.backward = own, own_backward
