"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from textadv.cli.arguments import make_parser

__all__ = ["main"]

# The module of `textadv.cli` with the function of each command.
COMMANDS = {
    "quickstart": "training",
    "train": "training",
    "attack": "attacking",
    "evaluate": "attacking",
    "audit": "auditing",
    "compare": "judging",
    "report": "judging",
    "push": "judging",
    "augment": "making",
    "counterfit": "making",
    "resources": "tools",
    "list": "tools",
    "show": "tools",
    "check": "training",
    "env": "tools",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parse(argv)
    _quiet_libraries()
    from textadv.cli.common import console
    from textadv.cli.console import guard_log
    from textadv.errors import TextAdvError, shown
    from textadv.interrupts import Interrupted

    guard_log()
    # Of the processes of one launch the first speaks, and each for its own failure.
    rank = os.environ.get("RANK", "0")
    console.quiet = rank != "0"
    error_is = "error:" if rank == "0" else f"error in process {rank}:"
    try:
        with _resumable(arguments):
            module = importlib.import_module(f"textadv.cli.{COMMANDS[arguments.command]}")
            getattr(module, arguments.command)(arguments)
    except TextAdvError as error:
        if arguments.debug:
            raise
        print(f"{error_is} {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone: keep Python from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        found = shown(str(error).strip().splitlines()[0] if str(error).strip() else "", 200)
        print(f"{error_is} {type(error).__name__}: {found} (--debug shows more)", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _resumable(arguments: argparse.Namespace) -> Iterator[None]:
    """Where a command can be picked up again: obey signals, and own the output directory."""
    if arguments.command not in ("train", "quickstart", "attack", "evaluate"):
        yield
        return
    from textadv.diskspace import full_disk_named
    from textadv.interrupts import listening
    from textadv.runlock import run_lock

    with listening():
        # A training run takes its own.
        if arguments.command == "train" or arguments.output_dir is None:
            yield
            return
        with full_disk_named(Path(arguments.output_dir)), run_lock(arguments.output_dir):
            yield


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, letting `key=value` arguments stand anywhere among the options."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(overrides) < len(rest) or (rest and not hasattr(arguments, "overrides")):
        unknown = [word for word in rest if word not in overrides] or rest
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if overrides:
        arguments.overrides = [*arguments.overrides, *overrides]
    arguments.line = _line(sys.argv[1:] if argv is None else argv)
    return arguments


def _line(argv: Sequence[str]) -> str:
    """Return the command for reports, which are the same wherever they are written."""
    words = ["RUN" if before == "--output-dir" else word for before, word in pairwise(["", *argv])]
    return shlex.join(
        ["textadv", *("--output-dir=RUN" if w.startswith("--output-dir=") else w for w in words)]
    )


def _quiet_libraries() -> None:
    """Keep progress bars and advice of other libraries out of our output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
