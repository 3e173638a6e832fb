"""The benchmark scripts run from one command and write what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import save_tiny_model, sentiment_rows

SCRIPTS = Path(__file__).parent.parent / "scripts"


def run(script, tmp_path, *arguments):
    model = save_tiny_model(tmp_path / "model", num_labels=2)
    output = tmp_path / "out.json"
    command = [sys.executable, SCRIPTS / script, "--model", model, "--output", output, *arguments]
    subprocess.run([str(part) for part in command], check=True, timeout=240, cwd=SCRIPTS.parent)
    return json.loads(output.read_text())


@pytest.mark.slow
def test_objectives(tmp_path):
    arguments = ("--methods", "fgm,freelb-3,r3f", "--rounds", "3", "--batch-size", "4")
    found = run("bench_objectives.py", tmp_path, *arguments)
    assert found["methods"].keys() == {"plain", "plain-inner", "clean", "fgm", "freelb-3", "r3f"}
    assert found["environment"]["threads"] >= 1
    for row in found["methods"].values():
        assert row["seconds"] > 0
        assert row["peak_megabytes"] > 0
    assert found["methods"]["freelb-3"]["ratio_in_theory"] == 3
    assert found["methods"]["clean"]["ratio"] == 1


@pytest.mark.slow
def test_end_to_end(tmp_path):
    for name, seed in (("train", 0), ("validation", 1)):
        lines = [json.dumps(row) + "\n" for row in sentiment_rows(24, seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    arguments = ("--data", str(tmp_path), "--batch-size", "8", "--max-length", "32")
    found = run("bench_end_to_end.py", tmp_path, *arguments)
    assert list(found["runs"])[:2] == ["trainer-clean", "trainer-fgm-snippet"]
    assert len(found["runs"]) == 6
    for row in found["runs"].values():
        assert row["seconds"] > 0
        assert 0 <= row["accuracy_pgd-0.3"] <= row["accuracy_clean"] <= 1
