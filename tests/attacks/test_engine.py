from __future__ import annotations

import dataclasses
import random
import signal
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracles import toy
from textadv.attacks import (
    ATTACKS,
    Attack,
    Example,
    NoCandidatesError,
    Record,
    build_attack,
    run,
    services,
)
from textadv.attacks.base import OutOfQueriesError, Search
from textadv.attacks.deadline import deadline
from textadv.attacks.requests import Similar
from textadv.errors import ConfigError, DataError, ResourceError, UnsupportedModelError
from textadv.victim import CallableVictim, Victim
from textadv.words import Words

Fields = Callable[[str], dict[str, Any]]


def outcomes(attacks: dict[str, Attack], victim: Victim, examples: Any, **kw: Any) -> set[Record]:
    records = list(run(attacks, victim, examples, **kw))
    assert len({record.key for record in records}) == len(records)
    return set(records)


# Copies of other toolkits that compare probabilities.
PROBABILITY_PARITY = {"pwws-textattack"}


class Chunked(toy.ToyVictim):
    """A victim that answers at most `size` texts per forward pass."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.calls = size, 0

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        self.calls += 1
        chunks = [texts[at : at + self.size] for at in range(0, len(texts), self.size)]
        return torch.cat([super(Chunked, self).logits(chunk) for chunk in chunks])


NOISE = 2.0**-15


class Noisy(toy.ToyVictim):
    """A victim whose logits are moved by the batch around each text, as sums in floats are."""

    def __init__(self, stated: float) -> None:
        super().__init__()
        self.noise, self.singles, self.asked = stated, 0, 0

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        exact = super().logits(texts)
        self.singles += len(texts) == 1
        self.asked += len(texts)
        if len(texts) == 1:
            return exact
        source = torch.Generator().manual_seed(zlib.crc32(repr(texts).encode()))
        unit = 2 * torch.rand(exact.shape, generator=source) - 1
        return exact + 0.99 * NOISE * unit * exact.abs().amax(dim=1, keepdim=True).clamp_min(1.0)


@dataclasses.dataclass(frozen=True)
class Scripted:
    """An attack given as a function of the example."""

    function: Callable[[Example], Search]

    def prepare(self) -> None:
        pass

    def search(self, example: Example, rng: random.Random) -> Search:
        return self.function(example)


@pytest.mark.parametrize("budget", [None, 25])
@pytest.mark.parametrize("name", ATTACKS)
def test_outcome_is_the_same_at_any_width_batch_cache_and_order(
    name: str, budget: int | None, toy_fields: Fields
) -> None:
    attacks = {name: build_attack(name, toy_fields(name))}
    examples = toy.examples_for(name, 18)
    common: dict[str, Any] = {"query_budget": budget, "seed": 1}
    reference = outcomes(attacks, toy.victim(), examples, width=1, **common)
    assert len(reference) == len(examples)
    for width, cache, victim in [
        (256, 16384, toy.victim()),
        (7, 0, Chunked(13)),
        (256, 3, Chunked(1)),
    ]:
        got = outcomes(attacks, victim, examples, width=width, cache_size=cache, **common)
        assert got == reference
    shuffled = random.Random(0).sample(examples, len(examples))
    assert outcomes(attacks, toy.victim(), shuffled, width=9, **common) == reference


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - PROBABILITY_PARITY))
def test_outcome_is_the_same_when_batches_move_the_logits(name: str, toy_fields: Fields) -> None:
    attacks = {name: build_attack(name, toy_fields(name))}
    examples = toy.examples_for(name, 12)
    reference = outcomes(attacks, toy.victim(), examples)
    for width, cache in ((12, 16384), (5, 0)):
        victim = Noisy(NOISE)
        got = outcomes(attacks, victim, examples, width=width, cache_size=cache)
        assert got == reference


def test_noise_that_is_not_stated_changes_outcomes_and_few_texts_are_scored_twice() -> None:
    def ask(example: Example) -> Search:
        """Ask about texts of equal scores, one at a time, and say by queries which is the best."""
        margins = []
        for gap in range(1, 6):
            scores = yield [example.words.insert_before(0, "film" + " " * gap)]
            margins += example.margins(scores)
        yield [example.words.replace(0, f"w{at}") for at in range(margins.index(min(margins)))]
        return None

    attacks = {"s": Scripted(ask)}
    examples = toy.examples(60)
    reference = outcomes(attacks, toy.victim(), examples)
    assert {record.num_queries for record in reference} == {1, 6}
    unstated, stated = Noisy(0.0), Noisy(NOISE)
    assert outcomes(attacks, unstated, examples, width=60) != reference
    assert outcomes(attacks, stated, examples, width=60) == reference
    assert stated.singles - len(examples) < 0.2 * stated.asked


@pytest.mark.parametrize(("scale", "shift"), [(50.0, 0.0), (1.0, 7.5), (0.02, -3.0)])
@pytest.mark.parametrize("name", sorted(set(ATTACKS) - PROBABILITY_PARITY))
def test_scaled_and_shifted_logits_change_no_outcome(
    name: str, scale: float, shift: float, toy_fields: Fields
) -> None:
    attacks = {name: build_attack(name, toy_fields(name))}
    examples = toy.examples_for(name, 18)
    reference = outcomes(attacks, toy.victim(), examples)
    assert outcomes(attacks, toy.victim(scale, shift), examples) == reference


@pytest.mark.parametrize("name", ATTACKS)
def test_pairs_and_protected_words_are_left_alone(name: str, toy_fields: Fields) -> None:
    """Edits stay in the second column, and there away from every third word."""
    attack = build_attack(name, toy_fields(name))
    texts = [example.words.texts[0] for example in toy.examples_for(name, 60)]
    examples = []
    for row, pair in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        words = Words.of(pair, editable=[1])
        words = words.protect(range(row % 3, len(words), 3))
        (scores,) = toy.scores([" ".join(pair)])
        label = scores.index(max(scores))
        examples.append(Example(id=str(row), words=words, label=label))
    found = list(run({name: attack}, toy.victim(), examples, query_budget=400))
    changed = [record for record in found if record.adversarial_text is not None]
    assert len(changed) >= 5
    for record in changed:
        original = examples[int(record.id)].words
        assert record.adversarial_text is not None
        first, second = record.adversarial_text
        assert first == original.texts[0]
        assert second != original.texts[1]
        fixed = [w for at, w in enumerate(original.words) if not original.editable[at]]
        left = [*first.split(" "), *second.split(" ")]
        kept = iter(left)
        assert all(word in kept for word in fixed), record
    assert {r.reason.partition(":")[0] for r in found} <= {"", "budget", "no_candidates", "reduced"}


def test_several_attacks_at_once_equal_each_alone(toy_fields: Fields) -> None:
    attacks = {name: build_attack(name, toy_fields(name)) for name in ATTACKS}
    examples = toy.examples(20)
    together = outcomes(attacks, toy.victim(), examples, width=30, query_budget=50)
    alone = [
        outcomes({name: attack}, toy.victim(), examples, query_budget=50)
        for name, attack in attacks.items()
    ]
    assert together == set().union(*alone)


def test_seed_changes_random_attacks_and_repeats() -> None:
    attacks = {"deepwordbug": build_attack("deepwordbug")}
    first, again, other = (
        outcomes(attacks, toy.victim(), toy.examples(30), seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_wider_run_makes_fewer_victim_calls() -> None:
    attacks = {"deepwordbug": build_attack("deepwordbug")}
    calls = []
    for width in (1, 32):
        victim = Chunked(1000)
        list(run(attacks, victim, toy.examples(32), width=width))
        calls.append(victim.calls)
    assert calls[1] < calls[0] / 4


def test_finished_examples_are_replaced_at_once_and_examples_are_read_lazily() -> None:
    taken = []

    def stream() -> Any:
        for example in toy.examples(30):
            taken.append(example.id)
            yield example

    records = run({"a": build_attack("deepwordbug")}, toy.victim(), stream(), width=4)
    next(records)
    assert len(taken) < 30
    list(records)
    assert len(taken) == 30


def test_queries_are_counted_raw_and_unique_and_shared_texts_scored_once() -> None:
    scored: list[str] = []

    def scores(texts: list[str]) -> list[list[float]]:
        scored.extend(texts)
        return [[1.0, 0.0] for _ in texts]

    def ask(example: Example) -> Search:
        words = example.words.replace(0, "x")
        yield [words, words, example.words]
        yield []
        yield [words]
        return None

    examples = [Example(id=name, words=Words.of("good film"), label=0) for name in "ab"]
    records = list(run({"s": Scripted(ask)}, CallableVictim(scores), examples))
    assert [(r.num_queries, r.num_unique_queries) for r in records] == [(5, 2), (5, 2)]
    assert sorted(scored) == ["good film", "x film"]
    assert {r.status for r in records} == {"survived"}


@pytest.mark.parametrize(
    ("budget", "reason", "queries"), [(1, "budget", 1), (3, "budget", 3), (4, "", 4), (9, "", 4)]
)
def test_a_request_is_cut_to_the_budget(budget: int, reason: str, queries: int) -> None:
    sent: list[int] = []

    def ask(example: Example) -> Search:
        scores = yield [example.words.replace(0, word) for word in ("x", "y", "z")]
        sent.append(int((~scores.isnan()).all(dim=1).sum()))
        assert len(scores) == 3
        return None

    victim = CallableVictim(lambda texts: [[1.0, 0.0]] * len(texts))
    example = Example(id="a", words=Words.of("good"), label=0)
    (record,) = run({"s": Scripted(ask)}, victim, [example], query_budget=budget)
    assert (record.status, record.reason, record.num_queries) == ("survived", reason, queries)
    assert sent == ([queries - 1] if budget > 1 else [])


def _never(example: Example) -> Search:
    raise ValueError("broken\nattack")
    yield []


def _nothing(example: Example) -> Search:
    raise NoCandidatesError
    yield []


def _unchanged(example: Example) -> Search:
    yield [example.words]
    return example.words


def _bad_request(example: Example) -> Search:
    yield ["not words"]  # type: ignore[list-item]
    return None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_never, "error: ValueError: broken\\nattack"),
        (_nothing, "no_candidates"),
        (_unchanged, "replay"),
        (_bad_request, "error: AttributeError: 'str' object has no attribute 'texts'"),
    ],
)
def test_a_broken_attack_is_unresolved_and_does_not_touch_others(
    function: Callable[[Example], Search], reason: str
) -> None:
    examples = toy.examples(12)
    good = build_attack("deepwordbug")
    both = outcomes({"bad": Scripted(function), "good": good}, toy.victim(), examples, width=5)
    assert {r for r in both if r.attack == "good"} == outcomes(
        {"good": good}, toy.victim(), examples
    )
    bad = [r for r in both if r.attack == "bad" and r.status != "wrong_before"]
    assert {(r.status, r.reason) for r in bad} == {("unresolved", reason)}


def test_a_success_that_does_not_replay_is_not_a_flip() -> None:
    """The victim answers differently to a text on its own: what batching noise would look like."""

    def scores(texts: list[str]) -> list[list[float]]:
        flip = len(texts) > 1
        return [[0.0, 1.0] if flip and text.startswith("x") else [1.0, 0.0] for text in texts]

    def ask(example: Example) -> Search:
        candidates = [example.words.replace(0, word) for word in ("x", "y")]
        scores = yield candidates
        return candidates[example.flips(scores).index(True)]

    example = Example(id="a", words=Words.of("good"), label=0)
    (record,) = run({"s": Scripted(ask)}, CallableVictim(scores), [example])
    assert (record.status, record.reason) == ("unresolved", "replay")
    assert record.adversarial_text is None


def test_a_victim_error_is_pinned_to_the_text_behind_it() -> None:
    def scores(texts: list[str]) -> list[list[float]]:
        if any("poison" in text for text in texts):
            raise RuntimeError("cannot read this")
        return [[float("nan"), 0.0] if "hole" in text else [1.0, 0.0] for text in texts]

    def ask(example: Example) -> Search:
        yield [example.words.replace(0, word) for word in ("fine", "good")]
        return None

    def ask_poison(example: Example) -> Search:
        yield [example.words.replace(0, word) for word in ("fine", "poison")]
        return None

    texts = ["good film", "poison film", "a hole", "warm film", "dull film"]
    examples = [Example(id=text, words=Words.of(text), label=0) for text in texts]
    attacks = {"fine": Scripted(ask), "poisoned": Scripted(ask_poison)}
    found = {r.key: (r.status, r.reason) for r in run(attacks, CallableVictim(scores), examples)}
    raised = ("unresolved", "error: RuntimeError: cannot read this")
    for attack in attacks:
        assert found[attack, "poison film"] == raised
        assert found[attack, "a hole"] == ("unresolved", "error: scores are NaN or infinite")
    for text in ("good film", "warm film", "dull film"):
        assert found["fine", text] == ("survived", "")
        assert found["poisoned", text] == raised


def test_a_flip_counts_even_when_another_candidate_could_not_be_scored() -> None:
    def scores(texts: list[str]) -> list[list[float]]:
        if any("poison" in text for text in texts):
            raise RuntimeError("no")
        return [[0.0, 1.0] if "win" in text else [1.0, 0.0] for text in texts]

    def ask(example: Example) -> Search:
        candidates = [example.words.replace(0, word) for word in ("poison", "win")]
        flips = example.flips((yield candidates))
        return candidates[flips.index(True)]

    example = Example(id="a", words=Words.of("good"), label=0)
    (record,) = run({"s": Scripted(ask)}, CallableVictim(scores), [example])
    assert (record.status, record.adversarial_text) == ("flipped", ("win",))
    assert (record.num_modified_words, record.num_words, record.adversarial_prediction) == (1, 1, 1)


def test_every_text_of_a_bad_corpus_is_accounted_for() -> None:
    texts = [
        "",
        "   ",
        "\ud800 lone",
        "\x00\x1b[31m",
        "🙂 ‮abc",
        "word " * 3000,
        "a\u200bb",
        "é" * 50,
    ]
    examples = [Example(id=str(i), words=Words.of(text), label=0) for i, text in enumerate(texts)]

    def scores(given: list[str]) -> list[list[float]]:
        return [[1.0, len(text.encode()) % 3 / 2] for text in given]

    attacks = {"deepwordbug": build_attack("deepwordbug")}
    records = list(run(attacks, CallableVictim(scores), examples, query_budget=300))
    assert sorted(r.id for r in records) == [e.id for e in examples]
    by_id = {r.id: (r.status, r.reason) for r in records}
    assert by_id["0"] == by_id["1"] == ("unresolved", "no_candidates")
    assert by_id["2"][1].startswith("error: UnicodeEncodeError")


def test_a_label_outside_the_model_is_unresolved() -> None:
    victim = CallableVictim(lambda texts: [[1.0, 0.0]] * len(texts))
    examples = [Example(id=str(label), words=Words.of("good"), label=label) for label in (-1, 0, 2)]
    found = {r.id: r for r in run({"d": build_attack("deepwordbug")}, victim, examples)}
    assert found["0"].status == "survived"
    assert found["2"].reason == "error: label 2, but the model has 2 classes"
    assert found["-1"].status == "unresolved"


def test_done_pairs_are_skipped() -> None:
    attacks = {"d": build_attack("deepwordbug")}
    records = run(attacks, toy.victim(), toy.examples(5), skip={("d", "1"), ("other", "2")})
    assert sorted(r.id for r in records) == ["0", "2", "3", "4"]


def test_bad_arguments_and_missing_resources_fail_before_the_first_query() -> None:
    def never(texts: list[str]) -> Any:
        raise AssertionError("asked")

    victim, examples = CallableVictim(never), toy.examples(1)
    with pytest.raises(ConfigError, match="width: got 0"):
        run({}, victim, examples, width=0)
    with pytest.raises(ConfigError, match="query_budget: got 0"):
        run({}, victim, examples, query_budget=0)
    missing = build_attack("synonym", {"source": "vectors", "vectors": "nowhere.npy"})
    with pytest.raises(ResourceError, match=r"nowhere\.npy.*no such file"):
        run({"synonym": missing}, victim, examples)


@pytest.mark.parametrize("scores", [[[1.0]], [1.0], [[1.0, 2.0], [1.0, 2.0]]])
def test_scores_of_a_wrong_shape_stop_the_run(scores: Any) -> None:
    with pytest.raises(DataError, match="victim scores: got shape"):
        list(
            run(
                {"d": build_attack("deepwordbug")},
                CallableVictim(lambda _: scores),
                toy.examples(1),
            )
        )


def test_a_search_that_hangs_is_unresolved_and_others_go_on() -> None:
    def hang(example: Example) -> Search:
        while True:
            time.sleep(0.01)
        yield []

    attacks = {"hang": Scripted(hang), "good": build_attack("deepwordbug")}
    examples = [e for e in toy.examples(6) if e.id in "12"]
    found = outcomes(attacks, toy.victim(), examples, timeout=0.1)
    hung = {(r.status, r.reason) for r in found if r.attack == "hang"}
    assert hung == {("unresolved", "error: TimeoutError: took longer than 0.1 s")}
    assert {r for r in found if r.attack == "good"} == outcomes(
        {"good": attacks["good"]}, toy.victim(), examples
    )


def test_a_victim_that_hangs_on_a_text_is_pinned_to_it() -> None:
    def scores(texts: list[str]) -> list[list[float]]:
        if any("poison" in text for text in texts):
            time.sleep(5)
        return [[1.0, 0.0] for _ in texts]

    examples = [Example(id=text, words=Words.of(text), label=0) for text in ("good", "poison")]
    records = run({"d": build_attack("deepwordbug")}, CallableVictim(scores), examples, timeout=0.1)
    found = {r.id: (r.status, r.reason) for r in records}
    assert found == {
        "good": ("survived", ""),
        "poison": ("unresolved", "error: TimeoutError: took longer than 0.1 s"),
    }


def test_a_timer_that_was_running_goes_on() -> None:
    signal.setitimer(signal.ITIMER_REAL, 100.0)
    try:
        with deadline(5.0):
            assert signal.getitimer(signal.ITIMER_REAL)[0] <= 5.0
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        with pytest.raises(TimeoutError), deadline(0.02):
            time.sleep(1)
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_white_box_attack_on_a_black_box_fails_before_the_first_query(toy_fields: Fields) -> None:
    def never(texts: list[str]) -> Any:
        raise AssertionError("asked")

    for name in ("a2t", "textgrad", "token-gradient"):
        attack = build_attack(name, toy_fields(name))
        with pytest.raises(UnsupportedModelError, match=f"attack {name}.*has no gradients"):
            run({name: attack}, CallableVictim(never), toy.examples(1))


def test_an_unanswered_request_is_pinned_to_its_search(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        def similarities(self, pairs: list[tuple[str, str]]) -> list[float]:
            if any("poison" in text for pair in pairs for text in pair):
                raise RuntimeError("no")
            return [0.5 for _ in pairs]

    monkeypatch.setattr(services, "load_encoder", lambda model: Encoder())

    def ask(example: Example) -> Search:
        cosines = yield Similar("x", [(example.words.texts[0], "a")] * 2)
        assert cosines == [0.5, 0.5]
        yield [example.words.replace(0, "bad")]
        return None

    examples = [Example(id=t, words=Words.of(t), label=0) for t in ("good", "poison", "warm")]
    victim = CallableVictim(lambda texts: [[1.0, 0.0]] * len(texts))
    found = {r.id: (r.status, r.reason) for r in run({"s": Scripted(ask)}, victim, examples)}
    assert found["good"] == found["warm"] == ("survived", "")
    assert found["poison"] == ("unresolved", "error: RuntimeError: no")


def test_requests_of_one_kind_share_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Encoder:
        def similarities(self, pairs: list[tuple[str, str]]) -> list[float]:
            calls.append(len(pairs))
            return [float(at) for at in range(len(pairs))]

    monkeypatch.setattr(services, "load_encoder", lambda model: Encoder())
    requests = [Similar("x", [("a", "b")] * size) for size in (1, 3, 0, 2)]
    assert services.answer_services(requests) == [[0.0], [1.0, 2.0, 3.0], [], [4.0, 5.0]]
    assert calls == [6]


def test_a_search_may_return_what_it_has_when_the_queries_are_used_up() -> None:
    def ask(example: Example) -> Search:
        flipped = example.words.replace(0, "win")
        yield [flipped]
        try:
            while True:
                yield [example.words.replace(0, "other")]
        except OutOfQueriesError:
            return flipped

    victim = CallableVictim(lambda texts: [[0.0, 1.0] if "win" in t else [1.0, 0.0] for t in texts])
    example = Example(id="a", words=Words.of("good"), label=0)
    (record,) = run({"s": Scripted(ask)}, victim, [example], query_budget=5)
    assert (record.status, record.num_queries) == ("flipped", 5)


def test_cache_stays_bounded() -> None:
    from textadv.attacks.scorer import Scorer

    scorer = Scorer(toy.victim(), cache_size=10)
    for start in range(0, 100, 7):
        scorer.score([(f"film {n}",) for n in range(start, start + 20)])
        assert len(scorer._cache) == 10
    before = scorer.num_scored
    scorer.score([("film 117",)])
    assert scorer.num_scored == before
