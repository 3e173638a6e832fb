"""What safety costs: memory over many checkpoints, and time over a plain write and a step."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.faults import child
from tests.faults.harness import Children
from textadv import checkpoint
from textadv.testing import tiny_batch, tiny_model


def memory(children: Children) -> dict[str, Any]:
    """Return how resident memory grows over 50 checkpoints, after the first ten."""
    one = children.run(child.memory, folder=str(children.folder / "memory"))
    if one.code != 0:
        raise RuntimeError(one.said()[-1000:])
    sizes = json.loads(one.counted.read_text(encoding="utf-8"))
    growth = (sizes[-1] - sizes[9]) / 1e6
    return {"checkpoints": len(sizes) - 10, "growth_megabytes": round(growth, 2)}


def cost(megabytes: int) -> dict[str, Any]:
    """Time a large checkpoint on the disk of the working directory: plain, safe, verified."""
    model = torch.nn.Linear(1000, max(megabytes * 1000 // 12, 1), bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()

    def write(folder: Path) -> None:
        checkpoint.save_weights(model, folder / "model.safetensors")
        checkpoint.save_optimizer(optimizer, folder)

    times: dict[str, list[float]] = {}

    def timed(name: str, run: Any) -> None:
        began = time.perf_counter()
        run()
        times.setdefault(name, []).append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        place = Path(name)

        def plain() -> None:
            (place / "plain").mkdir()
            write(place / "plain")

        def flush() -> None:
            for file in (place / "plain").iterdir():
                checkpoint._sync(file)

        def load() -> None:
            newest = checkpoint.latest(place)
            if newest is None:
                raise RuntimeError("no checkpoint")
            checkpoint.load_weights(model, newest / "model.safetensors")
            checkpoint.load_optimizer(optimizer, newest)

        for _ in range(3):
            timed("plain write", plain)
            timed("flush to disk", flush)
            shutil.rmtree(place / "plain")
            timed("safe save", lambda: checkpoint.save(place / "step-00000001", write))
            timed("verify and load", load)
            shutil.rmtree(place / "step-00000001")
    seconds = {name: round(statistics.median(values), 3) for name, values in times.items()}
    flushed = seconds["plain write"] + seconds["flush to disk"]
    return {
        "megabytes": megabytes,
        "seconds": seconds,
        "extra_over_plain_write_and_flush": round(seconds["safe save"] / flushed - 1, 3),
    }


def overhead() -> dict[str, Any]:
    """Compare one save with an epoch of 1,000 texts of 64 tokens, on a model of MiniLM's size."""
    model = tiny_model(
        "bert", num_labels=2, vocab_size=30522, hidden_size=384, num_hidden_layers=6,
        num_attention_heads=12, intermediate_size=1536,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())
    batch = tiny_batch(model, [64] * 32)
    batch.pop("special_tokens_mask", None)
    steps = []
    for _ in range(3):
        began = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - began)

    def write(folder: Path) -> None:
        checkpoint.save_weights(model, folder / "model.safetensors")
        checkpoint.save_optimizer(optimizer, folder)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        began = time.perf_counter()
        checkpoint.save(Path(name) / "step-00000001", write)
        save = time.perf_counter() - began
    epoch = 1000 / 32 * statistics.median(steps)
    return {
        "seconds_of_a_save": round(save, 2),
        "seconds_of_a_clean_epoch": round(epoch, 1),
        "share": round(save / epoch, 4),
    }
