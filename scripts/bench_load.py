#!/usr/bin/env python3
"""Time and memory of large inputs: a data check, a report, and a long attack.

    python scripts/bench_load.py --output load.json

Each part runs in a process of its own, and so has a peak of resident memory of its own: `data`
checks a CSV file of --rows rows; `report` reads --records records of one attack and makes
report.json, report.md and report.html of them; `attack` attacks --texts texts with a tiny random
model and follows the resident memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = [f"{first}{vowel}{last}" for first in "bdkmps" for vowel in "aeiou" for last in "lnrt"]


def sentence(source: random.Random, low: int = 8, high: int = 20) -> str:
    """Return random words."""
    return " ".join(source.choices(WORDS, k=source.randrange(low, high)))


def resident() -> float:
    """Return the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Return the highest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that some work took, and its result."""
    start = time.perf_counter()
    found = work()
    return round(time.perf_counter() - start, 2), found


def check_data(folder: Path, count: int) -> dict[str, Any]:
    """Check a large CSV file as `textadv check` does."""
    from textadv.data import DataConfig, load_data

    source, file = random.Random(0), folder / "data.csv"
    with file.open("w", encoding="utf-8") as stream:
        stream.write("text,label\n")
        for row in range(count):
            stream.write(f"{sentence(source)} {row},{row % 2}\n")
    before = resident()
    seconds, data = timed(lambda: load_data(DataConfig(train=file.name), base_dir=folder))
    return {
        "rows": len(data.splits["train"]),
        "file_mb": round(file.stat().st_size / 1e6, 1),
        "seconds": seconds,
        "resident_before_mb": round(before, 1),
        "peak_mb": round(peak(), 1),
    }


def make_report(folder: Path, count: int) -> dict[str, Any]:
    """Write records, and make every kind of report of them."""
    from textadv.attacks import Record
    from textadv.compare import compare_results
    from textadv.metrics import outcome_counts, wilson_interval
    from textadv.page import write_report
    from textadv.report import AttackResult, RobustnessReport
    from textadv.results import load_results

    source, statuses = random.Random(0), []
    with (folder / "records.jsonl").open("w", encoding="utf-8") as stream:
        for row in range(count):
            status = source.choice(["survived", "flipped", "flipped", "wrong_before"])
            statuses.append(status)
            text, label = sentence(source), row % 3
            flipped = status == "flipped"
            record = Record(
                id=f"{row:06}",
                attack="deepwordbug",
                status=status,
                label=label,
                prediction=(label + (status == "wrong_before")) % 3,
                text=(text,),
                adversarial_text=(f"{text[:-2]}x",) if flipped else None,
                adversarial_prediction=(label + 1) % 3 if flipped else None,
                num_queries=source.randrange(10, 90),
                num_words=len(text.split()),
                num_modified_words=int(flipped),
            )
            stream.write(record.to_line())
    counts = outcome_counts(statuses, count)
    share = counts["survived"] / count
    attack = AttackResult(
        accuracy_under_attack=share,
        interval=wilson_interval(counts["survived"], count),
        attack_success_rate=counts["flipped"] / (counts["flipped"] + counts["survived"]),
        mean_queries=50.0,
        median_queries=50.0,
        query_budget=100,
        counts=counts,
    )
    right = count - counts["wrong_before"]
    RobustnessReport(
        model="large",
        data="random words",
        num_examples=count,
        seed=0,
        clean_accuracy=right / count,
        clean_interval=wilson_interval(right, count),
        attacks={"deepwordbug": attack},
    ).save(folder)
    before = resident()
    read, results = timed(lambda: load_results(folder))
    held = resident() - before
    page, files = timed(lambda: write_report([folder]))
    markdown, _ = timed(results.report.to_markdown)
    compared, _ = timed(lambda: compare_results(results, results))
    return {
        "records": len(results.records),
        "records_file_mb": round((folder / "records.jsonl").stat().st_size / 1e6, 1),
        "read_seconds": read,
        "records_held_mb": round(held, 1),
        "all_reports_seconds": page,
        "markdown_seconds": markdown,
        "compare_seconds": compared,
        "html_mb": round(files.html.stat().st_size / 1e6, 1),
        "json_mb": round(files.json.stat().st_size / 1e6, 2),
        "resident_before_mb": round(before, 1),
        "peak_mb": round(peak(), 1),
    }


def attack_texts(folder: Path, count: int) -> dict[str, Any]:
    """Attack many texts with a tiny model, and follow the resident memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from textadv.evaluate import EvaluationConfig, evaluate_attacks, make_examples
    from textadv.testing import tiny_model
    from textadv.victim import ModelVictim

    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")
    network = tiny_model("bert", num_labels=2, vocab_size=len(vocabulary))
    victim = ModelVictim(network, tokenizer, device="cpu", max_length=32)
    source = random.Random(0)
    texts = [f"{sentence(source, 5, 12)} {row}" for row in range(count)]
    labels = victim.logits([(text,) for text in texts]).argmax(1).tolist()
    points: list[tuple[int, float]] = []
    done = 0

    def progress(record: Any) -> None:
        nonlocal done
        done += 1
        if done % (count // 20) == 0:
            points.append((done, round(resident(), 1)))

    config = EvaluationConfig(attacks=["deepwordbug"], num_examples=count, query_budget=20)
    seconds, report = timed(
        lambda: evaluate_attacks(victim, make_examples(texts, labels), config, folder, progress)
    )
    early = points[1][1]
    return {
        "texts": len(report.records),
        "seconds": seconds,
        "resident_at": points,
        "growth_mb": round(points[-1][1] - early, 1),
        "growth_from": points[1][0],
        "peak_mb": round(peak(), 1),
    }


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "data": check_data,
    "report": make_report,
    "attack": attack_texts,
}


def main() -> None:
    """Run all parts, each in a process of its own, or one here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--part", choices=PARTS, help="this one alone, in this process")
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    counts = {"data": arguments.rows, "report": arguments.records, "attack": arguments.texts}
    if arguments.part:
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[arguments.part](Path(folder), counts[arguments.part])
        print(json.dumps(found))
        return
    figures = {}
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part]
        command += ["--rows", str(arguments.rows), "--records", str(arguments.records)]
        command += ["--texts", str(arguments.texts)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{part}: {done.stderr}")
        figures[part] = json.loads(done.stdout.splitlines()[-1])
        print(f"{part}: {json.dumps(figures[part])}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
