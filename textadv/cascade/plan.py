"""What of a cascade can run here, and why the rest cannot."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from textadv.attacks.base import Attack, attack_identity
from textadv.attacks.engine import check_victim
from textadv.cascade.definition import GROUPS, Ball, Cascade, Stage, Track
from textadv.classifier import ModelVictim
from textadv.errors import ConfigError, ResourceError, UnsupportedModelError
from textadv.victim import Victim

__all__ = ["Mode", "Plan", "make_plan"]

logger = logging.getLogger(__name__)

Mode = Literal["survivors", "individual"]
NOT_ASKED = "its track was not asked for"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The attacks of a cascade that can run.

    Args:
        cascade: The whole cascade.
        mode: Whether only survivors go on.
        attacks: The text attacks that run, in order.
        ball: The embedding track, if it runs.
        not_run: Why the others do not, by name.
    """

    cascade: Cascade
    mode: Mode
    attacks: Mapping[str, Attack]
    ball: Ball | None
    not_run: Mapping[str, str]

    def stage(self, name: str) -> Stage:
        """Return a stage by the name it is recorded under."""
        return next(stage for stage in self.cascade.stages if stage.name == name)

    @property
    def tracks(self) -> dict[Track, list[str]]:
        """The names of outcomes by track; of the radii of embeddings, the reference alone."""
        found: dict[Track, list[str]] = {}
        for name in self.attacks:
            found.setdefault(self.stage(name).track, []).append(name)
        if self.ball is not None:
            found["embedding"] = [self.ball.name(self.ball.reference)]
        return found

    @property
    def groups(self) -> dict[str, list[str]]:
        """The names of outcomes by group, in the order they run, for groups with any."""
        of_track = self.tracks
        order = [*self.attacks, *of_track.get("embedding", [])]
        found = {}
        for group, tracks in GROUPS.items():
            members = [name for track in tracks for name in of_track.get(track, [])]
            if members:
                found[group] = sorted(members, key=order.index)
        return found

    @property
    def identities(self) -> list[tuple[str, Any]]:
        """What decides the outcomes, resources by content."""
        return [(name, attack_identity(attack)) for name, attack in sorted(self.attacks.items())]


def make_plan(
    whole: Cascade,
    mode: Mode,
    victim: Victim,
    tracks: Sequence[str] = (),
    resources: Mapping[str, str] | None = None,
) -> Plan:
    """Return what of a cascade can run on a victim.

    Raises:
        ConfigError: An unknown track, or not one attack that can run.
    """
    chosen = whole.select(tuple(tracks))
    attacks: dict[str, Attack] = {}
    not_run: dict[str, str] = {}
    for stage in whole.stages:
        if stage not in chosen.stages:
            not_run[stage.name] = NOT_ASKED
            continue
        try:
            attack = stage.build(resources)
            check_victim(stage.name, attack, victim)
            attack.prepare()
            attacks[stage.name] = attack
        except (ResourceError, UnsupportedModelError) as error:
            not_run[stage.name] = str(error)
            logger.warning("%s is not run: %s", stage.name, error)
    ball = chosen.ball
    if whole.ball is not None and ball is None:
        not_run["embedding"] = NOT_ASKED
    elif ball is not None and not isinstance(victim, ModelVictim):
        not_run["embedding"] = f"a {type(victim).__name__} gives no access to its embeddings"
        ball = None
    elif ball is not None and isinstance(victim, ModelVictim) and victim.output is not None:
        not_run["embedding"] = "one label of a multi-label model is attacked"
        ball = None
    if not attacks and ball is None:
        raise ConfigError(
            f"cascade {whole.name}",
            got="not one attack that can run: " + "; ".join(not_run.values()),
            expected="the resources of at least one",
        )
    return Plan(cascade=whole, mode=mode, attacks=attacks, ball=ball, not_run=not_run)
