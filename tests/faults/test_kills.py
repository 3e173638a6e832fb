"""Runs killed at any moment, and resumed, end as if nothing had happened."""

from __future__ import annotations

import random

import pytest

from tests.faults import child
from tests.faults.experiments import (
    METHODS,
    MUTANTS,
    SHORT,
    attack_kills,
    count_points,
    faults_of_mutant,
    kill_at_point,
    random_kills,
)
from tests.faults.harness import contents, differences, reference


def test_kills_at_random_moments_lose_nothing(children):
    """The short form of the test below."""
    for method in ("fgm", "freelb"):
        for verdict in random_kills(children, method, 3, fields={"max_steps": 8}):
            assert verdict.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_sixty_kills_at_random_moments_lose_nothing(children, method):
    """Fifteen for each of the four methods, all with dropout."""
    verdicts = random_kills(children, method, 15)
    assert [verdict.faults for verdict in verdicts] == [()] * 15
    assert all(verdict.killed for verdict in verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_kill_at_every_fault_point_loses_nothing(children, part):
    """With best weights and a memory in the checkpoints, and only one kept."""
    fields = {**SHORT, "keep_checkpoints": 1}
    expected, _ = reference(children, "fat", fields=fields)
    count = count_points(children, "fat", fields)
    assert count > 100
    for point in range(1 + part, count + 1, 4):
        verdict = kill_at_point(children, "fat", expected, point, fields)
        assert verdict.killed, point
        assert verdict.faults == (), point


@pytest.mark.slow
def test_a_run_killed_again_and_again_still_ends_the_same(children):
    """Each time at a fault point that is drawn, some before the first save after a resume."""
    expected, _ = reference(children, "pgd")
    folder = children.folder / "again-and-again"
    points = random.Random(0)
    job = {"folder": str(folder), "method": "pgd"}
    for _ in range(6):
        fault = {"kind": "die", "at": points.randrange(5, 70)}
        assert children.run(child.train, **job, fault=fault).code == -9
    assert children.run(child.train, **job).code == 0
    assert differences(expected, contents(folder)) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_tests_above_can_fail(children, mutant):
    """Each broken promise turns some kill red."""
    keep, symptom = MUTANTS[mutant]
    assert any(symptom in fault for fault in faults_of_mutant(children, mutant, keep))


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 2])
def test_with_every_promise_kept_the_same_kills_lose_nothing(children, keep):
    assert [*faults_of_mutant(children, None, keep)] == []


def test_different_steps_and_methods_are_different(children):
    """What is compared tells runs apart that are nearly the same."""
    found = [
        reference(children, method, fields={"max_steps": steps, "best_metric": None})[0]
        for method, steps in (("plain", 4), ("plain", 3), ("fgm", 4))
    ]
    assert "model/model.safetensors" in differences(found[0], found[1])
    assert "model/model.safetensors" in differences(found[0], found[2])


def test_killed_attacks_lose_no_record(children):
    """The short form of the test below."""
    assert [verdict.faults for verdict in attack_kills(children, 2)] == [()] * 2


@pytest.mark.slow
def test_twenty_killed_attacks_lose_no_record(children):
    """Random searches among them; started again at another width, and so in another order."""
    assert [verdict.faults for verdict in attack_kills(children, 20)] == [()] * 20
