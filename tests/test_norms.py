"""Closed forms, brute force and properties of the masked norm balls."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textadv import norms
from textadv.errors import ConfigError
from textadv.norms import Norm, Scope

NORMS, SCOPES = get_args(Norm), get_args(Scope)
CASES = [(n, s) for n in NORMS for s in SCOPES]


def random_case(seed, batch=3, length=5, dim=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, length, dim, generator=generator, dtype=dtype)
    mask = torch.rand(batch, length, generator=generator) < 0.7
    mask[:, 0] = True
    return values, mask


def slow_norm(group, name):
    entries = [abs(float(x)) for x in group.flatten()]
    if name == "linf":
        return max(entries)
    if name == "l1":
        return math.fsum(entries)
    return math.sqrt(math.fsum(x * x for x in entries))


@pytest.mark.parametrize(("name", "scope"), CASES)
def test_norm_equals_a_slow_one(name, scope):
    values, _ = random_case(0)
    found = norms.norm(values, name, scope)
    for i in range(values.shape[0]):
        if scope == "sequence":
            assert found[i].item() == pytest.approx(slow_norm(values[i], name), rel=1e-12)
        else:
            for j in range(values.shape[1]):
                assert found[i, j].item() == pytest.approx(slow_norm(values[i, j], name), rel=1e-12)


@given(
    seed=st.integers(0, 10_000),
    case=st.sampled_from(CASES),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5)),
    epsilon=st.floats(0, 3),
    size=st.sampled_from([1e-6, 1e-2, 1.0, 1e3]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
)
@settings(max_examples=200, deadline=None)
def test_projection_lands_in_the_ball_once_and_for_all(seed, case, shape, epsilon, size, dtype):
    name, scope = case
    values, mask = random_case(seed, *shape)
    values = (values * size).to(dtype)
    once = norms.project(values, mask, epsilon, name, scope)
    assert (norms.norm(once, name, scope) <= epsilon * (1 + 1e-6) + 1e-12).all()
    assert (once[~mask] == 0).all()
    twice = norms.project(once, mask, epsilon, name, scope)
    # The first result may lie outside by its last bit, which the second one takes off.
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=1e-9 + 1e-6 * epsilon)
    other, _ = random_case(seed + 1, *shape)
    other = norms.project(other.to(dtype), mask, epsilon, name, scope)
    inside = torch.where(mask.unsqueeze(-1), values.to(once.dtype), 0.0)
    gap_before = norms.norm((inside - other).double(), "l2", "sequence")
    gap_after = norms.norm((once - other).double(), "l2", "sequence")
    assert (gap_after <= gap_before * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize(("name", "scope"), CASES)
def test_projection_is_the_nearest_point(name, scope):
    values, mask = random_case(1)
    epsilon = 0.7
    nearest = norms.project(values, mask, epsilon, name, scope)
    best = (nearest - values)[mask].square().sum()
    generator = torch.Generator().manual_seed(2)
    for spread in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
            other = norms.project(nearest + spread * noise, mask, epsilon, name, scope)
            assert (other - values)[mask].square().sum() >= best - 1e-12


@pytest.mark.parametrize(("name", "scope"), CASES)
def test_direction_reaches_the_dual_norm_and_no_unit_vector_beats_it(name, scope):
    grad, mask = random_case(3)
    grad = torch.where(mask.unsqueeze(-1), grad, 0.0)
    unit = norms.direction(grad, mask, name, scope)
    dual = {"l2": "l2", "linf": "l1", "l1": "linf"}[name]
    gain = (grad * unit).sum(-1)
    expected = norms.norm(grad, dual, scope)
    found = gain.sum(1) if scope == "sequence" else gain
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    alive = expected > 0
    torch.testing.assert_close(
        norms.norm(unit, name, scope)[alive], torch.ones_like(expected[alive])
    )
    generator = torch.Generator().manual_seed(4)
    for _ in range(100):
        other = torch.randn(grad.shape, generator=generator, dtype=grad.dtype)
        other = norms.with_norm(other, mask, 1.0, name, scope)
        rival = (grad * other).sum(-1)
        rival = rival.sum(1) if scope == "sequence" else rival
        assert (rival <= expected + 1e-12).all()


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf"), -float("inf"), 1e-39])
def test_unusable_gradients_give_no_step_and_spare_the_others(name, bad):
    grad, mask = random_case(5, dtype=torch.float32)
    mask[:] = True
    clean = norms.direction(grad, mask, name, "sequence")
    grad[1] = bad if bad in (0.0, 1e-39) else grad[1]
    grad[1, 2, 3] = bad
    unit = norms.direction(grad, mask, name, "sequence")
    assert (unit[1] == 0).all()
    assert torch.equal(unit[[0, 2]], clean[[0, 2]])


def test_masked_positions_may_hold_anything():
    grad, mask = random_case(6)
    mask[0, 3] = False
    expected = norms.direction(grad, mask, "l2", "sequence")
    grad[0, 3] = float("nan")
    assert torch.equal(norms.direction(grad, mask, "l2", "sequence"), expected)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**-8, 2.0**8, 2.0**20])
@pytest.mark.parametrize(("name", "scope"), CASES)
def test_direction_ignores_the_scale_of_the_gradient(name, scope, scale):
    grad, mask = random_case(7, dtype=torch.float32)
    assert torch.equal(
        norms.direction(grad * scale, mask, name, scope), norms.direction(grad, mask, name, scope)
    )


def test_denormal_bfloat16_gradients_still_point_somewhere():
    grad = torch.full((1, 2, 4), 1e-20, dtype=torch.bfloat16)
    unit = norms.direction(grad, torch.ones(1, 2, dtype=torch.bool), "l2", "sequence")
    assert norms.norm(unit, "l2", "sequence").item() == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "ratio"), [("uniform", 1 / math.sqrt(3)), ("normal", 1.0)])
def test_random_start_has_the_promised_norm_at_every_length(kind, ratio):
    sigma = 0.4
    embeds = torch.zeros(64, 50, 128)
    mask = torch.zeros(64, 50, dtype=torch.bool)
    for row in range(64):
        mask[row, : 1 + row % 50] = True
    generator = torch.Generator().manual_seed(0)
    start = norms.random_point(embeds, mask, kind, sigma, "l2", "sequence", generator)
    sizes = norms.norm(start, "l2", "sequence") / sigma
    assert sizes.mean().item() == pytest.approx(ratio, rel=0.01)
    assert (sizes[mask.sum(1) > 20] / ratio - 1).abs().max() < 0.05
    assert (start[~mask] == 0).all()


@pytest.mark.parametrize(("name", "scope"), CASES)
def test_random_start_is_drawn_from_its_generator_alone(name, scope):
    embeds, mask = random_case(8, dtype=torch.float32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = [
        norms.random_point(
            embeds, mask, "uniform", 1.0, name, scope, torch.Generator().manual_seed(s)
        )
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("l3", "sequence", 1.0), "l2"), (("l2", "word", 1.0), "token"), (("l2", "token", -1.0), "0")],
)
def test_bad_geometry_is_named(arguments, word):
    with pytest.raises(ConfigError, match=word):
        norms.check_geometry(*arguments)
