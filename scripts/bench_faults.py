"""Break many runs, and print what survived: kills, damage, signals, full disks, and what it costs.

Run from the root of the repository: `python scripts/bench_faults.py --output faults.json`. It takes
about ten minutes on one core; `--quick` tries a tenth of everything. Every result is printed and
written as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults import child, disks, experiments, test_nonfinite
from tests.faults.costs import cost, memory, overhead
from tests.faults.harness import Children, Verdict, reference, work_folder
from textadv import checkpoint
from textadv.errors import BusyError, NonFiniteError
from textadv.launch import environment
from textadv.runlock import run_lock

Row = dict[str, Any]


def main() -> None:
    """Run all experiments; print a table of them, then the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--megabytes", type=int, default=300, help="checkpoint [%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    disable_progress_bar()
    started = time.monotonic()
    found: Row = {"environment": environment(), "table": [], "figures": {}}

    def keep() -> None:
        if arguments.output:
            text = json.dumps(found, indent=1) + "\n"
            arguments.output.write_text(text, encoding="utf-8")

    def figure(name: str, value: Any) -> None:
        found["figures"][name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        keep()

    print(f"{'experiment':<52} {'tried':>6} {'survived':>9} {'lost':>5} {'seconds':>8}", flush=True)
    with work_folder() as folder:
        children = Children(folder)
        children.warm()
        began = time.monotonic()
        for one in all_experiments(children, folder, arguments.quick):
            one["seconds"] = round(time.monotonic() - began, 1)
            found["table"].append(one)
            show(one)
            keep()
            began = time.monotonic()
        figure("resident memory", memory(children))
    figure("cost of safety", cost(arguments.megabytes))
    figure("save overhead", overhead())
    figure("seconds for all of this", round(time.monotonic() - started))
    if any(row["lost"] for row in found["table"]):
        sys.exit(1)


def all_experiments(children: Children, folder: Path, quick: bool) -> Iterator[Row]:
    """Run every experiment, one row each."""
    yield from kills(children, quick)
    yield from damage(folder)
    yield from signals(children, quick)
    yield from full_disks(children, quick)
    yield from locks(children)
    yield from non_finite(folder)
    yield from mutants(children, folder, quick)


def show(row: Row) -> None:
    """Print a row of the table."""
    figures = f"{row['tried']:>6} {row['survived']:>9} {row['lost']:>5} {row['seconds']:>8}"
    print(f"{row['name']:<52} {figures}")
    for line in (*row["faults"], *filter(None, [row["note"]])):
        print(f"    {line}")
    sys.stdout.flush()


def row(name: str, faults: Iterable[Iterable[str]], note: str = "") -> Row:
    """Return a row of the table: one list of faults for each try."""
    lists: list[list[str]] = []
    told = time.monotonic()
    for one in faults:
        lists.append(list(one))
        if time.monotonic() - told > 20:
            print(f"... {name}: {len(lists)} so far", file=sys.stderr, flush=True)
            told = time.monotonic()
    lost = sum(map(bool, lists))
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
    return row(name, (verdict.faults for verdict in verdicts), note)


def kills(children: Children, quick: bool) -> Iterator[Row]:
    """Kill training and attacks at random moments, and training at every fault point."""
    count = 2 if quick else 15
    for method in experiments.METHODS:
        verdicts = experiments.random_kills(children, method, count)
        inside = sum(verdict.in_save for verdict in verdicts)
        note = f"{inside} of them while a checkpoint was being written"
        yield judged(f"kill -9 at a random moment: {method}", verdicts, note)
    for keep in (1, 2):
        fields = {**experiments.SHORT, "keep_checkpoints": keep}
        expected, _ = reference(children, "fat", fields=fields)
        points = range(1, experiments.count_points(children, "fat", fields) + 1, 10 if quick else 1)
        judgements = (
            experiments.kill_at_point(children, "fat", expected, point, fields) for point in points
        )
        yield judged(f"kill -9 at every fault point, keep_checkpoints {keep}", judgements)
    attacked = experiments.attack_kills(children, 2 if quick else 20)
    yield judged("kill -9 of an attack: records equal, none lost", attacked)


def damage(folder: Path) -> Iterator[Row]:
    """Damage every file of a checkpoint in many ways, and resume after some."""
    finished = experiments.finished_run(folder / "finished")
    found: list[list[str]] = []
    for file in experiments.FILES:
        missed = experiments.undetected(finished, folder / f"scratch-{file}", file)
        found += [[one] for one in missed]
        found += [[] for _ in range(len(experiments.damages(b" ")) - len(missed))]
    yield row(f"damage to {len(experiments.FILES)} files, found and set aside", found)
    resumed = []
    for file in experiments.FILES:
        target = finished / "checkpoints" / "step-00000006" / file
        if not target.exists():
            continue
        for name, content in experiments.damages(target.read_bytes(), 1, 1).items():
            place = folder / f"damaged-{file}-{name}"
            resumed.append(experiments.resumed_after(finished, place, file, content))
    yield row("damage, resumed from the checkpoint before", resumed)


def signals(children: Children, quick: bool) -> Iterator[Row]:
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
    yield row(f"SIGTERM, SIGINT, SIGUSR1 in {phases} phases", found, note)


def full_disks(children: Children, quick: bool) -> Iterator[Row]:
    """Fill the disk, emulated and real."""
    full = disks.full_at_points(children, 20 if quick else 1)
    yield judged("disk full (ENOSPC emulated) at every fault point", full)
    yield judged("disk full (file size limit of the system)", disks.file_limits(children))
    small = [*disks.small_disks(children)]
    note = "" if small else "mounting is not allowed here"
    yield judged("disk full (a real tmpfs)", small, note)


def locks(children: Children) -> Iterator[Row]:
    """Have a second process ask for a directory, before and after its owner is killed."""
    folder = children.folder / "owned"
    folder.mkdir()
    owner = children.start(child.hold, folder=str(folder))
    while not owner.counted.exists() and owner.process.is_alive():
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
    yield row("a second process in a run directory; a dead owner", [refused, taken], note)


def non_finite(folder: Path) -> Iterator[Row]:
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
    yield row("NaN or infinity: weights untouched, stopped after 3", found)


def mutants(children: Children, folder: Path, quick: bool) -> Iterator[Row]:
    """Break one promise at a time: the kills and the damage above must show it."""
    file = "model.safetensors"
    flipped = bytearray((folder / "finished/checkpoints/step-00000006" / file).read_bytes())
    flipped[-2] ^= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_fault", lambda folder: None)
        seen = experiments.resumed_after(
            folder / "finished", folder / "unchecked", file, bytes(flipped)
        )
    found = [[] if seen else ["a manifest that is not checked is not noticed"]]
    for mutant, (keep, symptom) in experiments.MUTANTS.items():
        faults = experiments.faults_of_mutant(children, mutant, keep)
        seen = any(symptom in fault for fault in faults)
        found.append([] if seen else [f"{mutant} is not noticed"])
        if quick:
            break
    yield row("planted faults in the saving code, noticed", found)


if __name__ == "__main__":
    main()
