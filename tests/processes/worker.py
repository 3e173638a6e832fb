"""Run every case on the processes of a launch; the first one writes what it found."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from tests.processes import work
from textadv.launch import make_accelerator

if __name__ == "__main__":
    folder, chosen = Path(sys.argv[1]), sys.argv[2].split(",")
    torch.set_num_threads(1)
    accelerator = make_accelerator("fp32")
    # A trainer ends the process group that the next one needs.
    PartialState.destroy_process_group = lambda self, group=None: None
    for kind, name in work.jobs(chosen):
        found = work.run_job(kind, name, accelerator, folder / "runs")
        if accelerator.is_main_process:
            save_file(found, folder / f"{kind}: {name}.safetensors")
    accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()
