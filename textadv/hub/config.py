"""The `hub` block of a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textadv.errors import ConfigError, shown

__all__ = ["HubConfig", "check_repo_id"]

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Say where a run is published, and under which terms: the `hub` block of a recipe.

    Args:
        repo: Repository id, `owner/name`.
        private: Create the repository as private.
        license: Licence id for the card, such as `apache-2.0`.
        language: Language codes for the card, such as `en`.

    Raises:
        ConfigError: An id or licence that the Hub cannot have.
    """

    repo: str | None = None
    private: bool = False
    license: str | None = None
    language: list[str] | None = None

    def __post_init__(self) -> None:
        if self.repo is not None:
            check_repo_id(self.repo, "hub.repo")
        for name in (self.license, *(self.language or ())):
            if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", name):
                kind = "license" if name == self.license else "language"
                raise ConfigError(f"hub.{kind}", got=shown(name), expected="an id such as en, mit")


def check_repo_id(repo_id: str, where: str) -> None:
    """Refuse what is no repository id.

    Raises:
        ConfigError: Not `owner/name`.
    """
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise ConfigError(where, got=shown(repo_id), expected="a repository id: owner/name")
