"""Figures of a cascade from its records: per attack, per track, per group, and the headline."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textadv import metrics
from textadv.attacks.base import attack_config, attack_identity, config_hash
from textadv.attacks.records import Record
from textadv.cascade.definition import GROUPS, Track
from textadv.cascade.plan import Plan
from textadv.metrics import Status
from textadv.quality import filtered, quality
from textadv.report import AttackResult, RobustnessReport

__all__ = ["Figures"]


class Figures:
    """Count the outcomes of a cascade.

    Args:
        plan: What ran.
        ids: The examples.
        records: Records by attack and id; in a survivors-only run an attack lacks those that were
            decided earlier in its group.
    """

    def __init__(
        self, plan: Plan, ids: Sequence[str], records: Mapping[str, Mapping[str, Record]]
    ) -> None:
        self.plan, self.ids, self.records = plan, ids, records
        self.tracks, self.groups = plan.tracks, plan.groups
        self.survivors_only = plan.mode == "survivors"
        self._qualities: dict[str, dict[str, Any]] = {}

    def report(self, seed: int, scale: float, encoder: str | None) -> RobustnessReport:
        """Return the report, without the names of model and data.

        Args:
            seed: Of the run.
            scale: Mean length of a word's embedding.
            encoder: Sentence encoder to measure similarity with.
        """
        n, right = len(self.ids), self.num_right
        names = list(self.plan.attacks)
        return RobustnessReport(
            model="",
            data="",
            num_examples=n,
            seed=seed,
            clean_accuracy=right / n,
            clean_interval=metrics.wilson_interval(right, n),
            attacks={name: self.attack(name, encoder) for name in names},
            embedding=self.embedding(scale),
            worst_case={**self.figure(names), "attacks": names} if names else None,
            versions={name: _version(name) for name in ("textadv", "torch", "transformers")},
            cascade={
                "name": self.plan.cascade.name,
                "hash": self.plan.cascade.hash(),
                "mode": self.plan.mode,
                **self.summary(),
                "not_run": dict(self.plan.not_run),
            },
            records=tuple(
                rows[name] for name in self.ids for rows in self.records.values() if name in rows
            ),
        )

    def attack(self, name: str, encoder: str | None = None) -> AttackResult:
        """Return the result of one attack.

        In a survivors-only run accuracy and counts are those after it and all before it in its
        group, while success rate, queries and quality are over the examples it was tried on.
        """
        attack, stage = self.plan.attacks[name], self.plan.stage(name)
        own, counts = self.own(name), self.counts_after(name)
        queries = [float(r.num_queries) for r in own if r.status in ("flipped", "survived")]
        flipped = [record for record in own if record.status == "flipped"]
        reasons = Counter(record.reason for record in own if record.reason)
        if earlier := self.flipped_earlier(name):
            reasons["flipped_earlier"] = earlier
        return AttackResult(
            accuracy_under_attack=metrics.accuracy_under_attack(counts),
            interval=metrics.wilson_interval(counts["survived"], len(self.ids)),
            attack_success_rate=metrics.attack_success_rate(
                metrics.outcome_counts((record.status for record in own), len(own))
            ),
            mean_queries=metrics.mean(queries),
            median_queries=metrics.median(queries),
            query_budget=stage.query_budget,
            counts=counts,
            reasons=dict(sorted(reasons.items())),
            modified_word_rate=metrics.mean(
                [record.num_modified_words / max(record.num_words, 1) for record in flipped]
            ),
            config=attack_config(attack),
            config_hash=config_hash([attack_identity(attack), stage.query_budget]),
            quality=self.quality(name, encoder),
        )

    @property
    def num_right(self) -> int:
        """Examples classified right before any attack."""
        found = {r.id for rows in self.records.values() for r in rows.values() if _right(r)}
        return len(found)

    def own(self, attack: str) -> list[Record]:
        """Return the records of one attack, in the order of the examples."""
        rows = self.records.get(attack, {})
        return [rows[name] for name in self.ids if name in rows]

    def statuses(self, attacks: Iterable[str]) -> list[Status]:
        """Return the worst case of each example over some attacks; `unresolved` without any."""
        tables = [self.records.get(attack, {}) for attack in attacks]
        return [
            metrics.worst_case([rows[name].status for rows in tables if name in rows])
            if any(name in rows for rows in tables)
            else "unresolved"
            for name in self.ids
        ]

    def figure(self, attacks: Iterable[str]) -> dict[str, Any]:
        """Return accuracy, interval and counts of the worst case over some attacks."""
        counts = metrics.outcome_counts(self.statuses(attacks), len(self.ids))
        return {
            "accuracy": metrics.accuracy_under_attack(counts),
            "interval": list(metrics.wilson_interval(counts["survived"], len(self.ids))),
            "counts": counts,
        }

    def quality(self, attack: str, encoder: str | None = None) -> dict[str, Any]:
        """Return how far the texts changed by one attack are from the originals.

        The accuracy over similar flips is that after the attack and those before it; what flipped
        to a dissimilar text was not tried on again, so it is an upper bound.
        """
        chain = self._chain(attack)
        for name in chain:
            if name not in self._qualities:
                self._qualities[name] = quality(self.own(name), encoder)
        found = self._qualities[attack]
        if "dissimilar" not in found:
            return found
        dissimilar = sum(self._qualities[name].get("dissimilar", 0) for name in chain)
        survived = self.counts_after(attack)["survived"]
        return {**found, **filtered(survived, dissimilar, len(self.ids))}

    def _chain(self, attack: str) -> list[str]:
        """Return an attack and, in a survivors-only run, those before it in its group."""
        group = next(members for members in self.groups.values() if attack in members)
        return list(group[: group.index(attack) + 1]) if self.survivors_only else [attack]

    def counts_after(self, attack: str) -> dict[str, int]:
        """Return the counts of one attack; in a survivors-only run, after it and those before."""
        return metrics.outcome_counts(self.statuses(self._chain(attack)), len(self.ids))

    def flipped_earlier(self, attack: str) -> int:
        """Return how many examples an attack was not tried on because they had been flipped."""
        if not self.survivors_only:
            return 0
        return self.counts_after(attack)["flipped"] - sum(
            record.status == "flipped" for record in self.own(attack)
        )

    def track(self, track: Track) -> dict[str, Any]:
        """Return the figure of one track by itself.

        In a survivors-only run some examples were flipped by another track of the group before an
        attack of this one was tried. They are counted in `not_tried`, the figure counts them as
        flipped, and `at_most` is what it would be if all of them survived.
        """
        attacks = self.tracks[track]
        statuses = self.statuses(attacks)
        tables = [self.records.get(attack, {}) for attack in attacks]
        group = next(name for name, tracks in GROUPS.items() if track in tracks)
        worst = self.statuses(self.groups[group])
        missing = 0
        for row, name in enumerate(self.ids):
            tried_all = all(name in rows for rows in tables)
            if statuses[row] in ("survived", "unresolved") and not tried_all:
                missing += worst[row] == "flipped"
                statuses[row] = worst[row]
        counts = metrics.outcome_counts(statuses, len(self.ids))
        return {
            "attacks": list(attacks),
            "accuracy": metrics.accuracy_under_attack(counts),
            "interval": list(metrics.wilson_interval(counts["survived"], len(self.ids))),
            "counts": counts,
            "not_tried": missing,
            "at_most": (counts["survived"] + missing) / max(len(self.ids), 1),
        }

    def summary(self) -> dict[str, Any]:
        """Return the figures of tracks and groups, and the headline with its words."""
        groups = {
            name: {"attacks": list(attacks), **self.figure(attacks)}
            for name, attacks in self.groups.items()
        }
        main = next(iter(groups))
        covered = [track for track in GROUPS[main] if track in self.tracks]
        missing = [track for track in GROUPS[main] if track not in self.tracks]
        figure = groups[main]
        low, high = figure["interval"]
        survived = figure["counts"]["survived"]
        text = (
            f"{100 * figure['accuracy']:.1f} % ({survived}/{len(self.ids)}) "
            f"[{100 * low:.1f}, {100 * high:.1f}] of the examples survive every attack of "
            f"{_listed([*covered], 'track')}: {', '.join(figure['attacks'])}."
        )
        if missing:
            text += f" Not covered: {_listed([*missing], 'track')}."
        return {
            "groups": groups,
            "tracks": {track: self.track(track) for track in self.tracks},
            "headline": {
                "group": main,
                "tracks": covered,
                "all_tracks": list(GROUPS[main]),
                "text": text,
                **figure,
            },
        }

    def embedding(self, scale: float) -> dict[str, dict[str, Any]]:
        """Return accuracy at each radius, in the form `report.embedding` has."""
        found: dict[str, dict[str, Any]] = {}
        if (ball := self.plan.ball) is None:
            return found
        for radius in ball.radii:
            name = ball.name(radius)
            figure = self.figure([name])
            found[name] = {
                "name": "pgd",
                "norm": "l2",
                "scope": "sequence",
                "epsilon": radius * scale,
                "relative_epsilon": radius,
                "num_steps": ball.num_steps,
                "restarts": ball.restarts,
                "accuracy": figure["accuracy"],
                "interval": figure["interval"],
                "num_examples": len(self.ids),
                "mean_token_norm": round(scale, 4),
            }
        return found


def _right(record: Record) -> bool:
    return record.prediction == record.label


def _listed(names: Sequence[str], noun: str) -> str:
    if len(names) == 1:
        return f"the {noun} {names[0]}"
    return f"the {noun}s {', '.join(names[:-1])} and {names[-1]}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
