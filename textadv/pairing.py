"""Whether two evaluations can be paired example by example, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator

from textadv.errors import shown
from textadv.results import Results

__all__ = ["differences"]


def differences(first: Results, second: Results) -> Iterator[str]:
    """Yield what keeps two evaluations from being compared example by example.

    Data comes first, then the protocol, then single attacks. Nothing is yielded for a pair.
    """
    labels, others = first.labels, second.labels
    if odd := sorted(set(labels) ^ set(others)):
        yield f"ids: {len(odd)} are in one only, such as {shown(odd[0])}"
    elif odd := sorted(name for name in labels if first.texts[name] != second.texts[name]):
        yield f"data: {len(odd)} texts differ, such as that of id {shown(odd[0])}"
    elif odd := sorted(name for name in labels if labels[name] != others[name]):
        yield f"data: {len(odd)} labels differ, such as that of id {shown(odd[0])}"
    elif first.report.data_hash != second.report.data_hash:
        yield f"data: hash {first.report.data_hash} and {second.report.data_hash}"
    one, other = first.report.cascade, second.report.cascade
    if (one is None) != (other is None):
        yield "protocols: one is a cascade, the other is not"
    if one is not None and other is not None:
        for key in ("name", "hash", "mode"):
            if one[key] != other[key]:
                yield f"cascade {key}: {shown(one[key])} and {shown(other[key])}"
    yield from _attack_differences(first, second)
    if not labels:
        yield "nothing to compare: neither has records"


def _attack_differences(first: Results, second: Results) -> Iterator[str]:
    if first.groups != second.groups:
        run, other = (
            {attack for attacks in results.groups.values() for attack in attacks}
            for results in (first, second)
        )
        names = shown(", ".join(sorted(run ^ other)))[1:-1]
        yield f"attacks: {names} ran on one model only"
    for name, result in first.report.attacks.items():
        against = second.report.attacks.get(name)
        if against is None:
            continue
        if result.config_hash != against.config_hash:
            yield f"settings of {shown(name)}: {result.config_hash} and {against.config_hash}"
        if result.query_budget != against.query_budget:
            yield f"query budgets: {result.query_budget} and {against.query_budget}"
