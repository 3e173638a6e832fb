"""Run a cascade on a model: survivors only, resumable, one record per example and attack."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from textadv.attacks import run
from textadv.attacks.base import Example, config_hash
from textadv.attacks.examples import check_examples, sample_examples, sample_hash
from textadv.attacks.records import Record, RecordFile
from textadv.ball import broken_at
from textadv.batching import Encoded
from textadv.cascade.definition import CASCADES, Ball, Cascade, Stage, get_cascade
from textadv.cascade.figures import Figures
from textadv.cascade.plan import Mode, Plan, make_plan
from textadv.classifier import ModelVictim
from textadv.embeddings import EmbeddingPort
from textadv.errors import ConfigError, shown
from textadv.report import RobustnessReport
from textadv.validation import mean_token_norm
from textadv.victim import Victim

__all__ = ["evaluate_cascade"]

Outcomes = dict[str, dict[str, Record]]
"""Records by the name of the attack and the id of the example."""


def evaluate_cascade(
    victim: Victim,
    examples: Sequence[Example],
    cascade: str | Cascade = "standard-v1",
    output_dir: str | Path | None = None,
    progress: Callable[[Record], None] | None = None,
    *,
    mode: Mode = "survivors",
    tracks: Sequence[str] | None = None,
    num_examples: int | None = None,
    seed: int = 0,
    model: str = "",
    data: str = "",
    resources: Mapping[str, str] | None = None,
    width: int = 64,
    commands: Sequence[str] = (),
) -> RobustnessReport:
    """Attack a sample with a frozen cascade and return the report.

    With an output directory, `records.jsonl` is written as searches end, a second call goes on
    where the first was stopped, and `report.json` and `report.md` are written at the end. Attacks
    that lack a resource, or need a model that can be differentiated, are reported as not run.

    Args:
        victim: The model.
        examples: What the sample is drawn from.
        cascade: A cascade, or its name.
        output_dir: Where to write.
        progress: Called with every new record.
        mode: `"survivors"`: what an attack flips is not tried on by later attacks of its group.
            `"individual"`: every attack is run on every example.
        tracks: Tracks to run; all by default.
        num_examples: Size of the sample; the cascade's by default.
        seed: Of the sample and of the attacks.
        model: Name of the model in the report.
        data: Name of the data in the report.
        resources: Paths by field of an attack: `wordnet`, `vectors`, `masked_lm`, `encoder`, ...
        width: Searches that run at once.
        commands: What repeats the run, for the report; found out where model and data are files.

    Raises:
        ConfigError: An unknown cascade, mode or track, or not one attack that can run.
        DataError: No examples, or labels the model does not have.
        OutputExistsError: The directory holds the records of another run.
    """
    if mode not in ("survivors", "individual"):
        raise ConfigError("mode", got=shown(mode), expected="'survivors' or 'individual'")
    whole = get_cascade(cascade) if isinstance(cascade, str) else cascade
    sample = sample_examples(examples, num_examples or whole.num_examples, seed)
    check_examples(victim, sample)
    plan = make_plan(whole, mode, victim, tracks or (), resources)
    header = {
        "config_hash": config_hash(
            [whole.hash(), mode, seed, plan.ball is not None, plan.identities]
        ),
        "data_hash": sample_hash(sample),
        "model": model,
    }
    with _record_file(output_dir, header) as file:
        done: Outcomes = {}
        for record in file.records if file is not None else ():
            done.setdefault(record.attack, {})[record.id] = record
        for record in _records(plan, victim, sample, done, seed, width):
            done.setdefault(record.attack, {})[record.id] = record
            if file is not None:
                file.append(record)
            if progress is not None:
                progress(record)
    ids = [example.id for example in sample]
    scale = mean_token_norm(*_encoded(victim, sample)) if isinstance(victim, ModelVictim) else 0.0
    report = dataclasses.replace(
        Figures(plan, ids, done).report(seed, scale, (resources or {}).get("encoder")),
        model=model,
        data=data,
        data_hash=header["data_hash"],
        commands=tuple(commands)
        or tuple(_command(whole, mode, tracks, len(sample), seed, victim, model, data)),
    )
    if output_dir is not None:
        report.save(output_dir)
    return report


@contextlib.contextmanager
def _record_file(
    output_dir: str | Path | None, header: dict[str, str]
) -> Iterator[RecordFile | None]:
    if output_dir is None:
        yield None
        return
    with RecordFile(Path(output_dir) / "records.jsonl", header) as file:
        yield file


def _records(
    plan: Plan,
    victim: Victim,
    sample: Sequence[Example],
    done: Outcomes,
    seed: int,
    width: int,
) -> Iterator[Record]:
    """Yield new records, stage by stage; `done` grows with them."""
    for name, attack in plan.attacks.items():
        stage = plan.stage(name)
        own = done.setdefault(name, {})
        left = [
            example
            for example in sample
            if example.id not in own and _goes_on(plan, done, stage, example.id)
        ]
        yield from run(
            {name: attack}, victim, left, query_budget=stage.query_budget, seed=seed, width=width
        )
    if plan.ball is not None and isinstance(victim, ModelVictim):
        yield from _ball_records(plan.ball, victim, sample, done, seed)


def _goes_on(plan: Plan, done: Outcomes, stage: Stage, name: str) -> bool:
    """Return whether an example reaches a stage: not flipped, nor wrong, earlier in its group."""
    if plan.mode == "individual":
        return True
    group = plan.groups[plan.cascade.group(stage.track)]
    before = group[: group.index(stage.name)]
    found = [done[attack][name].status for attack in before if name in done.get(attack, {})]
    return not {"flipped", "wrong_before"} & set(found)


def _ball_records(
    ball: Ball, victim: ModelVictim, sample: Sequence[Example], done: Outcomes, seed: int
) -> Iterator[Record]:
    names = [ball.name(radius) for radius in ball.radii]
    if all(one.id in done.get(name, {}) for one in sample for name in names):
        return
    # Batches are those of the whole sample, so that a resumed run sees the same ones.
    finished = {
        place
        for place, one in enumerate(sample)
        if all(one.id in done.get(name, {}) for name in names)
    }
    port, encoded = _encoded(victim, sample)
    scale = mean_token_norm(port, encoded)
    right = victim.logits([one.words.texts for one in sample]).argmax(dim=1).tolist()
    for place, broken in broken_at(
        port,
        encoded,
        [radius * scale for radius in ball.radii],
        num_steps=ball.num_steps,
        restarts=ball.restarts,
        seed=seed,
        skip=finished,
    ):
        example, prediction = sample[place], right[place]
        for radius, name in zip(ball.radii, names, strict=True):
            if example.id in done.get(name, {}):
                continue
            wrong = prediction != example.label
            flipped = broken is not None and broken <= radius * scale * (1 + 1e-9)
            yield Record(
                id=example.id,
                attack=name,
                status="wrong_before" if wrong else "flipped" if flipped else "survived",
                label=example.label,
                prediction=prediction,
                text=example.words.texts,
                num_queries=(ball.num_steps + 1) * ball.restarts,
                num_words=len(example.words),
            )


def _command(
    cascade: Cascade,
    mode: Mode,
    tracks: Sequence[str] | None,
    num_examples: int,
    seed: int,
    victim: Victim,
    model: str,
    data: str,
) -> Iterator[str]:
    """Yield the command line that does the same, where there is one."""
    frozen = CASCADES.get(cascade.name) == cascade and not tracks
    if not (frozen and isinstance(victim, ModelVictim)):
        return
    if not (model and data and Path(model).is_dir() and Path(data).is_file()):
        return
    words = ["textadv", "evaluate", model, "--data", data, "--cascade", cascade.name]
    words += ["--num-examples", str(num_examples), "--seed", str(seed)]
    words += ["--max-length", str(victim.max_length)]
    yield shlex.join([*words, *(["--individual"] if mode == "individual" else [])])


def _encoded(victim: ModelVictim, sample: Sequence[Example]) -> tuple[EmbeddingPort, Encoded]:
    encoded = Encoded.from_examples(sample, victim.tokenizer, max_length=victim.max_length)
    return EmbeddingPort(victim.model, victim.tokenizer), encoded
