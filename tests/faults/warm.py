"""What the fork server does before it forks: train and attack once, so that no child loads a thing.

Much of Torch, Transformers and Datasets is imported on first use only.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tests.faults import child
from textadv import cli

with (
    tempfile.TemporaryDirectory() as name,
    Path(os.devnull).open("w", encoding="utf-8") as nowhere,
    contextlib.redirect_stdout(nowhere),
    contextlib.redirect_stderr(nowhere),
):
    recipe, run = child.make_recipe(Path(name)), f"{name}/run"
    cli.main(["train", str(recipe), "training.max_steps=1", "--output-dir", run])
    data = ["--data", f"{name}/test.jsonl", "--output-dir", f"{name}/out"]
    cli.main(["attack", f"{run}/model", *data, "--attack", "deepwordbug", "--num-examples", "1"])
