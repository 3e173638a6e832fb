"""Batches that pass in parts: the same gradient, whatever runs out of memory and where."""

from __future__ import annotations

import contextlib
import dataclasses
import logging

import pytest
import torch

import textadv
from tests.batches import full_batch
from tests.objectives.common import NO_DROPOUT, assert_same, gradients, make
from tests.test_trainer import OBJECTIVES as TRAINED
from tests.test_trainer import Stop, StopAt, encode, exact_model, make_trainer, rows_of
from textadv.errors import MemoryLimitError
from textadv.objectives import OBJECTIVES, SMART, CreAT, FreeLB, Latent
from textadv.parts import Parts, out_of_memory
from textadv.perturb import PERTURBATIONS, PGD
from textadv.testing import tiny_model
from textadv.validation import measure

CASES = {
    **{name: kind() for name, kind in OBJECTIVES.items()},
    "smart with an average": SMART(bregman=1.0),
    "creat alone": CreAT(adversarial_only=True, inner_mode="eval"),
    "sift on latents": dataclasses.replace(Latent(), site="layer:1"),
}
FULL = "allocation failed"


@contextlib.contextmanager
def short_of_memory(model, *, at=(), texts=None, backward=False):
    """Fail the passes numbered in `at`, or all of more than `texts` texts.

    With `backward`, what fails is their backward pass, half way through the model.
    """
    calls = []
    encoder = model.base_model.encoder.layer[0]

    def fail(number, size):
        if number in at or (texts is not None and size > texts):
            raise torch.OutOfMemoryError(FULL)

    def hook(module, args, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        number, size = len(calls), len(hidden)
        calls.append(size)
        if not backward:
            fail(number, size)
        elif hidden.requires_grad:
            hidden.register_hook(lambda grad: fail(number, size))

    handle = encoder.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize("name", CASES)
def test_every_objective_has_the_gradient_of_the_whole_batch(name):
    whole, _ = make()
    split, batch = make()
    batch = full_batch(split.model, (9, 4, 6))
    for limit in (2, 1):
        expected, left = gradients(whole, CASES[name], batch)
        split.parts.limit = limit
        found, right = gradients(split, CASES[name], batch)
        assert_same(expected, found, 1e-9)
        assert left.keys() == right.keys()
        for figure in left:
            torch.testing.assert_close(left[figure], right[figure], rtol=1e-5, atol=1e-6)
        assert whole.memory.keys() == split.memory.keys()
        for key, value in whole.memory.items():
            torch.testing.assert_close(value, split.memory[key], rtol=1e-6, atol=1e-6)
    assert "forward" not in split.model.__dict__
    assert not any(module._forward_hooks for module in split.model.modules())


@pytest.mark.parametrize("name", [*PERTURBATIONS])
def test_every_perturbation_is_that_of_the_whole_batch(name):
    port, batch = make()
    attack = PERTURBATIONS[name]()
    expected = attack(port, batch)
    with short_of_memory(port.model, texts=2):
        found = attack(port, batch)
    assert port.parts.limit == (2 if attack.num_steps else None)
    torch.testing.assert_close(expected, found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5", "xlnet", "deberta-v2"])
def test_parts_on_other_architectures(architecture):
    port, batch = make(architecture)
    for objective in (FreeLB(), textadv.TRADES()):
        port.parts.limit = None
        expected, _ = gradients(port, objective, batch)
        port.parts.limit = 1
        found, _ = gradients(port, objective, batch)
        assert_same(expected, found, 1e-8)


def test_at_most_one_part_has_activations_alive():
    """What a forward saves for the backward pass is a fraction of what the whole batch saves."""

    def saved(limit):
        port, _ = make()
        batch, sizes = full_batch(port.model, (20,) * 8), []
        port.parts.limit = limit
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: (sizes.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            port.loss(port.logits(batch), batch).mean()
        return sum(sizes)

    assert saved(2) < saved(None) / 4


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", ["fgm", "pgd", "freelb", "trades"])
def test_training_is_the_same_wherever_memory_runs_out(name, backward, tmp_path, caplog):
    """Each pass of the second step fails once in turn: clean, inner steps, and outer ones."""
    options = {"max_steps": 2, "batch_size": 4, "gradient_accumulation_steps": 2}
    whole = make_trainer(tmp_path / "whole", TRAINED[name], model=exact_model(), **options)
    with short_of_memory(whole.model) as calls:
        expected = whole.fit().model.state_dict()
    validations = 2 * 6  # of 24 texts, clean and under PGD of three steps
    # The first pass finds the site.
    for number in range(1, len(calls) - validations, 3):
        model = exact_model()
        broken = make_trainer(tmp_path / str(number), TRAINED[name], model=model, **options)
        caplog.clear()
        with (
            caplog.at_level(logging.WARNING),
            short_of_memory(model, at=[number], backward=backward) as seen,
        ):
            found = broken.fit().model.state_dict()
        lines = [r.message for r in caplog.records if "out of memory" in r.message]
        assert broken.port.parts.limit == (2 if lines else None)
        assert len(lines) <= 1
        assert len(seen) > len(calls) or not lines
        for key in expected:
            torch.testing.assert_close(expected[key], found[key], rtol=1e-9, atol=1e-9)
        if not backward:
            assert lines
            assert "with 4 texts: at most 2 pass through the model at once now" in lines[0]


def test_parts_stay_halved_and_a_resumed_run_begins_with_them(tmp_path, caplog):
    """With dropout: the masks of a batch in parts are others, and the same after a resume."""
    fields = {"max_steps": 6, "save_steps": 2, "best_metric": "clean_loss"}
    states = {}
    for folder, stop in (("whole", None), ("broken", 4)):
        run = make_trainer(tmp_path / folder, TRAINED["freelb"], **fields)
        run.callback = None if stop is None else StopAt(stop)
        with (
            caplog.at_level(logging.WARNING),
            short_of_memory(run.model, texts=3),
            contextlib.nullcontext() if stop is None else pytest.raises(Stop),
        ):
            states[folder] = run.fit().model.state_dict()
    assert run.port.parts.limit == 2
    assert sum("out of memory" in r.message for r in caplog.records) == 2 * 2
    resumed = make_trainer(tmp_path / "broken", TRAINED["freelb"], **fields)
    found = resumed.fit(resume=True).model.state_dict()
    assert resumed.port.parts.limit == 2
    assert all(torch.equal(value, states["whole"][key]) for key, value in found.items())
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "broken")


def test_evaluation_fits_too(caplog):
    model = tiny_model("bert", num_labels=2, **NO_DROPOUT)
    port = textadv.wrap(model)
    examples = encode([{"text": "good film " * n, "label": n % 2} for n in range(1, 13)])
    for attack in (None, PGD(epsilon=0.3, num_steps=2, init="uniform", restarts=2)):
        port.parts.limit = None
        expected = measure(port, examples, attack)
        with short_of_memory(model, texts=5), caplog.at_level(logging.WARNING):
            found = measure(port, examples, attack)
        assert port.parts.limit == 3
        torch.testing.assert_close(expected.logits, found.logits, rtol=1e-4, atol=1e-5)
    assert sum("out of memory" in r.message for r in caplog.records) == 4


def test_one_text_that_does_not_fit_is_one_clear_error(tmp_path):
    run = make_trainer(tmp_path / "run", TRAINED["pgd"])
    match = r"^step 1: got no memory for one text \(allocation failed\), expected room"
    with short_of_memory(run.model, at=range(1, 99)), pytest.raises(MemoryLimitError, match=match):
        run.fit()
    assert all(parameter.grad is None for parameter in run.model.parameters())
    port, batch = make()
    with short_of_memory(port.model, texts=0), pytest.raises(MemoryLimitError, match="batch: got"):
        PGD()(port, batch)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(MemoryLimitError("x", got="out of memory"))
    assert not out_of_memory(RuntimeError("shapes do not match"))
    parts, runs = Parts(torch.nn.Identity()), []

    def fail():
        runs.append(1)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        parts.fitting(fail)
    assert (runs, parts.limit) == ([1], None)


def test_a_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("size", [1, 5, 8])
@pytest.mark.parametrize("limit", [None, 1, 2, 3, 8, 20])
def test_rows_are_shared_out_evenly(size, limit):
    rows = [range(size)[place] for place in Parts(torch.nn.Identity(), limit).rows(size)]
    assert [i for row in rows for i in row] == list(range(size))
    assert max(map(len, rows)) <= min(limit or size, size)
    assert len(rows) == -(-size // (limit or size))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_memory_is_not_taken_twice_when_a_step_starts_again(tmp_path):
    """FAT counts visits: a step that failed half way must not leave any."""
    objective = OBJECTIVES["fat"]()
    run = make_trainer(tmp_path / "run", objective, model=exact_model(), max_steps=5)
    with short_of_memory(run.model, at=[4]):
        run.fit()
    assert run.port.parts.limit == 4
    assert run.port.memory["history.visits"][:40].tolist() == [1] * 40
    assert not run.port.notes
