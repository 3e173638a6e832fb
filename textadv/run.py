"""From a recipe to a run directory: load, train, attack, report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textadv import checkpoint
from textadv.batching import Encoded
from textadv.config import Recipe, as_dict, dump_recipe
from textadv.data import LabelSpace, TextData, load_data
from textadv.data.tokens import token_notes
from textadv.diskspace import full_disk_named
from textadv.errors import CheckpointError, ConfigError, OutputExistsError, shown
from textadv.evaluate import make_examples, sample_examples
from textadv.files import check_writable
from textadv.interrupts import Interrupted, listening
from textadv.journal import Callback
from textadv.launch import resolve_precision
from textadv.measure import evaluate_victim
from textadv.models import load_for_training, max_positions
from textadv.report import RobustnessReport
from textadv.runlock import LOCK, run_lock
from textadv.seeding import preserve_rng, python_random, seed_everything
from textadv.trainer import Trainer, TrainResult
from textadv.validation import perturbation_labels
from textadv.victim import ModelVictim

__all__ = ["RunResult", "check_recipe", "claim_folder", "evaluate_model", "run_recipe"]

RECIPE, RECORDS = "recipe.yaml", "records.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run ends with.

    Args:
        training: Result of the training loop.
        report: Clean accuracy and accuracy under attack; None for heads that cannot be attacked.
        notes: What the data made worth knowing.
    """

    training: TrainResult
    report: RobustnessReport | None
    notes: list[str]


def run_recipe(
    recipe: Recipe,
    output_dir: str | Path,
    *,
    base_dir: str | Path = ".",
    resume: bool = False,
    callback: Callback | None = None,
    progress: Callable[[Any], None] | None = None,
) -> RunResult:
    """Train as a recipe says, attack the result, and leave everything in `output_dir`.

    The directory holds `recipe.yaml` (resolved, enough to repeat the run), `model/`,
    `metrics.jsonl`, `env.json`, `checkpoints/`, and from the evaluation `records.jsonl`,
    `report.json` and `report.md`.

    Args:
        recipe: The recipe.
        output_dir: A new or empty directory, or with `resume` one that holds this run.
        base_dir: Directory that relative data paths start from: the recipe's own.
        resume: Continue where the newest whole checkpoint ends, or start again if there is none.
        callback: Told about training steps and validations.
        progress: Told about each finished attack record.

    Raises:
        TextAdvError: For anything wrong with recipe, data, model or directory, before training.
        Interrupted: After SIGTERM, SIGINT or SIGUSR1, with everything saved that was finished.
    """
    folder = Path(output_dir)
    try:
        with listening(), full_disk_named(folder), run_lock(folder):
            if int(os.environ.get("RANK", "0")) == 0:
                claim_folder(folder, resume=resume)
            return _run(recipe, folder, Path(base_dir), resume, callback, progress)
    except Interrupted as stop:
        if not (folder / RECIPE).is_file():
            raise
        advice = f"textadv train {shlex.quote(str(folder))} --resume"
        raise Interrupted(stop.signum, stop.saved, advice) from None


def _run(
    recipe: Recipe,
    folder: Path,
    base_dir: Path,
    resume: bool,
    callback: Callback | None,
    progress: Callable[[Any], None] | None,
) -> RunResult:
    data = check_recipe(recipe, base_dir)
    seed = recipe.training.seed
    with preserve_rng():
        seed_everything(seed, "head")
        model, tokenizer = load_for_training(
            recipe.model, data.labels.id2label, data.labels.problem_type
        )
    limit = max_positions(model, tokenizer)
    if limit is not None and recipe.data.max_length > limit:
        raise ConfigError(
            "data.max_length", got=str(recipe.data.max_length), expected=f"at most {limit} tokens"
        )
    encoded = _encode(recipe, data, tokenizer)
    main = int(os.environ.get("RANK", "0")) == 0
    resolved = dump_recipe(_moved(recipe, base_dir, folder))
    if main and not resume:
        checkpoint.write_text(folder / RECIPE, resolved)
    trainer = Trainer(
        model,
        tokenizer,
        recipe.objective,
        recipe.training,
        encoded["train"],
        output_dir=folder,
        validation=encoded.get("validation"),
        perturbations=perturbation_labels(recipe.evaluation.perturbations),
        fingerprint=_fingerprint(recipe, data),
        callback=callback,
        merge_adapters=recipe.model.lora is None or recipe.model.lora.merge,
    )
    # A run that ended before it trained is resumed from its start.
    result = trainer.fit(resume=resume and trainer.store.checkpoints.is_dir())
    if main and resume:
        # Only now is it known to be a recipe that may go on here.
        checkpoint.write_text(folder / RECIPE, resolved)
    report = None
    split = "test" if "test" in data.splits else "validation"
    if trainer.accelerator.is_main_process and split in data.splits:
        report = evaluate_model(
            result.model,
            tokenizer,
            data.splits[split],
            data.labels,
            recipe.evaluation,
            max_length=recipe.data.max_length,
            output_dir=folder,
            name=f"{recipe.model.name}, {as_dict(recipe.objective)['name']} training",
            data_name=_data_name(recipe, split),
            progress=progress,
        )
    texts = data.splits["train"].with_format(None)["text"][:]
    notes = [*data.notes, *token_notes("train", texts, tokenizer, recipe.data.max_length)]
    return RunResult(training=result, report=report, notes=notes)


