"""Run many attacks on many examples at once, with one merged victim call per tick."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Container, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from textadv.attacks.base import Attack, Example, NoCandidatesError, Search
from textadv.attacks.records import Record
from textadv.attacks.scorer import Answer, Failure, Scorer, Texts, reason_of
from textadv.errors import ConfigError, shown
from textadv.metrics import Status
from textadv.seeding import python_random
from textadv.victim import Victim
from textadv.words import Words

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(
    attacks: Mapping[str, Attack],
    victim: Victim,
    examples: Iterable[Example],
    *,
    width: int = 64,
    query_budget: int | None = None,
    seed: int = 0,
    cache_size: int = 16384,
    skip: Container[tuple[str, str]] = frozenset(),
) -> Iterator[Record]:
    """Attack every example with every attack and yield a record of each as it ends.

    Records come in the order in which searches end, which depends on `width`; what they say does
    not. It does not depend on batch sizes, the cache or the order of the examples either, because
    every search draws from its own random stream and sees only its own scores.

    Args:
        attacks: The attacks by the name they are recorded and seeded under.
        victim: The model.
        examples: Consumed as places become free.
        width: Searches that run at once.
        query_budget: Most texts each search may ask about, the unchanged one included; None for no
            limit. A request for more than is left is answered in part and ends the search.
        seed: Where all random streams derive from.
        cache_size: Texts whose scores are remembered across examples; 0 turns it off.
        skip: `(attack, id)` pairs that are done already.

    Raises:
        ResourceError: An attack lacks a resource; before the first query.
        ConfigError: A width or budget below 1.
        DataError: A victim that does not return one row of scores per text.
    """
    for where, value in (("width", width), ("query_budget", query_budget)):
        if value is not None and value < 1:
            raise ConfigError(where, got=str(value), expected="a number >= 1")
    for attack in attacks.values():
        attack.prepare()
    scorer = Scorer(victim, cache_size)
    searches = (
        _Running(name, attack, example, query_budget, seed)
        for example in examples
        for name, attack in attacks.items()
        if (name, example.id) not in skip
    )
    return _ticks(searches, scorer, width)


def _ticks(searches: Iterator[_Running], scorer: Scorer, width: int) -> Iterator[Record]:
    active: list[_Running] = []
    while True:
        active.extend(itertools.islice(searches, width - len(active)))
        if not active:
            return
        answers = scorer.score(text for search in active for text in search.asked)
        for search in active:
            search.advance(answers, scorer)
        ended = [search.record for search in active if search.record]
        active = [search for search in active if not search.record]
        yield from ended


class _Running:
    """One attack on one example: what it asks now, and the record once it has ended."""

    def __init__(
        self, name: str, attack: Attack, example: Example, budget: int | None, seed: int
    ) -> None:
        self.name, self.attack, self.example, self.seed = name, attack, example, seed
        self.left = budget
        self.asked: list[Texts] = []
        self.record: Record | None = None
        self.failure = ""
        self.exhausted = False
        self.prediction: int | None = None
        self.seen: set[Texts] = set()
        self.num_queries = 0
        self.request: list[Words] = []
        self.search: Search | None = None
        self._request([example.words])

    def advance(self, answers: Mapping[Texts, Answer], scorer: Scorer) -> None:
        """Take the answers to what was asked and go on to the next request or to the end."""
        try:
            if self.search is None:
                self._start(answers[self.asked[0]])
                scores = None
            else:
                scores = self._scores(answers)
            if self.search is not None:
                self._go_on(self.search, scores, scorer)
        except NoCandidatesError:
            self._end("unresolved", "no_candidates")
        except Exception as error:
            logger.warning("attack %s, example %s: %s", self.name, self.example.id, shown(error))
            self._end("unresolved", reason_of(error))

    def _start(self, answer: Answer) -> None:
        """Judge the clean pass and, when the example is right, start the search."""
        if isinstance(answer, Failure):
            self._end("unresolved", answer.reason)
            return
        self.clean = torch.tensor(answer)
        if not 0 <= self.example.label < len(answer):
            reason = f"error: label {self.example.label}, but the model has {len(answer)} classes"
            self._end("unresolved", reason)
            return
        self.prediction = int(self.clean.argmax())
        if self.prediction != self.example.label:
            self._end("wrong_before")
            return
        rng = python_random(self.seed, "attack", self.name, self.example.id)
        example = dataclasses.replace(self.example, clean=self.clean)
        self.search = self.attack.search(example, rng)

    def _go_on(self, search: Search, scores: Tensor | None, scorer: Scorer) -> None:
        """Resume the search until it asks for something it may still have, or ends."""
        while True:
            try:
                request = next(search) if scores is None else search.send(scores)
            except StopIteration as stop:
                self._finish(stop.value, scorer)
                return
            if request and self.left == 0:
                self.exhausted = True
                search.close()
                self._finish(None, scorer)
                return
            if request:
                self._request(request)
                return
            scores = self.clean.new_empty(0, len(self.clean))

    def _request(self, request: list[Words]) -> None:
        """Note what is asked, cut to the queries that are left."""
        self.request = request
        self.asked = [words.texts for words in request[: self.left]]
        self.exhausted = len(self.asked) < len(request)
        self.num_queries += len(self.asked)
        self.seen.update(self.asked)
        if self.left is not None:
            self.left -= len(self.asked)

    def _scores(self, answers: Mapping[Texts, Answer]) -> Tensor:
        """Return the answers as one row per requested text, NaN where there is none."""
        nothing = [float("nan")] * len(self.clean)
        rows = []
        for text in self.asked:
            answer = answers[text]
            if isinstance(answer, Failure):
                self.failure = self.failure or answer.reason
            rows.append(nothing if isinstance(answer, Failure) else answer)
        rows += [nothing] * (len(self.request) - len(rows))
        return torch.tensor(rows)

    def _finish(self, found: Words | None, scorer: Scorer) -> None:
        """Replay a success from its text alone; an error on the way is never robustness."""
        if found is None:
            if self.failure:
                self._end("unresolved", self.failure)
            else:
                self._end("survived", "budget" if self.exhausted else "")
            return
        answer = scorer.ask([found.texts])[0]
        if isinstance(answer, Failure):
            self._end("unresolved", "replay")
            return
        prediction = int(torch.tensor(answer).argmax())
        if prediction == self.example.label:
            self._end("unresolved", "replay")
        else:
            self._end("flipped", found=found, prediction=prediction)

    def _end(
        self,
        status: Status,
        reason: str = "",
        *,
        found: Words | None = None,
        prediction: int | None = None,
    ) -> None:
        self.record = Record(
            id=self.example.id,
            attack=self.name,
            status=status,
            reason=reason,
            label=self.example.label,
            prediction=self.prediction,
            text=self.example.words.texts,
            adversarial_text=found.texts if found else None,
            adversarial_prediction=prediction,
            num_queries=self.num_queries,
            num_unique_queries=len(self.seen),
            num_modified_words=found.num_modified if found else 0,
            num_words=len(self.example.words),
        )
