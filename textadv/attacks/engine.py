"""Run many attacks on many examples at once, with one merged victim call per tick."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping

from textadv.attacks.base import Attack, Example
from textadv.attacks.records import Record
from textadv.attacks.requests import Fill, Gradients, Guess, Similar
from textadv.attacks.running import Running
from textadv.attacks.scorer import Scorer
from textadv.attacks.services import answer_gradients, answer_services
from textadv.errors import ConfigError, UnsupportedModelError
from textadv.victim import Victim

__all__ = ["run"]


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
    timeout: float | None = None,
) -> Iterator[Record]:
    """Attack every example with every attack and yield a record of each as it ends.

    Records come in the order in which searches end, which depends on `width`; what they say does
    not. It does not depend on batch sizes, the cache or the order of the examples either, because
    every search draws from its own random stream and sees only its own scores.

    A model's logits of one text depend in their last bits on the texts it is batched with. Searches
    see margins in steps of 2^-10 of the spread of the clean logits, and whether they are below 0.
    A text so near an edge between two steps, or to 0, that those bits could decide is scored once
    more alone, and every unchanged text is scored alone; neither is a query more. This holds for
    victims that state their `noise`, as models in float32 do. In half precision the noise is as
    large as what is compared, and near-ties may fall otherwise at another width.
    `pwws-textattack` compares unrounded probabilities, as what it copies does.

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
        timeout: Most seconds that one step of a search, or one call of the victim, may take; what
            takes longer is `unresolved`. Outcomes then depend on the speed of the machine.

    Raises:
        ResourceError: An attack lacks a resource; before the first query.
        UnsupportedModelError: A white-box attack on a victim without gradients.
        ConfigError: A width, budget or timeout that is not positive.
        DataError: A victim that does not return one row of scores per text.
    """
    for where, value in (("width", width), ("query_budget", query_budget)):
        if value is not None and value < 1:
            raise ConfigError(where, got=str(value), expected="a number >= 1")
    if timeout is not None and timeout <= 0:
        raise ConfigError("timeout", got=str(timeout), expected="a number > 0")
    for name, attack in attacks.items():
        check_victim(name, attack, victim)
        attack.prepare()
    scorer = Scorer(victim, cache_size, timeout)
    searches = (
        Running(name, attack, example, query_budget, seed, scorer)
        for example in examples
        for name, attack in attacks.items()
        if (name, example.id) not in skip
    )
    return _ticks(searches, scorer, width)


def check_victim(name: str, attack: Attack, victim: Victim) -> None:
    """Refuse a white-box attack on a victim without gradients."""
    missing = [what for what in ("gradients", "word_vectors") if not hasattr(victim, what)]
    if missing and getattr(attack, "white_box", False):
        raise UnsupportedModelError(
            f"attack {name}",
            got=f"a {type(victim).__name__}, which has no {missing[0]}",
            expected="a victim that can be differentiated",
            fix="attack a Hugging Face model, or leave the white-box attack out",
        )


def _ticks(searches: Iterator[Running], scorer: Scorer, width: int) -> Iterator[Record]:
    active: list[Running] = []
    while True:
        active.extend(itertools.islice(searches, width - len(active)))
        if not active:
            return
        scores = scorer.score(text for search in active for text in search.asked)
        served = {
            id(search): search.request
            for search in active
            if isinstance(search.request, Fill | Guess | Similar)
        }
        answers = dict(zip(served, answer_services(list(served.values())), strict=True))
        sloped = [s for s in active if isinstance(s.request, Gradients)]
        slopes = answer_gradients(scorer.victim, [s.gradient_request for s in sloped])
        answers |= dict(zip(map(id, sloped), slopes, strict=True))
        for search in active:
            search.advance(scores, answers.get(id(search)))
        ended = [search.record for search in active if search.record]
        active = [search for search in active if not search.record]
        yield from ended