def check_recipe(recipe: Recipe, base_dir: str | Path = ".") -> TextData:
    """Load and check a recipe's data, and whether its blocks fit together; no model is loaded."""
    data = load_data(
        recipe.data, base_dir=base_dir, seed=recipe.training.seed, where="recipe: data"
    )
    recipe.check(data.labels.problem_type, data.labels.num_labels)
    lora = recipe.model.lora
    if lora is not None and lora.base == "bfloat16":
        precision = resolve_precision(recipe.training.precision)
        if precision != "bf16":
            raise ConfigError(
                "recipe: model.lora.base",
                got=f"bfloat16 with {'fp32' if precision == 'no' else precision} training",
                expected="bf16 training, which multiplies float32 by bfloat16",
                fix="set training.precision: bf16, or model.lora.base: float32",
            )
    return data


def evaluate_model(
    model: Any,
    tokenizer: Any,
    examples: Any,
    labels: LabelSpace,
    config: Any,
    *,
    max_length: int,
    output_dir: str | Path,
    name: str,
    data_name: str,
    progress: Callable[[Any], None] | None = None,
) -> RobustnessReport | None:
    """Attack a model in text and embedding space on the same sample, and write the report.

    Args:
        model: A sequence classifier.
        tokenizer: Its tokenizer.
        examples: Dataset with the columns `id`, `text` and `label`.
        labels: The label space.
        config: The `evaluation` block.
        max_length: Longest input in tokens.
        output_dir: Gets `records.jsonl`, `report.json` and `report.md`.
        name: Name of the model in the report.
        data_name: Name of the data in the report.
        progress: Told about each finished attack record.

    Returns:
        The report; None unless every example has exactly one class.
    """
    if labels.task != "single_label":
        return None
    columns = examples.with_format(None)[:]
    sample = sample_examples(
        make_examples(columns["text"], columns["label"], ids=columns["id"]),
        config.num_examples,
        config.seed,
    )
    victim = ModelVictim(
        model,
        tokenizer,
        device=next(model.parameters()).device,
        max_length=min(max_length, config.max_length or max_length),
        batch_tokens=config.batch_tokens,
    )
    return evaluate_victim(
        victim,
        sample,
        config,
        output_dir,
        name=name,
        data_name=data_name,
        progress=progress,
        commands=["textadv train recipe.yaml --output-dir RUN"],
    )


def _encode(recipe: Recipe, data: TextData, tokenizer: Any) -> dict[str, Encoded]:
    """Encode the training split, and the fixed sample of validation."""
    options = {
        "max_length": recipe.data.max_length,
        "pad_to_multiple_of": recipe.training.pad_to_multiple_of,
    }
    encoded = {"train": Encoded.from_dataset(data.splits["train"], tokenizer, **options)}
    if "validation" in data.splits:
        rows, limit = data.splits["validation"], recipe.training.eval_examples
        if limit is not None and limit < len(rows):
            random = python_random(recipe.training.seed, "validation")
            rows = rows.select(sorted(random.sample(range(len(rows)), limit)))
        encoded["validation"] = Encoded.from_dataset(rows, tokenizer, **options)
    return encoded


def claim_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a directory that already holds something, or, to be resumed, that holds no run."""
    check_writable(folder)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found = [name for name in found if name != LOCK]
    if resume and not {RECIPE, RECORDS, "checkpoints"} & {*found}:
        raise CheckpointError(
            str(folder),
            got=shown(", ".join(found[:4])) if found else "nothing to resume",
            expected="a directory that holds a run",
            fix="leave --resume out to start one",
        )
    if not resume and found:
        raise OutputExistsError(
            str(folder),
            got="a directory that holds " + shown(", ".join(found[:4])),
            expected="a new or empty directory",
            fix="choose another --output-dir, or continue a run with --resume",
        )


def _data_name(recipe: Recipe, split: str) -> str:
    source = getattr(recipe.data, split)
    if recipe.data.name is None:
        return Path(source or recipe.data.train or "").name
    return f"{recipe.data.name} ({source or split})"


def _moved(recipe: Recipe, base_dir: str | Path, folder: Path) -> Recipe:
    """Return the recipe with data files relative to `folder`, so that its copy there runs."""
    if recipe.data.name is not None:
        return recipe
    paths: dict[str, Any] = {
        split: os.path.relpath(Path(base_dir) / file, folder)
        for split in ("train", "validation", "test")
        if (file := getattr(recipe.data, split)) is not None
    }
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **paths))


def _fingerprint(recipe: Recipe, data: TextData) -> dict[str, Any]:
    """Return what must not change between a run and its continuation."""
    blocks = {name: as_dict(getattr(recipe, name)) for name in ("model", "objective", "training")}
    for free in ("trackers", "log_steps", "keep_checkpoints", "save_steps"):
        blocks["training"].pop(free)
    hashes = {
        name: hashlib.sha256(json.dumps(block, sort_keys=True).encode()).hexdigest()[:16]
        for name, block in blocks.items()
    }
    return {**hashes, "data": dict(data.digests), "max_length": recipe.data.max_length}
