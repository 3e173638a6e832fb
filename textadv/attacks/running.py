"""One attack on one example: what it asks now, and how it ended."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from textadv.attacks.base import (
    Attack,
    Example,
    NoCandidatesError,
    OutOfQueriesError,
    Search,
    attack_goal,
)
from textadv.attacks.deadline import deadline
from textadv.attacks.records import Record
from textadv.attacks.requests import Gradients, Request
from textadv.attacks.scorer import Answer, Failure, Scorer, Texts, reason_of
from textadv.errors import shown
from textadv.metrics import Status
from textadv.seeding import python_random
from textadv.words import Words

__all__ = ["Running"]

logger = logging.getLogger(__name__)


class Running:
    """Drive one search: cut its requests to the budget, count, and judge what it returns.

    Attributes:
        request: What is asked.
        asked: The texts of it whose scores are wanted.
        record: The outcome, once it has ended.
    """

    def __init__(
        self,
        name: str,
        attack: Attack,
        example: Example,
        budget: int | None,
        seed: int,
        scorer: Scorer,
    ) -> None:
        # A copy, so that what words remember about themselves goes when the search ends.
        own = dataclasses.replace(example, words=dataclasses.replace(example.words))
        self.name, self.attack, self.example, self.seed = name, attack, own, seed
        self.scorer = scorer
        self.left = budget
        self.request: Request = [own.words]
        self.asked: list[Texts] = []
        self.paid = 0
        self.record: Record | None = None
        self.failure = ""
        self.exhausted = False
        self.prediction: int | None = None
        self.seen: set[Texts] = set()
        self.num_queries = 0
        self.num_unread = 0
        self.search: Search | None = None
        self._ask(self.request)
        if scorer.noise:
            self.asked = []  # the unchanged text is asked about alone

    @property
    def gradient_request(self) -> tuple[Example, Gradients, int]:
        """The example, the gradients it asks for, and how many of them it may have."""
        if not isinstance(self.request, Gradients):
            raise TypeError(f"example {self.example.id} asks for {type(self.request).__name__}")
        return self.example, self.request, self.paid

    def advance(self, scores: Mapping[Texts, Answer], answer: Any) -> None:
        """Take the answers to what was asked and go on to the next request or to the end."""
        try:
            if self.search is None:
                text = self.example.words.texts
                # All margins are measured by these logits: they must not depend on a batch.
                self._start(self.scorer.alone(text) if self.scorer.noise else scores[text])
                reply = None
            else:
                reply = self._scores(scores) if isinstance(self.request, list) else answer
            if isinstance(reply, Failure):
                self._end("unresolved", reply.reason)
            elif self.search is not None:
                self._go_on(self.search, reply)
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
        unread = self._unread()
        self.num_unread = len(unread)
        if self.prediction != self.example.label:
            self._end("wrong_before")
            return
        rng = python_random(self.seed, "attack", self.name, self.example.id)
        words = self.example.words.protect(unread) if unread else self.example.words
        self.example = dataclasses.replace(self.example, clean=self.clean, words=words)
        self.search = self.attack.search(self.example, rng)

    def _unread(self) -> set[int]:
        """Return the positions of words that end behind what the model reads."""
        readable = getattr(self.scorer.victim, "readable", None)
        if readable is None:
            return set()
        ends = readable(self.example.words.texts)
        spans = enumerate(self.example.words.spans)
        return {at for at, (column, _, end) in spans if end > ends[column]}

    def _go_on(self, search: Search, reply: Any) -> None:
        """Resume the search until it asks for something it may still have, or ends."""
        while True:
            try:
                with deadline(self.scorer.timeout):
                    request = next(search) if reply is None else search.send(reply)
            except StopIteration as stop:
                self._finish(stop.value)
                return
            costs = _costs(request)
            if costs and self.left == 0:
                self.exhausted = True
                self._finish(_last_word(search))
                return
            if costs or not isinstance(request, list | Gradients):
                self._ask(request)
                return
            reply = (
                [] if isinstance(request, Gradients) else self.clean.new_empty(0, len(self.clean))
            )

    def _ask(self, request: Request) -> None:
        """Note what is asked, cut to the queries that are left."""
        self.request = request
        costs = _costs(request)
        self.paid = costs if self.left is None else min(costs, self.left)
        self.asked = (
            [words.texts for words in request[: self.paid]] if isinstance(request, list) else []
        )
        self.exhausted = self.exhausted or self.paid < costs
        self.num_queries += self.paid
        self.seen.update(self.asked)
        if isinstance(request, Gradients):
            self.seen.update(words.texts for words in request.texts[: self.paid])
        if self.left is not None:
            self.left -= self.paid

    def _scores(self, answers: Mapping[Texts, Answer]) -> Tensor:
        """Return the answers as one row per requested text, NaN where there is none.

        Where the noise of batches could move a margin over an edge, the text is scored alone.
        """
        nothing = [float("nan")] * len(self.clean)
        rows = []
        for text in self.asked:
            answer = answers[text]
            if isinstance(answer, Failure):
                self.failure = self.failure or answer.reason
            rows.append(nothing if isinstance(answer, Failure) else answer)
        found = torch.tensor(rows).reshape(len(rows), len(self.clean))
        for row in self.example.unsettled(found, self.scorer.noise) if self.scorer.noise else []:
            answer = self.scorer.alone(self.asked[row])
            if isinstance(answer, Failure):
                self.failure = self.failure or answer.reason
            found[row] = torch.tensor(nothing if isinstance(answer, Failure) else answer)
        unpaid = found.new_full((_costs(self.request) - len(rows), len(self.clean)), torch.nan)
        return torch.cat([found, unpaid])

    def _finish(self, found: Words | None) -> None:
        """Replay a success from its text alone; an error on the way is never robustness."""
        if found is None:
            if self.failure:
                self._end("unresolved", self.failure)
            else:
                self._end("survived", "budget" if self.exhausted else "")
            return
        answer = self.scorer.ask([found.texts])[0]
        if isinstance(answer, Failure):
            self._end("unresolved", "replay")
            return
        prediction = int(torch.tensor(answer).argmax())
        keep = attack_goal(self.attack) == "keep"
        if (prediction == self.example.label) != keep:
            self._end("unresolved", "replay")
        elif keep:
            self._end("survived", "reduced", found=found, prediction=prediction)
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
            num_unread_words=self.num_unread,
        )


def _last_word(search: Search) -> Words | None:
    """Tell a search that its queries are used up and return what it has."""
    try:
        search.throw(OutOfQueriesError())
    except StopIteration as stop:
        found: Words | None = stop.value
        return found
    except OutOfQueriesError:
        return None
    search.close()
    return None


def _costs(request: Request) -> int:
    """Return how many queries a request costs."""
    if isinstance(request, Gradients):
        return len(request.texts)
    return len(request) if isinstance(request, list) else 0
