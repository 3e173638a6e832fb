"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from textadv import __version__

__all__ = ["main"]

EPILOG = """exit codes: 0 done, 1 failed, 2 bad input or settings, 4 no valid checkpoint, 5
gradients not finite, 130 interrupted. Every command takes --debug for a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parse(argv)
    _quiet_libraries()
    from textadv.cli import commands
    from textadv.errors import TextAdvError, shown

    try:
        getattr(commands, arguments.command)(arguments)
    except TextAdvError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
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
        print(f"error: {type(error).__name__}: {found} (--debug shows more)", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, letting `key=value` arguments stand anywhere among the options."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(overrides) < len(rest) or (rest and not hasattr(arguments, "overrides")):
        unknown = [word for word in rest if word not in overrides] or rest
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if overrides:
        arguments.overrides = [*arguments.overrides, *overrides]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textadv",
        description="Fine-tune text classifiers that survive attacks, and measure how well.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"textadv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
        return command

    one = add("quickstart", "Train clean and robust, attack both, compare: no account, no Hub.")
    one.add_argument("--output-dir", default="quickstart-run", help="where to write [%(default)s]")
    one.add_argument("--max-minutes", type=float, default=8.0, help="time to stay in [%(default)s]")

    one = add("train", "Train from a recipe and attack the result.")
    one.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
    one.add_argument("overrides", nargs="*", metavar="key.path=value", help="change the recipe")
    one.add_argument("--output-dir", help="run directory [runs/RECIPE]")
    one.add_argument("--resume", action="store_true", help="continue that run")

    def takes_model_and_data(command: argparse.ArgumentParser) -> None:
        command.add_argument("model", help="a directory or Hub id")
        command.add_argument(
            "--data", required=True, help="a .csv, .tsv, .jsonl, .parquet file or Hub id"
        )
        command.add_argument("--split", help="split of a Hub dataset [test]")
        command.add_argument("--text-column", help="one column, or two with a comma [guessed]")
        command.add_argument("--label-column", help="[guessed]")
        command.add_argument("--seed", type=int, default=0, help="[%(default)s]")
        command.add_argument("--max-length", type=int, help="longest input in tokens [the model's]")
        command.add_argument("--revision", help="revision of a model from the Hub")
        command.add_argument(
            "--output-dir", required=True, help="new directory for records and report"
        )

    one = add("attack", "Attack a stored model and report its accuracy under attack.")
    takes_model_and_data(one)
    one.add_argument("overrides", nargs="*", metavar="attack.field=value", help="change an attack")
    one.add_argument("--attack", required=True, help="names with commas; see: textadv list attacks")
    one.add_argument("--perturbation", help="also measure under these embedding perturbations")
    one.add_argument("--num-examples", type=int, default=1000, help="[%(default)s]")
    one.add_argument("--query-budget", type=int, help="most queries per text [none]")

    one = add("evaluate", "Attack a stored model with a frozen cascade: the worst case counts.")
    takes_model_and_data(one)
    one.add_argument("--cascade", default="standard-v1", help="its name [%(default)s]")
    one.add_argument("--quick", action="store_true", help="the cascade quick-v1: two minutes")
    one.add_argument("--individual", action="store_true", help="run each attack on all texts")
    one.add_argument("--num-examples", type=int, help="[the cascade's]")

    one = add("compare", "Compare two evaluations, text by text.")
    one.add_argument("first", help="directory of an evaluation")
    one.add_argument("second", help="directory of another, on the same texts")

    one = add("report", "Write the page of an evaluation.")
    one.add_argument("runs", nargs="+", metavar="RUN", help="the first is the one it is about")
    one.add_argument("--html", help="file to write [RUN/report.html]")

    one = add("push", "Show, and with --yes upload, a run with its model card.")
    one.add_argument("run", help="a run directory")
    one.add_argument("repo_id", help="OWNER/NAME on the Hub")
    one.add_argument("--private", action="store_true", help="make the repository private")
    one.add_argument("--yes", action="store_true", help="upload; without it nothing is sent")

    one = add("list", "List what is built in.")
    kinds = ["perturbations", "objectives", "attacks", "recipes"]
    one.add_argument("kind", nargs="?", choices=kinds)
    one.add_argument("--json", action="store_true", help="as JSON")

    one = add("show", "Show the card of a perturbation, objective, attack or recipe.")
    one.add_argument("name")

    one = add("check", "Check recipes and their data without loading a model.")
    one.add_argument("recipes", nargs="+", metavar="RECIPE")
    one.add_argument("--no-data", action="store_true", help="check the recipe files alone")

    add("env", "Show versions and hardware, for bug reports.")
    return parser


def _quiet_libraries() -> None:
    """Keep progress bars and advice of other libraries out of our output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
