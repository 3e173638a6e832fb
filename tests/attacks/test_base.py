from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textadv.attacks import ATTACKS, Example, build_attack
from textadv.attacks.base import attack_config, config_hash
from textadv.attacks.candidates import match_case
from textadv.attacks.search import best
from textadv.errors import ConfigError, ResourceError
from textadv.words import Words


def example(label: int = 0, clean: tuple[float, ...] = (2.0, 1.0, 0.0)) -> Example:
    return Example(id="a", words=Words.of("good film"), label=label, clean=torch.tensor(clean))


def test_margin_is_gold_minus_best_other_in_units_of_the_clean_spread() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 5.0], [1.0, 1.0, 0.0]])
    assert example().margins(scores) == [0.5, -2.5, 0.0]
    assert example(label=1).margins(scores) == [-0.5, -2.0, 0.0]
    assert example().clean_margin == 0.5
    assert example().margins(torch.empty(0, 3)) == []


def test_unanswered_rows_never_win() -> None:
    scores = torch.tensor([[float("nan")] * 3, [3.0, 1.0, 0.0]])
    assert example().margins(scores) == [float("inf"), 1.0]
    assert example().flips(scores) == [False, False]
    assert best(example(), scores) == (1, 1.0, False)


def test_a_flip_is_a_change_of_the_argmax_and_beats_any_other_row() -> None:
    scores = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.5], [0.0, 1.0, 2.0], [0.0, 2.0, 0.0]])
    assert example().flips(scores) == [False, False, True, True]
    assert best(example(), scores) == (2, -1.0, True)
    assert example(label=1).flips(scores) == [True, True, True, False]
    tied = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    assert best(example(label=1), tied) == (1, 0.0, True)


def test_noise_far_below_the_spread_keeps_ties() -> None:
    scores = torch.tensor([[1.0, 0.5, 0.0], [1.0 - 1e-6, 0.5, 0.0], [1.0 - 1e-3, 0.5, 0.0]])
    margins = example().margins(scores)
    assert margins[0] == margins[1] > margins[2]
    assert best(example(), scores[:2]) == (0, margins[0], False)


@given(
    st.lists(st.tuples(*[st.integers(-400, 400)] * 3), min_size=1, max_size=8),
    st.sampled_from([0.02, 0.25, 3.0, 50.0]),
    st.sampled_from([-9.0, 0.0, 4.0]),
)
def test_margins_do_not_depend_on_scale_and_shift(
    rows: list[tuple[int, ...]], scale: float, shift: float
) -> None:
    scores = torch.tensor(rows, dtype=torch.float64) / 8
    clean = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    plain = dataclasses.replace(example(), clean=clean)
    changed = dataclasses.replace(example(), clean=clean * scale + shift)
    assert changed.margins(scores * scale + shift) == pytest.approx(plain.margins(scores), abs=1e-3)


@given(st.integers(0, 2**32), st.integers(2, 4))
def test_settled_scores_judge_alike_whatever_the_noise(seed: int, classes: int) -> None:
    noise = 1e-5
    source = torch.Generator().manual_seed(seed)
    clean = torch.randn(classes, generator=source).double()
    clean[0] += 6
    one = dataclasses.replace(example(), clean=clean)
    alone = torch.randn(40, classes, generator=source).double() * 3
    alone[::4] = alone[::4].mean(dim=1, keepdim=True)  # no class is ahead
    moved = 0.99 * noise * alone.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    batched = alone + moved * (2 * torch.rand(alone.shape, generator=source) - 1)
    batched[5] = torch.nan
    unsettled = one.unsettled(batched, noise)
    assert {0, 4, 8} <= set(unsettled)
    assert 5 not in unsettled
    assert len(unsettled) < 30
    batched[unsettled], batched[5] = alone[unsettled], alone[5]
    assert one.margins(batched) == one.margins(alone)
    assert one.flips(batched) == one.flips(alone)


def test_clean_margin_needs_clean_logits() -> None:
    with pytest.raises(ValueError, match="no clean logits"):
        _ = Example(id="a", words=Words.of("x"), label=0).clean_margin


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_a_frozen_dataclass_with_a_card(name: str) -> None:
    kind = ATTACKS[name]
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    card = inspect.getdoc(kind)
    assert card is not None
    for word in ("Source:", "Cost:"):
        assert word in card
    config = attack_config(build_attack(name))
    assert config["class"] == kind.__name__
    assert {field.name for field in dataclasses.fields(kind)} == set(config) - {"class"}


def test_config_hash_depends_on_every_field_and_not_on_key_order() -> None:
    hashes = {
        config_hash(attack_config(build_attack(name, fields)))
        for name, fields in [
            ("deepwordbug", {}),
            ("deepwordbug", {"max_distance": 29}),
            ("deepwordbug-all", {}),
            ("synonym", {}),
            ("random-substitution", {}),
        ]
    }
    assert len(hashes) == 5
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})


def test_wrong_names_and_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'deepwordbug'"):
        build_attack("deepwordbugs")
    with pytest.raises(ConfigError, match=r"attack synonym: unknown field.*'vectors'"):
        build_attack("synonym", {"vector": "x"})
    for name, fields in [
        ("deepwordbug", {"max_distance": 0}),
        ("deepwordbug", {"ranking": "none"}),
        ("synonym", {"source": "web"}),
        ("synonym", {"max_candidates": 0}),
        ("synonym", {"min_cosine": 2.0}),
        ("synonym", {"ranking": "gradient"}),
        ("random-substitution", {"num_tries": 0}),
    ]:
        with pytest.raises(ConfigError):
            build_attack(name, fields)
    monkeypatch.delenv("TEXTADV_VECTORS", raising=False)
    with pytest.raises(ResourceError, match="TEXTADV_VECTORS is not set"):
        build_attack("synonym", {"source": "vectors"}).prepare()


def test_match_case() -> None:
    assert [match_case("fine", like) for like in ("good", "Good", "GOOD", "I", "iPod")] == [
        "fine",
        "Fine",
        "FINE",
        "Fine",
        "fine",
    ]
