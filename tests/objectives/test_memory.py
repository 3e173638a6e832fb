"""Methods that remember: exact resume, replays, and what cannot be combined with them."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.models import make_tokenizer, sentiment_rows
from tests.test_trainer import Stop, StopAt
from textadv.batching import Encoded
from textadv.objectives import FAT, SMART, TAVAT, Clean, FreeAT
from textadv.testing import tiny_model
from textadv.trainer import Trainer
from textadv.training import TrainingConfig

OBJECTIVES = {
    "free": FreeAT(num_replays=3),
    "fat": FAT(period=2),
    "tavat": TAVAT(),
    "smart with average": SMART(bregman=1.0),
}


def encode(count, seed=0):
    rows = sentiment_rows(count, seed)
    return Encoded([[r["text"]] for r in rows], [r["label"] for r in rows], make_tokenizer())


def trainer(folder, objective, **options):
    settings = {"learning_rate": 1e-3, "epochs": 3.0, "batch_size": 8, "precision": "fp32"}
    return Trainer(
        tiny_model("bert", num_labels=2),
        make_tokenizer(),
        objective,
        TrainingConfig(**settings, save_steps=2, log_steps=1, **options),
        encode(40),
        output_dir=folder,
        validation=encode(16, 1),
    )


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("stop", [3, 8])
def test_a_resumed_run_remembers(name, stop, tmp_path):
    whole = trainer(tmp_path / "whole", OBJECTIVES[name])
    expected = whole.fit().model.state_dict()
    broken = trainer(tmp_path / "broken", OBJECTIVES[name])
    broken.callback = StopAt(stop)
    with pytest.raises(Stop):
        broken.fit()
    assert list((tmp_path / "broken" / "checkpoints").rglob("memory.safetensors"))
    resumed = trainer(tmp_path / "broken", OBJECTIVES[name])
    found = resumed.fit(resume=True).model.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert whole.port.memory.keys() == resumed.port.memory.keys()
    for key, value in whole.port.memory.items():
        assert torch.equal(resumed.port.memory[key], value), key
    files = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    again = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert len(files) == len(again)


def test_forgetting_is_noticed(tmp_path):
    """The test above can fail: without the memory, training ends elsewhere."""
    expected = trainer(tmp_path / "whole", OBJECTIVES["tavat"]).fit().model.state_dict()
    broken = trainer(tmp_path / "broken", OBJECTIVES["tavat"])
    broken.callback = StopAt(8)
    with pytest.raises(Stop):
        broken.fit()
    resumed = trainer(tmp_path / "broken", OBJECTIVES["tavat"])
    resume = resumed.store.resume
    resumed.store.resume = lambda model, optimizer, scaler, memory, **options: resume(
        model, optimizer, scaler, {}, **options
    )
    found = resumed.fit(resume=True).model.state_dict()
    assert any(not torch.equal(found[key], expected[key]) for key in expected)


def test_batches_are_dealt_once_for_each_replay(tmp_path):
    run = trainer(tmp_path, FreeAT(num_replays=3))
    dealt = []
    batch = run.train_data.batch
    run.train_data.batch = lambda indices, device: (
        dealt.append(list(indices)),
        batch(indices, device),
    )[1]
    run.fit()
    assert len(dealt) == run.total_steps == 15
    assert all(dealt[i] == dealt[i - i % 3] for i in range(15))
    assert len({tuple(d) for d in dealt}) == 5


@pytest.mark.parametrize("name", ["free", "tavat"])
def test_memory_moves_once_a_step_under_accumulation_and_resumes(name, tmp_path):
    options = {"gradient_accumulation_steps": 2}
    whole = trainer(tmp_path / "whole", OBJECTIVES[name], **options)
    moves = []
    remember = type(OBJECTIVES[name]).remember
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(OBJECTIVES[name]),
            "remember",
            lambda self, port, notes: (moves.append(len(notes)), remember(self, port, notes)),
        )
        expected = whole.fit().model.state_dict()
    # Five batches of eight: two, two, and one, three times over.
    assert moves == ([2] * 6 + [1] * 3 if name == "free" else [2, 2, 1] * 3)
    broken = trainer(tmp_path / "broken", OBJECTIVES[name], **options)
    broken.callback = StopAt(5)
    with pytest.raises(Stop):
        broken.fit()
    found = trainer(tmp_path / "broken", OBJECTIVES[name], **options).fit(resume=True)
    assert all(torch.equal(value, expected[key]) for key, value in found.model.state_dict().items())


def test_the_alarm_reaches_the_log(tmp_path, caplog, monkeypatch):
    figures = iter(
        [
            {"clean_loss": 1.0, "accuracy_under_pgd": 0.6, "accuracy_under_fgm": 0.6},
            {"clean_loss": 1.0, "accuracy_under_pgd": 0.3, "accuracy_under_fgm": 0.8},
            {"clean_loss": 1.0, "accuracy_under_pgd": 0.3, "accuracy_under_fgm": 0.8},
        ]
    )
    monkeypatch.setattr("textadv.trainer.validate", lambda *args, **options: next(figures))
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, Clean()).fit()
    alarms = [r.message for r in caplog.records if "catastrophic overfitting" in r.message]
    assert len(alarms) == 1
    assert alarms[0].startswith("step 10: catastrophic overfitting: accuracy under pgd fell by 30%")
