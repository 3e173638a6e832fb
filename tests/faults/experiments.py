"""The experiments: break many runs in one way, and say of each what was lost."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults import child
from tests.faults.harness import (
    Child,
    Children,
    Verdict,
    contents,
    differences,
    killed_and_resumed,
    reference,
)
from textadv import checkpoint

SHORT = {"max_steps": 6, "eval_steps": 3}
METHODS = ("plain", "fgm", "pgd", "freelb")
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
PHASES = ("data", "model", "step", "inner step", "save", "validation", "attack")
FILES = (
    "best.safetensors",
    "manifest.json",
    "memory.safetensors",
    "metrics.jsonl",
    "model.safetensors",
    "optimizer.json",
    "optimizer.safetensors",
    "state.json",
)


def random_kills(
    children: Children,
    method: str,
    count: int,
    *,
    seed: int = 0,
    mutant: str | None = None,
    fields: dict[str, Any] | None = None,
) -> list[Verdict]:
    """Kill `count` runs at random moments, resume each, and judge it."""
    job = {"method": method, "mutant": mutant, "fields": fields or {}}
    expected, seconds = reference(children, **job)
    moments = random.Random(f"{seed} {method}")
    verdicts: list[Verdict] = []
    while len(verdicts) < count:
        folder = children.folder / f"killed-{method}-{children.number}"
        delay = moments.uniform(0, seconds)
        verdict = killed_and_resumed(
            children, folder, expected, lambda one, after=delay: one.kill(after), **job
        )
        # A kill that comes too late has tested nothing, and is drawn again.
        if verdict.killed or verdict.faults:
            verdicts.append(verdict)
    return verdicts


def count_points(children: Children, method: str, fields: dict[str, Any], kind: str = "die") -> int:
    """Return how many fault points of a kind an uninterrupted run passes."""
    folder = children.folder / f"counted-{children.number}"
    whole = children.run(
        child.train, folder=str(folder), method=method, fields=fields, fault={"kind": kind}
    )
    if whole.code != 0:
        raise RuntimeError(whole.said()[-1000:])
    return int(whole.counted.read_text(encoding="utf-8"))


def kill_at_point(
    children: Children,
    method: str,
    expected: dict[str, str],
    point: int,
    fields: dict[str, Any],
    mutant: str | None = None,
) -> Verdict:
    """Kill a run at one fault point, resume it, and judge it."""
    folder = children.folder / f"point-{method}-{point}-{children.number}"
    return killed_and_resumed(
        children,
        folder,
        expected,
        Child.wait,
        method=method,
        mutant=mutant,
        fault={"kind": "die", "at": point},
        fields=fields,
    )


def attack_kills(children: Children, count: int, seed: int = 0) -> list[Verdict]:
    """Kill `count` attacks of toy texts at random moments, start each again, and judge it.

    A record whose line had been written when the kill came must be there in the end, as it was.
    """
    folder = children.folder / f"attacked-{children.number}"
    began = time.monotonic()
    whole = children.run(child.attack, folder=str(folder))
    seconds = time.monotonic() - began
    if whole.code != 0:
        raise RuntimeError(whole.said()[-1000:])
    expected = _records(folder)
    report = (folder / "report.json").read_bytes()
    moments = random.Random(seed)
    verdicts: list[Verdict] = []
    while len(verdicts) < count:
        folder = children.folder / f"attacked-{children.number}"
        first = children.start(child.attack, folder=str(folder))
        killed = first.kill(moments.uniform(0, seconds)) == -signal.SIGKILL
        written = _records(folder) if (folder / "records.jsonl").exists() else []
        second = children.run(child.attack, folder=str(folder), width=moments.choice([1, 16]))
        faults = []
        if second.code != 0:
            faults.append(f"started again it exits {second.code}: {second.said()[-300:]}")
        else:
            found = _records(folder)
            faults += [] if found == expected else ["other records"]
            faults += [] if {*written} <= {*found} else ["finished records are lost"]
            faults += [] if (folder / "report.json").read_bytes() == report else ["another report"]
        if killed or faults:
            verdicts.append(Verdict(killed, bool(written), tuple(faults)))
    return verdicts


def _records(folder: Path) -> list[bytes]:
    """Return the complete lines of the records."""
    return (folder / "records.jsonl").read_bytes().split(b"\n")[:-1]


def damages(content: bytes, cuts: int = 10, flips: int = 50) -> dict[str, bytes | None]:
    """Return what a file may become, by name; None for a file that is gone."""
    places = random.Random(0)
    found: dict[str, bytes | None] = {"missing": None, "empty": b""}
    for number in range(cuts):
        found[f"cut {number}"] = content[: places.randrange(len(content))]
    for number in range(flips):
        changed = bytearray(content)
        changed[places.randrange(len(content))] ^= 1 << places.randrange(8)
        found[f"flipped {number}"] = bytes(changed)
    return found


def put(path: Path, content: bytes | None) -> None:
    """Give a file a content; None removes it."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


