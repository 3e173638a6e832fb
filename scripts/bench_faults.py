"""Break many runs, and print what survived: kills, damage, signals, full disks, and what it costs.

Run from the root of the repository: `python scripts/bench_faults.py --output faults.json`. It takes
about ten minutes on one core; `--quick` tries a tenth of everything.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults import child, experiments, test_nonfinite
from tests.faults.harness import Children, Verdict, reference, work_folder
from textadv import checkpoint
from textadv.errors import BusyError, NonFiniteError
from textadv.launch import environment
from textadv.runlock import run_lock
from textadv.testing import tiny_batch, tiny_model

Row = dict[str, Any]


def main() -> None:
    """Run all experiments and print one table of them and one of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--megabytes", type=int, default=300, help="checkpoint [%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    started = time.monotonic()
    with work_folder() as folder:
        children = Children(folder)
        children.warm()
        table = [
            *kills(children, arguments.quick),
            *damage(folder),
            *signals(children, arguments.quick),
            *disks(children, arguments.quick),
            *locks(children),
            *non_finite(folder),
            *mutants(children, arguments.quick),
        ]
        figures = {"resident memory": memory(children)}
    figures |= {"cost of safety": cost(arguments.megabytes), "save overhead": overhead()}
    figures["seconds for all of this"] = round(time.monotonic() - started)
    print(f"\n{'experiment':<52} {'tried':>6} {'survived':>9} {'lost':>5}")
    for row in table:
        print(f"{row['name']:<52} {row['tried']:>6} {row['survived']:>9} {row['lost']:>5}")
        for fault in row["faults"]:
            print(f"    {fault}")
        if row["note"]:
            print(f"    {row['note']}")
    print(json.dumps(figures, indent=1))
    if arguments.output:
        result = {"environment": environment(), "table": table, "figures": figures}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if any(row["lost"] for row in table):
        sys.exit(1)


def row(name: str, faults: Iterable[Iterable[str]], note: str = "") -> Row:
    """Return a row of the table: one list of faults for each try."""
    lists = [list(one) for one in faults]
    lost = sum(map(bool, lists))
    print(f"{name}: {len(lists) - lost} of {len(lists)}", file=sys.stderr)
    return {
        "name": name,
        "tried": len(lists),
        "survived": len(lists) - lost,
        "lost": lost,
        "faults": sorted({fault for one in lists for fault in one})[:5],
        "note": note,
    }


def judged(name: str, verdicts: Iterable[Verdict], note: str = "") -> Row:
    """Return a row of verdicts."""
    return row(name, [verdict.faults for verdict in verdicts], note)


def kills(children: Children, quick: bool) -> list[Row]:
    """Kill training and attacks at random moments, and training at every fault point."""
    count = 2 if quick else 15
    rows = []
    for method in experiments.METHODS:
        verdicts = experiments.random_kills(children, method, count)
        inside = sum(verdict.in_save for verdict in verdicts)
        note = f"{inside} of them while a checkpoint was being written"
        rows.append(judged(f"kill -9 at a random moment: {method}", verdicts, note))
    for keep in (1, 2):
        fields = {**experiments.SHORT, "keep_checkpoints": keep}
        expected, _ = reference(children, "fat", fields=fields)
        points = range(1, experiments.count_points(children, "fat", fields) + 1, 10 if quick else 1)
        verdicts = [
            experiments.kill_at_point(children, "fat", expected, point, fields) for point in points
        ]
        name = f"kill -9 at every fault point, keep_checkpoints {keep}"
        rows.append(judged(name, verdicts))
    attacked = experiments.attack_kills(children, 2 if quick else 20)
    rows.append(judged("kill -9 of an attack: records equal, none lost", attacked))
    return rows


def damage(folder: Path) -> list[Row]:
    """Damage every file of a checkpoint in many ways, and resume after some."""
    finished = experiments.finished_run(folder / "finished")
    found: list[list[str]] = []
    for file in experiments.FILES:
        missed = experiments.undetected(finished, folder / f"scratch-{file}", file)
        found += [[one] for one in missed]
        found += [[] for _ in range(62 - len(missed))]
    resumed = []
    for file in experiments.FILES:
        target = finished / "checkpoints" / "step-00000006" / file
        if not target.exists():
            continue
        for name, content in experiments.damages(target.read_bytes(), 1, 1).items():
            place = folder / f"damaged-{file}-{name}"
            resumed.append(experiments.resumed_after(finished, place, file, content))
    return [
        row(f"damage to {len(experiments.FILES)} files, found and set aside", found),
        row("damage, resumed from the checkpoint before", resumed),
    ]


def signals(children: Children, quick: bool) -> list[Row]:
    """Send each signal in each phase of a command."""
    found, seconds = [], []
    for phase in experiments.PHASES:
        place = children.folder / f"signals-{phase}"
        whole = experiments.whole_command(children, place / "whole")
        for name in experiments.SIGNALS[: 1 if quick else 3]:
            lost, waited = experiments.stopped_by(children, place / name, phase, name, whole)
            found.append([f"{name} in {phase}: {fault}" for fault in lost])
            seconds.append(waited)
    note = (
        f"exit 75 after {statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s at most"
    )
    phases = len(experiments.PHASES)
    return [row(f"SIGTERM, SIGINT, SIGUSR1 in {phases} phases", found, note)]


def disks(children: Children, quick: bool) -> list[Row]:
    """Fill the disk, emulated and real."""
    step = 20 if quick else 2
    rows = [
        judged(
            "disk full (ENOSPC emulated) at fault points",
            experiments.full_at_points(children, step),
        ),
        judged("disk full (file size limit of the system)", experiments.file_limits(children)),
    ]
    small = [*experiments.small_disks(children)]
    note = "" if small else "mounting is not allowed here"
    return [*rows, judged("disk full (a real tmpfs)", small, note)]


def locks(children: Children) -> list[Row]:
    """Have a second process ask for a directory, before and after its owner is killed."""
    folder = children.folder / "owned"
    folder.mkdir()
    owner = children.start(child.hold, folder=str(folder))
    while not owner.counted.exists():
        time.sleep(0.01)
    refused, taken = ["a second process was let in"], ["the lock outlived its owner"]
    began = time.monotonic()
    try:
        with run_lock(folder):
            pass
    except BusyError as error:
        refused = [] if error.exit_code == 7 else ["another exit code"]
    note = f"refused after {time.monotonic() - began:.4f} s"
    owner.kill(0)
    with run_lock(folder):
        taken = []
    return [row("a second process in a run directory; a dead owner", [refused, taken], note)]


def non_finite(folder: Path) -> list[Row]:
    """Put NaN and infinity into every place, twice in a row and three times."""
    found = []
    for place in test_nonfinite.PLACES:
        for value in test_nonfinite.BAD:
            for bad in ({2, 3, 5}, {2, 3, 4}):
                with pytest.MonkeyPatch.context() as patch:
                    target = folder / f"bad-{place}-{value}-{len(found)}"
                    trainer, spy = test_nonfinite.poisoned(
                        target, place, value, bad, patch, max_steps=6
                    )
                    try:
                        stopped = trainer.fit() is None
                    except NonFiniteError as error:
                        stopped = error.exit_code == 5
                right = spy.moved == [number not in bad for number in range(1, len(spy.moved) + 1)]
                fault = f"{place} {value} in {sorted(bad)}"
                found.append([] if right and stopped == (bad == {2, 3, 4}) else [fault])
    return [row("NaN or infinity: weights untouched, stopped after 3", found)]


def mutants(children: Children, quick: bool) -> list[Row]:
    """Break one promise at a time: the kills above must show it."""
    found = []
    for mutant, (keep, symptom) in experiments.MUTANTS.items():
        faults = experiments.faults_of_mutant(children, mutant, keep)
        seen = any(symptom in fault for fault in faults)
        found.append([] if seen else [f"{mutant} is not noticed"])
        if quick:
            break
    return [row("planted faults in the saving code, noticed", found)]


def memory(children: Children) -> Row:
    """Return how resident memory grows over 50 checkpoints, after the first ten."""
    one = children.run(child.memory, folder=str(children.folder / "memory"))
    if one.code != 0:
        raise RuntimeError(one.said()[-1000:])
    sizes = json.loads(one.counted.read_text(encoding="utf-8"))
    growth = (sizes[-1] - sizes[9]) / 1e6
    return {"checkpoints": len(sizes) - 10, "growth_megabytes": round(growth, 2)}


def cost(megabytes: int) -> Row:
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


def overhead() -> Row:
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


if __name__ == "__main__":
    main()
