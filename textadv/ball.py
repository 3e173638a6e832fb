"""How far from a text the nearest embedding with another prediction is, as attacks find it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from textadv.batching import Encoded, plan_evaluation
from textadv.embeddings import Batch, EmbeddingPort
from textadv.norms import Norm
from textadv.perturb import PGD
from textadv.seeding import torch_generator

__all__ = ["Loss", "batches", "broken_at", "climb", "gradient", "margins"]

Loss = Literal["margin", "cross-entropy"]


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return gold logit minus largest other, (B,), in float32 or wider; below 0 is an error."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    gold = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return gold - others.amax(1)


def climb(
    port: EmbeddingPort,
    batch: Batch,
    radius: float,
    *,
    norm: Norm = "l2",
    num_steps: int = 20,
    restarts: int = 1,
    loss: Loss = "margin",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the lowest margin (B,) that PGD meets in the ball around each text.

    Every iterate counts, the unperturbed text among them. The first start is zero and further ones
    are random.

    Args:
        port: The wrapped model.
        batch: Tokenised texts with labels.
        radius: Of the ball of the whole text, in embedding units.
        norm: Norm of the ball.
        num_steps: Gradient steps per start.
        restarts: Starts.
        loss: What is climbed: the negative margin, or the cross-entropy.
        temperature: What the logits are divided by before the loss.
        generator: Random stream of the starts.
    """
    generator = generator if generator is not None else torch.Generator(port.device)
    labels = batch["labels"]
    with port.attack_mode("eval"), torch.enable_grad():
        embeds, mask = port.embed(batch), port.editable(batch)
        lowest: Tensor | None = None
        for start in range(restarts):
            kind: Literal["zero", "uniform"] = "uniform" if start else "zero"
            pgd = PGD(norm=norm, epsilon=radius, num_steps=max(num_steps, 1), init=kind)
            z = pgd.start(embeds, mask, generator)
            for step in range(num_steps + 1):
                z = z.detach().requires_grad_()
                logits = port.logits(batch, z, inner=True)
                margin = margins(logits, labels)
                found = margin.detach()
                lowest = found if lowest is None else torch.minimum(lowest, found)
                if step == num_steps:
                    break
                value = _loss(logits / temperature, labels, loss)
                z = pgd.ascend(z.detach(), gradient(value, z), mask)
    if lowest is None:
        raise ValueError("restarts must be at least 1")
    return lowest


def gradient(value: Tensor, z: Tensor) -> Tensor:
    """Return the gradient of the summed value, zero where the graph does not reach `z`."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    (found,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
    return torch.zeros_like(z) if found is None else found


def broken_at(
    port: EmbeddingPort,
    examples: Encoded,
    radii: Sequence[float],
    *,
    num_steps: int = 20,
    restarts: int = 1,
    batch_size: int = 64,
    seed: int = 0,
    skip: Container[int] = frozenset(),
) -> Iterator[tuple[int, float | None]]:
    """Yield each example with the smallest radius at which it is misclassified.

    0 means wrong before any perturbation, None that it stands at every radius. Radii are climbed in
    order and a broken example is not attacked again: a larger ball holds the smaller one. Examples
    come batch by batch; batches and random starts do not depend on what is skipped.

    Args:
        port: The wrapped model.
        examples: Encoded examples with one class each.
        radii: In embedding units.
        num_steps: Gradient steps per start.
        restarts: Starts.
        batch_size: Texts attacked at once.
        seed: Of the random starts.
        skip: Places of examples; a batch of these alone is left out.
    """
    places = [[*indices] for indices, _ in batches(port, examples, None, batch_size)]
    for indices in places:
        if all(index in skip for index in indices):
            continue
        stream = torch_generator(port.device, seed, "ball", examples.ids[indices[0]])
        left = list(indices)
        for radius in (0.0, *sorted(radii)):
            if not left:
                break
            lowest = climb(
                port,
                examples.batch(left, port.device),
                radius,
                num_steps=num_steps if radius else 0,
                restarts=restarts if radius else 1,
                generator=stream,
            )
            margin = dict(zip(left, lowest.tolist(), strict=True))
            yield from ((index, radius) for index in left if margin[index] <= 0)
            left = [index for index in left if margin[index] > 0]
        yield from ((index, None) for index in left)


def batches(
    port: EmbeddingPort,
    examples: Encoded,
    chosen: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield the chosen examples (all by default) in batches of similar length, on the device."""
    places = list(range(len(examples))) if chosen is None else list(chosen)
    lengths = [int(examples.lengths[place]) for place in places]
    for part in plan_evaluation(lengths, batch_size=batch_size):
        indices = [places[place] for place in part]
        yield indices, examples.batch(indices, port.device)


def _loss(logits: Tensor, labels: Tensor, name: Loss) -> Tensor:
    functions: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
        "margin": lambda logits, labels: -margins(logits, labels),
        "cross-entropy": lambda logits, labels: torch.nn.functional.cross_entropy(
            logits.float(), labels, reduction="none"
        ),
    }
    return functions[name](logits, labels)
