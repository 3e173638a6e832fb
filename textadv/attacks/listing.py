"""What each attack needs, whether it is there, and how to get it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from textadv.attacks import ATTACKS
from textadv.attacks.base import attack_resources
from textadv.errors import ResourceError
from textadv.resources import KINDS, content_hash, find

__all__ = ["ResourceStatus", "attack_needs", "list_resources"]

# Content hashes of what the packages held when this was written.
KNOWN = {
    "wordnet": {"8d25ab72cec2a0df": "WordNet 3.0 of nltk"},
    "tagger": {"501cfb34fec61607": "English tagger of nltk 3.9"},
    "stopwords": {"0004bcf1b9079ba3": "stopwords of nltk"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResourceStatus:
    """One kind of resource as it is found without any path given.

    Args:
        kind: A key of `textadv.resources.KINDS`.
        what: What it is.
        attacks: The attacks that need it by default.
        path: Where it is; None when it is missing.
        looked: Where it was looked for, when it is missing.
        variable: Environment variable that can name it.
        how: How to get it.
        content: Hash of its content.
        version: What that content is known as, or nothing when it is not a known one.
    """

    kind: str
    what: str
    attacks: tuple[str, ...]
    path: Path | None
    looked: str
    variable: str
    how: str
    content: str
    version: str


def attack_needs() -> dict[str, tuple[str, ...]]:
    """Return the kinds of resources that each attack of the table needs by default."""
    return {name: tuple(attack_resources(kind())) for name, kind in ATTACKS.items()}


def list_resources() -> list[ResourceStatus]:
    """Look for every kind of resource and return what was found; nothing is loaded."""
    needs = attack_needs()
    found = []
    for kind, spec in KINDS.items():
        path, looked, content = None, "", ""
        try:
            path = find(kind)
            content = content_hash(path)
        except ResourceError as error:
            looked = error.got
        found.append(
            ResourceStatus(
                kind=kind,
                what=spec.what,
                attacks=tuple(name for name, kinds in needs.items() if kind in kinds),
                path=path,
                looked=looked,
                variable=spec.variable,
                how=spec.how,
                content=content,
                version=KNOWN.get(kind, {}).get(content, ""),
            )
        )
    return found
