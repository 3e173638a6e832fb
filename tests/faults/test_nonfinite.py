"""NaN and infinity never reach the weights, and a run that makes them stops and says where."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

from tests.faults.child import TRAIN, Diary, make_trainer
from tests.models import make_tokenizer
from textadv.embeddings import EmbeddingPort, wrap
from textadv.errors import NonFiniteError
from textadv.interrupts import Interrupted
from textadv.nonfinite import Guard, fault_of
from textadv.store import State
from textadv.testing import tiny_model

BAD = [math.nan, math.inf, -math.inf]
PLACES = ["loss", "outer gradient", "inner gradient", "one example"]


class Spy(Diary):
    """Note after every step whether all weights are finite, and whether they moved."""

    def __init__(self, folder):
        super().__init__(folder)
        self.model, self.before, self.moved = None, None, []

    def on_step(self, step, figures):
        weights = [p.detach().clone() for p in self.model.parameters()]
        assert all(torch.isfinite(weight).all() for weight in weights)
        if self.before is not None:
            pairs = zip(weights, self.before, strict=True)
            self.moved.append(any(not torch.equal(left, right) for left, right in pairs))
        self.before = weights


def poisoned(folder, place, value, steps, monkeypatch, **fields):
    """Return a trainer in which `value` turns up at a place in some steps, counted from 1."""
    spy = Spy(folder)
    trainer = make_trainer(
        folder, "pgd", callback=spy, save_steps=100, best_metric=None, eval_steps=100, **fields
    )
    spy.model, model = trainer.model, trainer.model
    spy.before = [p.detach().clone() for p in model.parameters()]

    def now():
        return len(spy.moved) + 1 in steps

    if place == "loss":
        # The gradient stays finite: only the value is not.
        loss = EmbeddingPort.loss

        def raised(port, logits, batch):
            found = loss(port, logits, batch)
            return found + value if now() and model.training and found.requires_grad else found

        monkeypatch.setattr(EmbeddingPort, "loss", raised)
    elif place == "outer gradient":
        weight = model.classifier.weight
        weight.register_hook(lambda grad: grad * 0 + value if now() else grad)
    elif place == "inner gradient":
        grad = torch.autograd.grad

        def bad_rows(*arguments, **options):
            (found,) = grad(*arguments, **options)
            if now() and found.ndim == 3:
                found[0] = value
            return (found,)

        monkeypatch.setattr(torch.autograd, "grad", bad_rows)
    else:
        chosen = {}

        def bad_example(module, arguments, output):
            if now() and model.training:
                first = arguments[0][0]
                chosen.setdefault(len(spy.moved), first[first != 0])
            if len(spy.moved) not in chosen:
                return output
            known = chosen[len(spy.moved)]
            rows = torch.tensor([torch.equal(row[row != 0], known) for row in arguments[0]])
            return torch.where(rows.view(-1, 1, 1), value, output)

        model.get_input_embeddings().register_forward_hook(bad_example)
    return trainer, spy


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_bad_steps_are_skipped_and_counted(place, value, tmp_path, monkeypatch, caplog):
    """Two in a row, and one later: no update in these, updates in all others."""
    bad = {2, 3, 5}
    trainer, spy = poisoned(tmp_path / "run", place, value, bad, monkeypatch, max_steps=6)
    result = trainer.fit()
    assert spy.moved == [step not in bad for step in range(1, 7)]
    assert result.skipped == 3
    rows = [json.loads(line, parse_constant=pytest.fail)
            for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]  # fmt: skip
    train = [row for row in rows if row["split"] == "train"]
    assert [row["skipped_steps"] for row in train] == [0, 1, 2, 2, 3, 3]
    for step in bad:
        assert f"step {step} skipped: " in caplog.text
        assert train[step - 1]["loss"] != 0
    assert "3 of 6 steps were skipped" in caplog.text


@pytest.mark.parametrize("place", PLACES)
def test_three_in_a_row_stop_the_run_and_say_where(place, tmp_path, monkeypatch):
    trainer, spy = poisoned(
        tmp_path / "run", place, math.nan, {3, 4, 5}, monkeypatch, max_steps=9, batch_size=4
    )
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert caught.value.exit_code == 5
    assert spy.moved == [True, True, False, False]
    indices = [i for _, chosen, _ in trainer.micro_batches[4] for i in chosen]
    assert message.startswith(
        f"step 5, examples {', '.join(repr(TRAIN.ids[i]) for i in indices)}: "
    )
    assert "the last of 3 such steps in a row" in message
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    if place == "one example":
        first = trainer.train_data.ids[trainer.micro_batches[4][0][1][0]]
        assert f"without perturbation, the loss is not finite on {first!r}, expected" in message
    if place == "outer gradient":
        assert "a gradient norm of nan" in message
    if place == "inner gradient":
        assert "25.0% of the gradients of the inner ascent" in message


def test_a_row_of_several_steps_leaves_the_skipped_ones_out(tmp_path, monkeypatch):
    trainer, _ = poisoned(
        tmp_path / "run", "loss", math.nan, {2}, monkeypatch, max_steps=3, log_steps=3
    )
    trainer.fit()
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert math.isfinite(row["loss"])
    assert row["skipped_steps"] == 1


def test_the_count_in_a_row_outlives_a_resume(tmp_path, monkeypatch):
    """A run that is stopped and resumed in a bad stretch does not begin to count anew."""
    trainer, spy = poisoned(tmp_path / "run", "loss", math.nan, {1, 2, 3}, monkeypatch, max_steps=9)
    step = spy.on_step

    def interrupted(number, figures):
        step(number, figures)
        if number == 2:
            raise Interrupted(15)

    spy.on_step = interrupted
    with pytest.raises(Interrupted):
        trainer.fit()
    again, _ = poisoned(tmp_path / "run", "loss", math.nan, {1}, monkeypatch, max_steps=9)
    with pytest.raises(NonFiniteError, match="step 3"):
        again.fit(resume=True)


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path):
    trainer = make_trainer(tmp_path / "run", "plain", max_steps=2, eval_steps=1)

    def bad(module, arguments, output):
        return output if module.training else output * math.nan

    trainer.model.classifier.register_forward_hook(bad)
    assert trainer.fit().best_step is None


def test_what_is_a_fault():
    fine = {"loss": 0.1, "grad_norm": 1.0}
    assert fault_of(fine) is None
    assert fault_of(fine | {"non_finite_fraction": 0.0}) is None
    assert fault_of(fine | {"loss": math.nan}) == "a loss of nan"
    assert fault_of(fine | {"grad_norm": math.inf}) == "a gradient norm of inf"
    assert "12.5%" in str(fault_of(fine | {"non_finite_fraction": 0.125}))
    assert fault_of(fine | {"non_finite_fraction": math.nan}) is not None


class Overflowing:
    """An optimizer behind a loss scaler, which skips the steps it is told to."""

    def __init__(self):
        self.step_was_skipped = False
        self.steps = 0

    def step(self):
        self.steps += 1

    def zero_grad(self):
        """Nothing to do."""


def test_a_loss_scaler_decides_for_itself_and_is_stopped_in_the_end():
    """With fp16 overflows are expected, so it may skip twenty in a row, and its word counts."""
    one_gpu = SimpleNamespace(scaler=object(), num_processes=1)
    guard = Guard(wrap(tiny_model("bert", num_labels=2), make_tokenizer()), TRAIN, one_gpu)
    optimizer, state = Overflowing(), State()
    overflow = {"loss": 0.5, "grad_norm": math.inf}
    assert guard.update(optimizer, state, overflow, [0])
    optimizer.step_was_skipped = True
    assert not any(guard.update(optimizer, state, overflow, [0]) for _ in range(19))
    assert (state.skipped, state.non_finite, optimizer.steps) == (19, 19, 20)
    with pytest.raises(NonFiniteError, match=r"a gradient norm of inf, the last of 20 such steps"):
        guard.update(optimizer, state, overflow, [0])
    optimizer.step_was_skipped = False
    assert guard.update(optimizer, state, overflow, [0])
    assert state.non_finite == 0
