"""What a child process runs: a short training or attack run, broken at a chosen place.

Imported once by the fork server, so that a child starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

import textadv.trainer
from tests.faults.sabotage import (
    MUTANTS,
    faults,
    limit_file_sizes,
    mount_small_disk,
    signal_at,
)
from tests.models import make_tokenizer, save_tiny_model, sentiment_rows
from tests.oracles import toy
from textadv import FGM, PGD, checkpoint, cli
from textadv.batching import Encoded
from textadv.errors import TextAdvError
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.interrupts import Interrupted
from textadv.objectives import FAT, Adversarial, Clean, FreeLB
from textadv.store import RunStore, State
from textadv.testing import tiny_model
from textadv.trainer import Trainer
from textadv.training import TrainingConfig

torch.set_num_threads(1)

TOKENIZER = make_tokenizer()
METHODS = {
    "plain": Clean(),
    "fgm": Adversarial(perturbation=FGM(epsilon=0.3)),
    "pgd": Adversarial(perturbation=PGD(epsilon=0.3, num_steps=2, init="uniform")),
    "freelb": FreeLB(perturbation=PGD(epsilon=0.3, step_size=0.1, num_steps=2, init="uniform")),
    "fat": FAT(),
}
STEPS, SAVE_STEPS = 24, 2


def encode(rows: list[dict[str, Any]]) -> Encoded:
    return Encoded([[row["text"]] for row in rows], [row["label"] for row in rows], TOKENIZER)


TRAIN, VALIDATION = encode(sentiment_rows(48)), encode(sentiment_rows(16, seed=1))


def make_trainer(folder: Path, method: str, *, callback: Any = None, **fields: Any) -> Trainer:
    """Return a trainer of a tiny model with dropout: 6 steps an epoch, a save every second one."""
    settings = {
        "learning_rate": 1e-3,
        "max_steps": STEPS,
        "batch_size": 8,
        "precision": "fp32",
        "log_steps": 1,
        "save_steps": SAVE_STEPS,
        "eval_steps": 5,
        "best_metric": "clean_loss",
        **fields,
    }
    return Trainer(
        tiny_model("bert", num_labels=2),
        TOKENIZER,
        METHODS[method],
        TrainingConfig(**settings),
        TRAIN,
        output_dir=folder,
        validation=VALIDATION,
        fingerprint={"method": method},
        callback=callback,
    )


class Diary:
    """Write beside the run directory where training began and which saves were finished."""

    def __init__(self, folder: Path) -> None:
        self.file = folder.with_name(f"{folder.name}.diary")

    def note(self, event: str, step: int) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"{event} {step}\n")

    def on_start(self, info: dict[str, Any]) -> None:
        self.note("began", info["step"])

    def on_step(self, step: int, figures: dict[str, float] | None) -> None:
        """Nothing to write."""

    def on_validation(self, step: int, figures: dict[str, float]) -> None:
        """Nothing to write."""


def train(job: dict[str, Any]) -> None:
    """Train in `folder`, going on where an earlier child was stopped."""
    folder = Path(job["folder"])
    diary = Diary(folder)
    save = RunStore.save

    def noted(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        (state,) = (one for one in arguments if isinstance(one, State))
        diary.note("saved", state.step)

    RunStore.save = noted  # type: ignore[method-assign]
    if job.get("mutant"):
        MUTANTS[job["mutant"]]()
    trainer = make_trainer(folder, job["method"], callback=diary, **job.get("fields", {}))
    with ended(job), faults(job):
        trainer.fit(resume=trainer.store.checkpoints.is_dir())


def train_as_one_of_two(job: dict[str, Any]) -> None:
    """Train in a launch of two processes; one of them alone may get a signal at a step."""
    os.environ |= {
        "RANK": str(job["rank"]),
        "LOCAL_RANK": str(job["rank"]),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(job["port"]),
        "ACCELERATE_USE_CPU": "true",
    }
    # The fork server has trained alone.
    AcceleratorState._reset_state(reset_partial_state=True)
    if "at" in job:
        step = Trainer._step

        def stepped(trainer: Any, prepared: Any, optimizer: Any, state: Any) -> None:
            step(trainer, prepared, optimizer, state)
            if state.step == job["at"]:
                signal.raise_signal(signal.SIGTERM)

        Trainer._step = stepped  # type: ignore[method-assign]
    train(job)


def attack(job: dict[str, Any]) -> None:
    """Attack toy texts, half of it by a random search, into `folder`."""
    texts = toy.examples(40)
    victim = toy.victim()
    logits = victim.logits

    def slow(*arguments: Any) -> torch.Tensor:
        time.sleep(0.004)
        return logits(*arguments)

    victim.logits = slow  # type: ignore[method-assign]
    config = EvaluationConfig(
        attacks=["deepwordbug", "imperceptible-homoglyph"],
        num_examples=40,
        query_budget=120,
        width=job.get("width", 4),
    )
    with ended(job), faults(job):
        evaluate_attacks(victim, texts, config, job["folder"])


def command(job: dict[str, Any]) -> None:
    """Run the command line, with a signal sent at a chosen place."""
    os.chdir(job["cwd"])
    # A shell has its background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job.get("limit"):
        limit_file_sizes(job["limit"])
    if job.get("phase"):
        signal_at(job["phase"], getattr(signal, job["signal"]), Path(job["log"]))
    with ended(job), faults(job):
        sys.exit(cli.main(job["argv"]))


@contextlib.contextmanager
def ended(job: dict[str, Any]) -> Iterator[None]:
    """Exit as the command line would, with what was said in the log of the job."""
    log = open(job["log"], "a", encoding="utf-8")  # noqa: PTH123, SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    logging.basicConfig(stream=log, level=logging.INFO, force=True)
    try:
        yield
    except Interrupted as stop:
        print(stop, file=log, flush=True)
        os._exit(stop.exit_code)
    except TextAdvError as error:
        limit_file_sizes(resource.RLIM_INFINITY)
        print(error, file=log, flush=True)
        os._exit(error.exit_code)


def file_limit(job: dict[str, Any]) -> None:
    """Train under a limit on file sizes: a real error of the system, in Rust and Python alike."""
    limit = job["limit"]
    step = textadv.trainer.Trainer._step

    def limited(trainer: Any, prepared: Any, optimizer: Any, state: Any) -> None:
        if state.step == 3:
            limit_file_sizes(limit)
        step(trainer, prepared, optimizer, state)

    textadv.trainer.Trainer._step = limited  # type: ignore[method-assign]
    train(job)


def small_disk(job: dict[str, Any]) -> None:
    """Train on a file system of its own that fills up after step 3; free it, and train on.

    The run directory is copied to `folder`, and what the first run exited with to `first`.
    """
    folder, room = Path(job["folder"]), Path(job["mount"])
    mount_small_disk(room, job["size"])
    filler = room / "filler"
    step = textadv.trainer.Trainer._step

    def filled(trainer: Any, prepared: Any, optimizer: Any, state: Any) -> None:
        if state.step == 3:
            with filler.open("wb") as stream:
                stream.write(bytes(shutil.disk_usage(room).free - job["left"]))
        step(trainer, prepared, optimizer, state)

    inner = {**job, "folder": str(room / "run")}
    first = os.fork()
    if first == 0:
        textadv.trainer.Trainer._step = filled  # type: ignore[method-assign]
        train(inner)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    whole = list((room / "run" / "checkpoints").glob("step-*"))
    verified = all(checkpoint._fault(path) is None for path in whole)
    left = [path.name for path in (room / "run").rglob(".*.tmp")]
    filler.unlink()
    second = os.fork()
    if second == 0:
        train(inner)
        os._exit(0)
    again = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
    shutil.copytree(room / "run", folder)
    result = {"first": status, "verified": verified and bool(whole), "left": left, "again": again}
    Path(job["counted"]).write_text(json.dumps(result), encoding="utf-8")


def can_mount(job: dict[str, Any]) -> None:
    """Exit 0 where a small disk can be mounted."""
    try:
        mount_small_disk(Path(job["mount"]), 1 << 20)
    except OSError:
        os._exit(1)


def hold(job: dict[str, Any]) -> None:
    """Own a run directory until killed."""
    from textadv.runlock import run_lock

    with run_lock(job["folder"]):
        Path(job["counted"]).write_text("held", encoding="utf-8")
        time.sleep(60)


def memory(job: dict[str, Any]) -> None:
    """Save 60 checkpoints and write the resident memory after each, in bytes."""
    sizes: list[int] = []
    save = RunStore.save

    def measured(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        sizes.append(pages * resource.getpagesize())

    RunStore.save = measured  # type: ignore[method-assign]
    trainer = make_trainer(Path(job["folder"]), "pgd", max_steps=60, save_steps=1, eval_steps=60)
    with ended(job):
        trainer.fit()
    Path(job["counted"]).write_text(json.dumps(sizes), encoding="utf-8")


def make_recipe(folder: Path) -> Path:
    """Write a model, data and a recipe for the command line, and return the recipe."""
    save_tiny_model(folder / "base", num_labels=2)
    for index, (split, count) in enumerate({"train": 48, "validation": 16, "test": 12}.items()):
        lines = [json.dumps(row) + "\n" for row in sentiment_rows(count, seed=index)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: {folder / 'base'}, new_head: true}}\n"
        "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl, "
        "max_length: 32}\n"
        "objective: {name: adversarial, perturbation: {name: fgm, epsilon: 0.3}}\n"
        "training: {max_steps: 8, batch_size: 8, precision: fp32, save_steps: 2, eval_steps: 2,"
        " log_steps: 1}\n"
        "evaluation: {attacks: [deepwordbug], num_examples: 12, query_budget: 60}\n",
        encoding="utf-8",
    )
    return recipe


def warm(job: dict[str, Any]) -> None:
    """Do nothing."""
