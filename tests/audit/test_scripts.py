"""The scripts that measure the judge itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_bench_judge_counts_both_kinds_of_error(tmp_path):
    command = [sys.executable, "scripts/bench_judge.py", "--num-examples", "100", "--runs", "4"]
    command += ["--pairs", "5", "--gap", "30", "--output-dir", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=200, cwd=ROOT
    )
    assert "n = 100, 4 seeds, 5 pairs" in done.stdout
    same = re.search(r"one model: +(\d+) of 5", done.stdout)
    gap = re.search(r"gap of 30 points: +(\d+) of 5", done.stdout)
    assert int(same[1]) <= 1
    assert int(gap[1]) == 5
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        f"seed-{seed}" for seed in range(4)
    ]
