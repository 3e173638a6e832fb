"""Full disks: emulated at every point, made by a limit of the system, and real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults import child
from tests.faults.experiments import SHORT, count_points, finished_run
from tests.faults.harness import Children, Verdict, contents, differences, reference
from textadv import checkpoint

ROOM_LEFT = (0, 20_000, 150_000, 300_000, 450_000)


def good_and_nothing_else(folder: Path) -> bool:
    """Return whether all that a failed run has left are checkpoints that verify."""
    found = checkpoint.folders(folder / "checkpoints")
    return all(checkpoint._fault(one) is None for one in found) and not [*folder.rglob(".*.tmp")]


def _full_then_free(
    children: Children, folder: Path, expected: dict[str, str], target: Any, **job: Any
) -> Verdict:
    """Run until the disk is full, run again with room, and compare."""
    common = {"folder": str(folder), "method": "fat", "fields": SHORT}
    stopped = children.run(target, **common, **job)
    faults = []
    if stopped.code != 6 or "MB free on the disk" not in stopped.said():
        faults.append(f"exit code {stopped.code}: {stopped.said()[-300:]}")
    if folder.exists() and not good_and_nothing_else(folder):
        faults.append("a checkpoint is damaged, or something was left behind")
    again = children.run(child.train, **common)
    if again.code != 0:
        faults.append(f"with room again it exits {again.code}: {again.said()[-300:]}")
    else:
        faults += [f"another {name}" for name in differences(expected, contents(folder))]
    return Verdict(True, False, tuple(faults))


def full_at_points(children: Children, every: int, offset: int = 0) -> Iterator[Verdict]:
    """Emulate a full disk: from the N-th fault point on every write fails, for every N."""
    expected, _ = reference(children, "fat", fields=SHORT)
    count = count_points(children, "fat", SHORT, "full")
    for point in range(1 + offset, count + 1, every):
        folder = children.folder / f"full-{point}-{children.number}"
        fault = {"kind": "full", "at": point}
        yield _full_then_free(children, folder, expected, child.train, fault=fault)


def file_limits(children: Children) -> Iterator[Verdict]:
    """Have the system refuse the last byte of every file (EFBIG), in Rust and in Python."""
    expected, _ = reference(children, "fat", fields=SHORT)
    newest = checkpoint.folders(
        finished_run(children.folder / f"sizes-{children.number}") / "checkpoints"
    )[-1]
    for limit in sorted({0, *(file.stat().st_size - 1 for file in newest.iterdir())}):
        folder = children.folder / f"limit-{limit}-{children.number}"
        yield _full_then_free(children, folder, expected, child.file_limit, limit=limit)


def small_disks(children: Children) -> Iterator[Verdict]:
    """Fill a real file system of 16 MB up; nothing where mounting one is not allowed."""
    if children.run(child.can_mount, mount=str(children.folder / "probe")).code != 0:
        return
    expected, _ = reference(children, "fat", fields=SHORT)
    for left in ROOM_LEFT:
        folder = children.folder / f"small-{left}-{children.number}"
        done = children.run(
            child.small_disk, folder=str(folder), mount=str(children.folder / "disk"),
            size=16 << 20, left=left, method="fat", fields=SHORT,
        )  # fmt: skip
        faults = []
        result = json.loads(done.counted.read_text(encoding="utf-8")) if done.code == 0 else {}
        if result != {"first": 6, "verified": True, "left": [], "again": 0}:
            faults.append(f"{result}: {done.said()[-300:]}")
        else:
            faults += [f"another {name}" for name in differences(expected, contents(folder))]
        yield Verdict(True, False, tuple(faults))
