"""Training: exact resume, equal splits of a step, best weights, plain checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import textadv
from tests.models import make_tokenizer, sentiment_rows
from textadv.batching import Encoded
from textadv.errors import (
    CheckpointError,
    ConfigError,
    LaunchError,
    NonFiniteError,
    OutputExistsError,
)
from textadv.launch import make_accelerator, resolve_precision
from textadv.objectives import Adversarial, Clean, FreeLB, Schedule
from textadv.perturb import PGD
from textadv.testing import tiny_model
from textadv.trainer import Trainer
from textadv.training import TrainingConfig, learning_rate_factor

OBJECTIVES = {
    "clean": Clean(),
    "fgm": Adversarial(perturbation=textadv.FGM(epsilon=0.3), epsilon_schedule=Schedule(end=0.5)),
    "pgd": Adversarial(perturbation=PGD(epsilon=0.3, num_steps=2, init="uniform")),
    "freelb": FreeLB(perturbation=PGD(epsilon=0.3, step_size=0.1, num_steps=2, init="uniform")),
    "trades": textadv.TRADES(),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def exact_model():
    """Without dropout and in float64, where Adam does not turn rounding into steps."""
    return tiny_model("bert", num_labels=2, **NO_DROPOUT).double()


def encode(rows):
    return Encoded([[r["text"]] for r in rows], [r["label"] for r in rows], make_tokenizer())


def make_trainer(folder, objective=OBJECTIVES["clean"], *, model=None, count=40, **fields):
    settings = {
        "learning_rate": 1e-3,
        "epochs": 2.0,
        "batch_size": 8,
        "precision": "fp32",
        "log_steps": 2,
        "save_steps": 3,
        **fields,
    }
    return Trainer(
        tiny_model("bert", num_labels=2) if model is None else model,
        make_tokenizer(),
        objective,
        TrainingConfig(**settings),
        encode(sentiment_rows(count)),
        output_dir=folder,
        validation=encode(sentiment_rows(24, seed=1)),
        perturbations={"pgd": PGD(epsilon=0.3)},
        fingerprint={"objective": repr(objective)},
    )


class Stop(Exception):
    """Stands for a killed process."""


class StopAt:
    """Raise after a step, before anything else can be written."""

    def __init__(self, step, stop=Stop):
        self.step, self.stop = step, stop

    def on_start(self, info):
        """Nothing to do."""

    def on_step(self, step, figures):
        """Stop at the chosen step."""
        if step == self.step:
            raise self.stop

    def on_validation(self, step, figures):
        """Nothing to do."""


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_stopped_run_ends_as_if_it_had_not_stopped(name, stop, tmp_path):
    whole = make_trainer(tmp_path / "whole", OBJECTIVES[name], best_metric="clean_loss")
    expected = whole.fit()
    broken = make_trainer(tmp_path / "broken", OBJECTIVES[name], best_metric="clean_loss")
    broken.callback = StopAt(stop)
    with pytest.raises(Stop):
        broken.fit()
    torch.manual_seed(99)  # a new process has another global random state
    resumed = make_trainer(tmp_path / "broken", OBJECTIVES[name], best_metric="clean_loss")
    found = resumed.fit(resume=True)
    left, right = expected.model.state_dict(), found.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "broken")
    assert (expected.best_step, expected.metrics) == (found.best_step, found.metrics)


def test_the_resume_test_can_fail(tmp_path):
    """Two different steps give different weights, and so does another seed."""
    models = []
    for index, fields in enumerate(
        ({"max_steps": 4}, {"max_steps": 5}, {"max_steps": 4, "seed": 1})
    ):
        result = make_trainer(tmp_path / str(index), **fields).fit()
        models.append(result.model.classifier.weight.detach())
    assert not torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.parametrize("name", ["clean", "fgm"])
def test_accumulation_equals_one_large_batch(name, tmp_path):
    weights = []
    for index, (batch, accumulation) in enumerate([(8, 1), (2, 4)]):
        trainer = make_trainer(
            tmp_path / str(index),
            OBJECTIVES[name],
            model=exact_model(),
            batch_size=batch,
            gradient_accumulation_steps=accumulation,
            length_bucketing=False,
            max_steps=3,
        )
        weights.append(trainer.fit().model.state_dict())
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], rtol=1e-9, atol=1e-9)


def test_the_run_directory_is_complete_and_the_model_plain(tmp_path):
    result = make_trainer(tmp_path / "run", OBJECTIVES["fgm"]).fit()
    files = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not [f for f in files if f.endswith((".bin", ".pt", ".pkl")) or "manifest" in f]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    inputs = tokenizer(["a good film"], return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, result.model(**inputs).logits)
    assert type(result.model).__name__ == "BertForSequenceClassification"
    assert not any(m._forward_hooks for m in result.model.modules())
    assert not result.model.training
    rows = rows_of(tmp_path / "run")
    last = [row for row in rows if row["split"] == "validation"][-1]
    assert {"clean_accuracy", "clean_loss", "accuracy_under_pgd", "loss_under_pgd"} <= last.keys()
    assert result.metrics.items() <= last.items()
    train = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in train] == [2, 4, 6, 8, 10]
    assert {"loss", "clean_loss", "adversarial_loss", "adversarial_accuracy"} <= train[-1].keys()
    info = json.loads((tmp_path / "run" / "env.json").read_text())
    assert info["num_processes"] == 1
    assert info["versions"]["torch"] == torch.__version__.split("+")[0] or info["versions"]["torch"]


def test_training_learns_and_leaves_global_random_state_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    result = make_trainer(
        tmp_path / "run", count=300, epochs=6.0, batch_size=16, learning_rate=1e-2
    ).fit()
    assert torch.equal(torch.get_rng_state(), before)
    assert result.metrics["clean_accuracy"] >= 0.9


def test_the_best_step_becomes_the_model_and_patience_stops(tmp_path):
    trainer = make_trainer(
        tmp_path / "run",
        eval_steps=1,
        best_metric="clean_accuracy",
        patience=2,
        epochs=20.0,
        learning_rate=3e-3,
    )
    result = trainer.fit()
    rows = [row for row in rows_of(tmp_path / "run") if row["split"] == "validation"]
    values = [row["clean_accuracy"] for row in rows]
    assert result.step == len(rows) < trainer.total_steps
    assert result.best_step == 1 + values.index(max(values)) == len(rows) - 2
    again = textadv.validation.validate(
        textadv.wrap(result.model),
        trainer.validation,
        {},
        trainer.accelerator,
        batch_size=8,
        seed=0,
    )
    assert again["clean_accuracy"] == pytest.approx(max(values))


def test_an_unknown_best_metric_is_named(tmp_path):
    with pytest.raises(ConfigError, match="accuracy_under_pgd"):
        make_trainer(tmp_path / "run", best_metric="accuracy_under_fgm").fit()


def test_directories_of_other_runs_are_left_alone(tmp_path):
    make_trainer(tmp_path / "run", max_steps=3).fit()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    with pytest.raises(OutputExistsError, match="--resume"):
        make_trainer(tmp_path / "run", max_steps=3).fit()
    with pytest.raises(CheckpointError, match="another objective"):
        make_trainer(tmp_path / "run", OBJECTIVES["fgm"], max_steps=3).fit(resume=True)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before
    with pytest.raises(CheckpointError, match="no checkpoints"):
        make_trainer(tmp_path / "none").fit(resume=True)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(file, damage, tmp_path):
    expected = make_trainer(tmp_path / "whole", max_steps=6).fit()
    broken = make_trainer(tmp_path / "run", max_steps=6)
    broken.callback = StopAt(6)
    with pytest.raises(Stop):
        broken.fit()
    newest = tmp_path / "run" / "checkpoints" / "step-00000003"
    older = newest.with_name("step-00000002")
    other = make_trainer(tmp_path / "other", max_steps=6, save_steps=1)
    other.callback = StopAt(3)
    with pytest.raises(Stop):
        other.fit()
    (tmp_path / "other" / "checkpoints" / "step-00000002").rename(older)
    target = newest / file
    content = bytearray(target.read_bytes())
    if damage == "missing":
        target.unlink()
    else:
        content[len(content) // 2] ^= 1
        kept = {"empty": 0, "cut": len(content) // 2, "flipped": len(content)}[damage]
        target.write_bytes(bytes(content[:kept]))
    found = make_trainer(tmp_path / "run", max_steps=6).fit(resume=True)
    assert newest.with_name("damaged-step-00000003").is_dir()
    left, right = expected.model.state_dict(), found.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_nothing_left_to_resume_from_is_an_error(tmp_path):
    make_trainer(tmp_path / "run", max_steps=3).fit()
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        (folder / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="all damaged"):
        make_trainer(tmp_path / "run", max_steps=3).fit(resume=True)


def test_non_finite_gradients_never_reach_the_weights(tmp_path):
    trainer = make_trainer(tmp_path / "run", max_steps=8)
    seen = []
    model = trainer.model
    start = {key: value.clone() for key, value in model.state_dict().items()}

    def poison(module, args, output):
        if module.training:
            seen.append(1)
            return output * float("nan")
        return output

    model.classifier.register_forward_hook(poison)
    with pytest.raises(NonFiniteError, match="3 such steps in a row"):
        trainer.fit()
    assert len(seen) == 3
    assert all(torch.equal(start[k], v) for k, v in model.state_dict().items())


def test_one_bad_step_is_skipped_and_counted(tmp_path):
    trainer = make_trainer(tmp_path / "run", max_steps=5)
    calls = []

    def poison(module, args, output):
        calls.append(module.training)
        return output * float("nan") if sum(calls) == 2 and module.training else output

    trainer.model.classifier.register_forward_hook(poison)
    result = trainer.fit()
    assert result.skipped == 1
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


@pytest.mark.parametrize("switch", ["gradient_checkpointing", "freeze_embeddings"])
def test_switches(switch, tmp_path):
    model = tiny_model("bert", num_labels=2, **NO_DROPOUT)
    words = model.get_input_embeddings().weight.detach().clone()
    plain = make_trainer(
        tmp_path / "plain",
        OBJECTIVES["pgd"],
        model=tiny_model("bert", num_labels=2, **NO_DROPOUT),
        max_steps=3,
    ).fit()
    switched = make_trainer(
        tmp_path / "switched", OBJECTIVES["pgd"], model=model, max_steps=3, **{switch: True}
    ).fit()
    same = torch.equal(switched.model.get_input_embeddings().weight, words)
    assert same == (switch == "freeze_embeddings")
    if switch == "gradient_checkpointing":
        for left, right in zip(plain.model.parameters(), switched.model.parameters(), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_weights(tmp_path):
    torch._dynamo.reset()
    objective = Adversarial(perturbation=textadv.FGM(epsilon=0.3))
    results = [
        make_trainer(
            tmp_path / str(compiled), objective, model=exact_model(), max_steps=2, compile=compiled
        ).fit()
        for compiled in (False, True)
    ]
    pairs = zip(results[0].model.parameters(), results[1].model.parameters(), strict=True)
    for left, right in pairs:
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-7)


def test_trackers_get_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    make_trainer(tmp_path / "run", max_steps=2, trackers=["tensorboard"]).fit()
    assert list((tmp_path / "run" / "trackers").rglob("events.out*"))


def test_an_unknown_tracker_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.trackers"):
        make_trainer(tmp_path / "run", max_steps=2, trackers=["nosuch"]).fit()


def test_unrelated_jobs_are_detected(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match=r"2 processes started, 1 in this one's group"):
        make_accelerator("fp32")


def test_precision_follows_the_hardware(monkeypatch):
    assert resolve_precision("fp32") == "no"
    assert resolve_precision("bf16") == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("auto") == "no"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve_precision("auto") == "bf16"
    with pytest.raises(ConfigError, match="fp16 on a CPU"):
        resolve_precision("fp16")


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_learning_rate_rises_then_follows_its_schedule(schedule):
    config = TrainingConfig(warmup_fraction=0.2, lr_schedule=schedule)
    factors = [learning_rate_factor(step, 50, config) for step in range(50)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(0 < factor <= 1 for factor in factors)
    tail = factors[10:]
    assert tail == sorted(tail, reverse=True)
    assert tail[-1] == (1 if schedule == "constant" else pytest.approx(0, abs=0.03))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate: got 0.0, expected a number > 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"warmup_fraction": 1.5}, "warmup_fraction"),
        ({"patience": 2}, "best_metric"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"save_steps": 0}, "save_steps"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**fields)
