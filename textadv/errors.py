"""Errors that say where, what was found, what is expected and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "LaunchError",
    "NonFiniteError",
    "OutputExistsError",
    "ResourceError",
    "TextAdvError",
    "UnsupportedModelError",
    "shown",
    "unknown_name",
]


class TextAdvError(Exception):
    """Report a problem the user can act on, in one line.

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
        line = where + (": " if any(details) else "") + ", ".join(filter(None, details))
        super().__init__(line + (f". Fix: {fix}" if fix else ""))


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


class CheckpointError(TextAdvError, RuntimeError):
    """No checkpoint that verifies."""

    exit_code = 4


class NonFiniteError(TextAdvError, ArithmeticError):
    """A loss or gradient that is NaN or infinite too often in a row."""

    exit_code = 5


def shown(value: object, limit: int = 80) -> str:
    """Return `value` as escaped text of at most `limit` characters, safe for a terminal.

    What is too long loses its middle: paths tell most at their ends.
    """
    text = ascii(value) if isinstance(value, str) else ascii(repr(value))[1:-1]
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[3 + head - limit :]}"


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
