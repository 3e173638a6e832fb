"""Train a tiny model: run by a test, alone and under a launcher."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.test_trainer import OBJECTIVES, exact_model, make_trainer

if __name__ == "__main__":
    name, folder, accumulation = sys.argv[1:]
    torch.set_num_threads(1)
    make_trainer(
        Path(folder),
        OBJECTIVES[name],
        model=exact_model(),
        count=44,  # the last step of an epoch has one short micro-batch
        batch_size=8,
        gradient_accumulation_steps=int(accumulation),
    ).fit()