DAMAGED = {"max_steps": 6, "eval_steps": 3, "save_steps": 2}


def finished_run(folder: Path) -> Path:
    """Return a run that has left two checkpoints, with everything that can be in one."""
    child.make_trainer(folder, "fat", **DAMAGED).fit()
    return folder


def undetected(finished: Path, scratch: Path, file: str) -> list[str]:
    """Return the damages of one file that do not have its checkpoint set aside."""
    whole = next(p for p in checkpoint.folders(finished / "checkpoints") if (p / file).exists())
    older, newest = scratch / "step-00000001", scratch / "step-00000002"
    shutil.copytree(whole, older)
    shutil.copytree(whole, newest)
    content = (newest / file).read_bytes()
    missed = []
    for name, changed in damages(content).items():
        put(newest / file, changed)
        if checkpoint.latest(scratch) != older:
            missed.append(f"{file} {name}")
        else:
            (scratch / "damaged-step-00000002").rename(newest)
        put(newest / file, content)
    return missed


def resumed_after(finished: Path, folder: Path, file: str, content: bytes | None) -> list[str]:
    """Damage one file of the newest checkpoint of a copy, resume it, and return what differs."""
    shutil.copytree(finished, folder)
    put(folder / "checkpoints" / "step-00000006" / file, content)
    child.make_trainer(folder, "fat", **DAMAGED).fit(resume=True)
    return differences(contents(finished), contents(folder))


def command(children: Children, folder: Path, *argv: str, **job: Any) -> Child:
    """Run a command of the command line in a directory."""
    return children.run(
        child.command, argv=[*argv], cwd=str(folder), folder=str(folder / "run"), **job
    )


def whole_command(children: Children, folder: Path) -> Path:
    """Train and attack from a recipe in a new directory, and return the run."""
    folder.mkdir(parents=True)
    child.make_recipe(folder)
    one = command(children, folder, "train", "recipe.yaml", "--output-dir", "run")
    if one.code != 0:
        raise RuntimeError(one.said()[-1000:])
    return folder / "run"


def stopped_by(
    children: Children, folder: Path, phase: str, name: str, whole: Path
) -> tuple[list[str], float]:
    """Stop a command by a signal in a phase, do what it says to go on, and compare.

    Returns:
        What was lost or differs from `whole`, and the seconds from the signal to the end.
    """
    folder.mkdir(parents=True)
    child.make_recipe(folder)
    train = ("train", "recipe.yaml", "--output-dir", "run")
    one = command(children, folder, *train, phase=phase, signal=name)
    if one.code != 75:
        return [f"exit code {one.code}: {one.said()[-500:]}"], 0.0
    ended = time.monotonic()
    waited = ended - float(re.findall(r"signal at ([\d.]+)", one.said())[-1])
    said = one.said().strip().splitlines()[-1]
    written = (folder / "run").exists()
    advice = "textadv train run --resume" if written else "run the same command again"
    if not (said.startswith(f"stopped by {name}") and said.endswith(f"To go on: {advice}")):
        return [f"says {said!r}"], waited
    if phase in ("step", "inner step", "save", "validation") and "saved at step" not in said:
        return [f"does not say what is saved: {said!r}"], waited
    again = command(children, folder, *(("train", "run", "--resume") if written else train))
    if again.code != 0:
        return [f"going on it exits {again.code}: {again.said()[-500:]}"], waited
    run = folder / "run"
    # The data of both lie in other directories, and their names are in state and recipe.
    lost = [name for name in differences(contents(whole), contents(run)) if name != "state.json"]
    for file in ("report.json", "recipe.yaml", "records.jsonl"):
        texts = [(one / file).read_text(encoding="utf-8") for one in (whole, run)]
        texts[1] = texts[1].replace(str(folder), str(whole.parent))
        if sorted(texts[0].splitlines()) != sorted(texts[1].splitlines()):
            lost.append(file)
    return lost, waited


MUTANTS = {
    # What is broken: checkpoints kept, and what the judge must say.
    "save-in-place": (2, "a finished checkpoint is damaged"),
    "prune-first": (1, "had been saved"),
    "no-keyed-randomness": (2, "another model/model.safetensors"),
    "metrics-not-restored": (2, "metrics"),
}


def faults_of_mutant(children: Children, mutant: str | None, keep: int) -> Iterator[str]:
    """Yield what two dozen kills in the middle of a run cost it when something is broken."""
    fields = {**SHORT, "keep_checkpoints": keep, "best_metric": None}
    count = count_points(children, "fgm", fields)
    expected, _ = reference(children, "fgm", mutant, fields=fields)
    for point in range(count // 3, count, max(count // 36, 1)):
        yield from kill_at_point(children, "fgm", expected, point, fields, mutant).faults
