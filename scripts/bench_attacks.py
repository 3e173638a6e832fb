#!/usr/bin/env python3
"""Time an attack against the bare model, and compare it with TextAttack's output if given.

    python scripts/bench_attacks.py MODEL DATA.jsonl --attack pwws-textattack --num-examples 200 \
        --threads 1 --reference reference.jsonl --reference-log reference.log --output bench.json

DATA.jsonl has rows {"text": str, "label": int}. The reference is a file of rows {"id", "status",
"adversarial_text", "num_queries"}, one for each text in the same order, and its log a file whose
last line is a JSON object with "seconds" and "queries" of the run that wrote it. Run both on the
same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textadv.attacks import Example, Record, build_attack, run
from textadv.attacks.examples import make_examples
from textadv.ragged import length_batches
from textadv.victim import ModelVictim


class Recording:
    """A victim that remembers what it was asked."""

    def __init__(self, victim: ModelVictim) -> None:
        self.victim, self.texts = victim, list[tuple[str, ...]]()
        self.num_labels = victim.num_labels

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Note the texts and pass them on."""
        self.texts.extend(texts)
        return self.victim.logits(texts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.victim, name)


def read_rows(path: Path, count: int | None) -> list[dict[str, Any]]:
    """Return the first rows of a JSON-lines file."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()][:count]


class Clock:
    """Seconds and processor seconds since it was made; the latter ignore what else runs."""

    def __init__(self) -> None:
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return both."""
        return time.perf_counter() - self.start, time.process_time() - self.cpu_start


def bare_forward(victim: ModelVictim, texts: Sequence[tuple[str, ...]]) -> tuple[float, float]:
    """Return the seconds of the model alone on ready batches of the texts, sorted by length."""
    encoded = victim.encode(texts)
    rows = [
        dict(zip(encoded, map(tuple, columns), strict=True))
        for columns in zip(*encoded.values(), strict=True)
    ]
    lengths = [len(row["input_ids"]) for row in rows]
    batches = [
        victim.padded([rows[at] for at in batch])
        for batch in length_batches(lengths, victim.batch_tokens)
    ]
    clock = Clock()
    with torch.inference_mode():
        for batch in batches:
            victim.model(**batch)
    if victim.device.type == "cuda":
        torch.cuda.synchronize()
    return clock.read()


def timed(
    victim: Any, examples: Sequence[Example], name: str, width: int
) -> tuple[list[Record], tuple[float, float]]:
    """Return the records of one attack and its seconds."""
    attack = build_attack(name)
    attack.prepare()
    clock = Clock()
    records = list(run({name: attack}, victim, examples, width=width, query_budget=None))
    return records, clock.read()


def compare(records: Sequence[Record], path: Path, log: Path | None, seconds: float) -> Any:
    """Return on how many texts status and adversarial text are those of the reference."""
    rows = {str(row["id"]): row for row in read_rows(path, None)}
    same_status = same_text = 0
    differences = []
    for record in records:
        row = rows[record.id]
        ours = record.adversarial_text[0] if record.adversarial_text else None
        theirs = row["adversarial_text"] if row["status"] == "flipped" else None
        status = record.status == row["status"]
        same_status += status
        same_text += status and ours == theirs
        if not status or ours != theirs:
            differences.append(
                {
                    "id": record.id,
                    "status": [record.status, row["status"]],
                    "text": [ours, theirs],
                    "queries": [record.num_queries, row["num_queries"]],
                }
            )
    found: dict[str, Any] = {
        "texts": len(records),
        "same_status": same_status,
        "same_status_and_text": same_text,
        "queries": sum(row["num_queries"] for row in rows.values()),
        "differences": differences,
    }
    if log is not None:
        summary = json.loads(log.read_text(encoding="utf-8").strip().splitlines()[-1])
        found |= {"seconds": summary["seconds"], "pad_to": summary.get("pad_to")}
        found["times_faster"] = round(summary["seconds"] / seconds, 2)
    return found


def resident_megabytes() -> float:
    """Return the memory this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_run(victim: Any, rows: Sequence[dict[str, Any]], count: int, width: int) -> list[Any]:
    """Attack many texts for a few queries each and return megabytes after each tenth."""

    def examples() -> Iterator[Example]:
        for number in range(count):
            row = rows[number % len(rows)]
            text = f"{row['text']} {number}"
            yield from make_examples([text], [row["label"]], ids=[str(number)])

    measured = []
    attacks = {"deepwordbug": build_attack("deepwordbug")}
    records = run(attacks, victim, examples(), width=width, query_budget=3)
    for number, _ in enumerate(records, start=1):
        if number % max(count // 10, 1) == 0:
            measured.append({"texts": number, "megabytes": round(resident_megabytes(), 1)})
    return measured


def main() -> None:
    """Read the arguments, run, and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Time an attack against the bare model.")
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--attack", default="pwws-textattack")
    parser.add_argument("--num-examples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--dtype", default="float32", help="precision of the weights")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--reference-log", type=Path)
    parser.add_argument("--memory-texts", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    victim = ModelVictim.load(
        arguments.model,
        dtype=arguments.dtype,
        batch_tokens=arguments.batch_tokens,
        max_length=arguments.max_length,
    )
    rows = read_rows(arguments.data, arguments.num_examples)
    examples = make_examples([row["text"] for row in rows], [row["label"] for row in rows])
    result: dict[str, Any] = {
        "model": Path(arguments.model).name,
        "data": arguments.data.name,
        "attack": arguments.attack,
        "texts": len(rows),
        "threads": arguments.threads,
        "dtype": arguments.dtype,
        "batch_tokens": victim.batch_tokens,
        "torch": torch.__version__,
        "runs": [],
    }
    # Warm caches of resources and of the device before anything is timed.
    timed(victim, examples[:2], arguments.attack, 2)
    for width in arguments.width:
        recording = Recording(victim)
        records, (seconds, cpu) = timed(recording, examples, arguments.attack, width)
        unique = list(dict.fromkeys(recording.texts))
        bare, bare_cpu = bare_forward(victim, unique)
        scored = len(recording.texts)
        queries = sum(record.num_queries for record in records)
        entry = {
            "width": width,
            "seconds": round(seconds, 2),
            "queries": queries,
            "scored_texts": scored,
            "queries_per_second": round(queries / seconds, 1),
            "scored_per_second": round(scored / seconds, 1),
            "bare_texts_per_second": round(len(unique) / bare, 1),
            "share_of_bare": round(scored / seconds / (len(unique) / bare), 3),
            "cpu_seconds": round(cpu, 2),
            "share_of_bare_cpu": round(scored / cpu / (len(unique) / bare_cpu), 3),
            "statuses": dict(Counter(record.status for record in records)),
        }
        if arguments.reference:
            log = arguments.reference_log
            entry["reference"] = compare(records, arguments.reference, log, seconds)
        result["runs"].append(entry)
    if arguments.memory_texts:
        width = arguments.width[-1]
        result["memory"] = memory_run(victim, rows, arguments.memory_texts, width)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
