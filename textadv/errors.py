"""Errors that say where, what was found, what is expected and how to fix it."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable

__all__ = [
    "BusyError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DiskFullError",
    "LaunchError",
    "MemoryLimitError",
    "NonFiniteError",
    "OutputExistsError",
    "ResourceError",
    "TextAdvError",
    "UnsupportedModelError",
    "has_secret",
    "printable",
    "redacted",
    "shown",
    "unknown_name",
]

MAX_PART = 600
_TOKEN = re.compile(
    r"\b(?:(?:hf|api_org|gh[pousr]|github_pat)_[A-Za-z0-9_]{16,}|glpat-[\w-]{16,}|AKIA[0-9A-Z]{16}\b"
    r"|sk-[A-Za-z0-9_-]{20,}|xox[abp]-[\w-]{16,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_SECRET_VARIABLE = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)(_|$)")
_MIN_SECRET = 8


class TextAdvError(Exception):
    """Report a problem the user can act on, in one line.

    The message has no line breaks, no terminal escapes and no access tokens, whatever it is made
    of.

    Args:
        where: File, field, argument or object the problem is in.
        got: What was found there, already fit to print (see `shown`).
        expected: What would have been accepted.
        fix: One action that makes it work.

    Example:
        >>> print(ConfigError("recipe.yaml: training.epochs", got="-1", expected="a number > 0"))
        recipe.yaml: training.epochs: got -1, expected a number > 0
    """

    exit_code = 1

    def __init__(self, where: str, *, got: str = "", expected: str = "", fix: str = "") -> None:
        self.where, self.got, self.expected, self.fix = where, got, expected, fix
        details = [f"got {got}" if got else "", f"expected {expected}" if expected else ""]
        line = (
            _cut(where)
            + (": " if any(details) else "")
            + ", ".join(map(_cut, filter(None, details)))
        )
        super().__init__(printable(redacted(line + (f". Fix: {fix}" if fix else ""))))


class ConfigError(TextAdvError, ValueError):
    """A recipe, argument or option that cannot be used."""

    exit_code = 2


class DataError(TextAdvError, ValueError):
    """Data that cannot be read, or rows that cannot be trained or attacked on."""

    exit_code = 2


class UnsupportedModelError(TextAdvError, ValueError):
    """A model whose input embeddings cannot be perturbed, or that cannot be loaded safely."""

    exit_code = 2


class ResourceError(TextAdvError, ValueError):
    """A lexicon, vector file or optional package that an attack needs and cannot find."""

    exit_code = 2


class OutputExistsError(TextAdvError, ValueError):
    """An output directory that already holds something else."""

    exit_code = 2


class LaunchError(TextAdvError, RuntimeError):
    """Processes that were started so that they do not talk to each other."""

    exit_code = 2


class DiskFullError(TextAdvError, OSError):
    """A file that could not be written for want of space."""

    exit_code = 6


class BusyError(TextAdvError, RuntimeError):
    """A directory or file that another process is writing."""

    exit_code = 7


class MemoryLimitError(TextAdvError, MemoryError):
    """A device on which not even one text at a time fits."""


class CheckpointError(TextAdvError, RuntimeError):
    """No checkpoint that verifies."""

    exit_code = 4


class NonFiniteError(TextAdvError, ArithmeticError):
    """A loss or gradient that is NaN or infinite too often in a row."""

    exit_code = 5


def shown(value: object, limit: int = 80) -> str:
    """Return `value` as escaped text of at most `limit` characters, safe for a terminal.

    What is too long loses its middle: paths tell most at their ends. Access tokens are left out.
    """
    try:
        text = ascii(value) if isinstance(value, str) else ascii(repr(value))[1:-1]
    except (RecursionError, ValueError):
        # Values nested too deep, and integers of too many digits, have no text.
        text = f"a {type(value).__name__} too large to show"
    text = redacted(text)
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[3 + head - limit :]}"


def printable(text: str) -> str:
    r"""Return text in one line whose controls, direction marks and invisible characters are seen.

    Example:
        >>> print(printable("red \x1b[31m\n"))
        red \x1b[31m\n
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"
        else character
        for character in text
    )


def redacted(text: str) -> str:
    """Return text without access tokens, passwords in URLs, and secrets of the environment.

    Example:
        >>> redacted("https://me:word@host and hf_" + "a" * 20)
        'https://***@host and ***'
    """
    text = _TOKEN.sub("***", text)
    if "://" in text:
        text = _PASSWORD_IN_URL.sub("***", text)
    for secret in _environment_secrets():
        text = text.replace(secret, "***")
    return text


def has_secret(text: str) -> bool:
    """Return whether text holds what looks like an access token, or a secret of the environment."""
    return bool(_TOKEN.search(text)) or any(secret in text for secret in _environment_secrets())


def _environment_secrets() -> list[str]:
    return [
        value
        for name, value in os.environ.items()
        if len(value) >= _MIN_SECRET and _SECRET_VARIABLE.search(name.upper())
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_PART else f"{text[: MAX_PART // 2]}...{text[-MAX_PART // 2 :]}"


def unknown_name(kind: str, name: object, known: Iterable[str], where: str = "") -> ConfigError:
    """Build the error for a name that is in no table, with the nearest name that is.

    Example:
        >>> print(unknown_name("perturbation", "pdg", ["fgm", "pgd"]))
        unknown perturbation: got 'pdg', expected one of fgm, pgd. Fix: did you mean 'pgd'?
    """
    choices = sorted(known)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    prefix = f"{where}: " if where else ""
    return ConfigError(
        f"{prefix}unknown {kind}",
        got=shown(name),
        expected="one of " + ", ".join(choices),
        fix=f"did you mean {near[0]!r}?" if near else "",
    )
