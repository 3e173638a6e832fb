#!/usr/bin/env python3
"""Store the figures of finished runs beside their recipes, and redo the table in recipes/README.md.

Usage: python scripts/recipe_results.py [RUN=RECIPE ...], such as runs/sst2-fgm=sst2-fgm
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"
BEGIN, END = "<!-- results: scripts/recipe_results.py -->", "<!-- end of results -->"


def collect(run: Path) -> dict:
    """Return what a run measured, with what decides the numbers."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["split"] == "validation"][-1]
    report = json.loads((run / "report.json").read_text())
    return {
        "environment": json.loads((run / "env.json").read_text()),
        "training_seconds": rows[-1]["seconds"],
        "validation": {k: v for k, v in last.items() if k not in ("split", "seconds")},
        "report": report,
    }


def rate(value: float, interval: list[float]) -> str:
    """Return a percentage with its interval."""
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def row_of(folder: Path) -> str:
    """Return a recipe's line of the table."""
    found = json.loads((folder / "results.json").read_text())
    report = found["report"]
    attacks = [rate(a["accuracy_under_attack"], a["interval"]) for a in report["attacks"].values()]
    inside = [rate(e["accuracy"], e["interval"]) for e in report["embedding"].values()]
    cells = [
        f"[{folder.name}]({folder.name}/)",
        str(report["num_examples"]),
        rate(report["clean_accuracy"], report["clean_interval"]),
        *attacks,
        *inside,
        f"{found['training_seconds'] / 60:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Store results and write the table."""
    for argument in sys.argv[1:]:
        run, _, recipe = argument.partition("=")
        text = json.dumps(collect(Path(run)), indent=1) + "\n"
        (RECIPES / recipe / "results.json").write_text(text)
    folders = sorted(path.parent for path in RECIPES.glob("sst2-*/results.json"))
    head = [
        BEGIN,
        "| recipe | n | clean, % | under deepwordbug, % | under PGD-10, l2 0.3, % | minutes |",
        "|---|---|---|---|---|---|",
    ]
    readme = RECIPES / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    table = "\n".join([*head, *map(row_of, folders), END])
    readme.write_text(before + table + rest.partition(END)[2])


if __name__ == "__main__":
    main()
