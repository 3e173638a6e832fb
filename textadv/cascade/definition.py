"""Frozen sets of attacks, by name and version, so that figures can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from textadv.attacks import ATTACKS, build_attack
from textadv.attacks.base import Attack, attack_config, config_hash
from textadv.errors import ConfigError, unknown_name
from textadv.resources import KINDS

__all__ = ["CASCADES", "FROZEN", "GROUPS", "TRACKS", "Ball", "Cascade", "Stage", "get_cascade"]

Track = Literal["char", "synonym", "contextual", "unicode", "embedding"]
TRACKS: tuple[Track, ...] = get_args(Track)

GROUPS: dict[str, tuple[Track, ...]] = {
    "words": ("synonym", "contextual"),
    "char": ("char",),
    "unicode": ("unicode",),
    "embedding": ("embedding",),
}
"""Tracks whose union is one figure. Survivors go on inside a group; the first that ran is the
headline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One text attack of a cascade.

    Args:
        attack: Its name in `ATTACKS`.
        track: What it changes.
        fields: Settings that differ from its defaults.
        alias: The name it is recorded under, when that is not the attack's.
        query_budget: Most queries per example.
    """

    attack: str
    track: Track
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    alias: str = ""
    query_budget: int | None = 5000

    @property
    def name(self) -> str:
        """The name the stage is recorded under."""
        return self.alias or self.attack

    def build(self, resources: Mapping[str, str] | None = None) -> Attack:
        """Return the attack; resources it has a field for (`vectors`, ...) are put in.

        Raises:
            ConfigError: This version has no attack of that name.
        """
        kind = ATTACKS.get(self.attack)
        known = {field.name for field in dataclasses.fields(kind)} if kind is not None else set()
        given = {name: path for name, path in (resources or {}).items() if name in known}
        return build_attack(self.attack, {**self.fields, **given})

    @property
    def definition(self) -> dict[str, Any]:
        """Everything that decides what the stage does, except for the resources' contents."""
        config = {"attack": self.attack, "fields": dict(self.fields)}
        if self.attack in ATTACKS:
            resolved = attack_config(self.build())
            config = {k: v for k, v in resolved.items() if k.replace("_", "-") not in KINDS}
        return {"name": self.name, "track": self.track, "budget": self.query_budget, **config}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ball:
    """The embedding track: PGD on the margin in l2 balls around the text's embeddings.

    Args:
        radii: In multiples of the mean length of a word's embedding, so that models with embeddings
            of another scale can be compared.
        reference: The radius the track's one figure is about.
        num_steps: Gradient steps per start.
        restarts: Starts; all but the first are random.
    """

    radii: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    reference: float = 0.2
    num_steps: int = 20
    restarts: int = 2

    def name(self, radius: float) -> str:
        """Return the name that outcomes at a radius are recorded under."""
        return f"pgd-l2-{radius:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cascade:
    """Attacks in the order they run, cheap ones first."""

    name: str
    stages: tuple[Stage, ...]
    ball: Ball | None
    num_examples: int

    def hash(self) -> str:
        """Return a hash of every parameter, defaults of the attacks included."""
        ball = dataclasses.asdict(self.ball) if self.ball else None
        return config_hash([self.name, [stage.definition for stage in self.stages], ball])

    def group(self, track: Track) -> str:
        """Return the group of a track."""
        return next(name for name, tracks in GROUPS.items() if track in tracks)

    def select(self, tracks: tuple[str, ...] | None) -> Cascade:
        """Return the same cascade with some of its tracks; name and hash stay those of the whole.

        Raises:
            ConfigError: An unknown track.
        """
        for track in tracks or ():
            if track not in TRACKS:
                raise unknown_name("track", track, TRACKS)
        if not tracks:
            return self
        return dataclasses.replace(
            self,
            stages=tuple(stage for stage in self.stages if stage.track in tracks),
            ball=self.ball if "embedding" in tracks else None,
        )


# TextFooler's candidates, searched in other ways.
_LATTICE = {"source": "vectors", "max_candidates": 50, "min_cosine": 0.5}

CASCADES: dict[str, Cascade] = {
    "standard-v1": Cascade(
        name="standard-v1",
        num_examples=1000,
        stages=(
            Stage(attack="deepwordbug", track="char", fields={"max_distance": 30}),
            Stage(attack="textfooler", track="synonym"),
            Stage(attack="pwws", track="synonym"),
            Stage(attack="bae-r", track="contextual"),
            Stage(attack="bert-attack", track="contextual", fields={"max_candidates": 48}),
            Stage(
                attack="token-gradient",
                track="synonym",
                fields={**_LATTICE, "num_restarts": 3},
            ),
            Stage(attack="synonym-beam", track="synonym", fields={**_LATTICE, "beam": 8}),
            *(
                Stage(attack=f"imperceptible-{kind}", track="unicode", fields={"budget": 3})
                for kind in ("invisible", "homoglyph", "reorder", "delete")
            ),
        ),
        ball=Ball(),
    ),
    "quick-v1": Cascade(
        name="quick-v1",
        num_examples=100,
        stages=(
            Stage(attack="deepwordbug", track="char", query_budget=300),
            Stage(
                attack="synonym",
                track="synonym",
                fields={"source": "wordnet", "max_candidates": 12},
                query_budget=300,
            ),
        ),
        ball=Ball(radii=(0.1, 0.2, 0.4), num_steps=8, restarts=1),
    ),
}

FROZEN = {"standard-v1": "4c2ae56f83a585d2", "quick-v1": "eba80d9f5dc27b56"}
"""The hash of each version. A change to any parameter needs a new version, not a new hash."""


def get_cascade(name: str) -> Cascade:
    """Return a cascade by name; `quick` stands for the newest quick one.

    Raises:
        ConfigError: An unknown name.
    """
    found = CASCADES.get({"quick": "quick-v1", "standard": "standard-v1"}.get(name, name))
    if found is None:
        raise unknown_name("cascade", name, CASCADES)
    if not found.stages and found.ball is None:
        raise ConfigError(f"cascade {name}", got="no stages", expected="at least one")
    return found
