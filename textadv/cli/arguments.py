"""What every command takes. Nothing heavy is imported, so that help is instant."""

from __future__ import annotations

import argparse

from textadv import __version__

__all__ = ["make_parser"]

EPILOG = """exit codes: 0 done, 1 failed, 2 bad input or settings, 3 claim not supported, 4 no
valid checkpoint, 5 values not finite, 6 disk full, 7 another process writes there, 75 stopped by a
signal with finished work saved, 130 interrupted. Every command takes --debug for a traceback."""

DATA = "a .csv, .tsv, .jsonl, .parquet file or Hub id"
SOURCES = (
    *("checklist", "keyboard", "lookalikes", "masked-lm"),
    *("sememes", "typos", "vectors", "wordnet"),
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
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
    one.add_argument(
        "recipe", help="a YAML file, the name of a shipped recipe, or with --resume a run directory"
    )
    one.add_argument("overrides", nargs="*", metavar="key.path=value", help="change the recipe")
    one.add_argument("--output-dir", help="run directory [runs/RECIPE]")
    one.add_argument("--resume", action="store_true", help="continue that run")

    def takes_model(command: argparse.ArgumentParser) -> None:
        command.add_argument("model", help="a directory or Hub id")
        command.add_argument("--revision", help="revision of a model from the Hub")
        takes_model_options(command)

    def takes_model_options(command: argparse.ArgumentParser) -> None:
        command.add_argument("--label-name", help="label of a multi-label model to attack")
        command.add_argument("--max-length", type=int, help="longest input in tokens [the model's]")
        command.add_argument(
            "--dtype",
            default="float32",
            choices=["float32", "bfloat16", "float16"],
            help="precision of the weights; scores are float32 [%(default)s]",
        )

    def takes_columns(command: argparse.ArgumentParser, split: str = "test") -> None:
        command.add_argument("--split", help=f"split of a Hub dataset [{split}]")
        command.add_argument("--text-column", help="one column, or two with a comma [guessed]")
        command.add_argument("--label-column", help="[guessed]")
        command.add_argument("--seed", type=int, default=0, help="[%(default)s]")
        command.add_argument(
            "--edit-column", type=int, choices=[1, 2], help="of a pair, attack one column [both]"
        )

    def takes_labels(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--label-map", help="the model's label of each in the data: neg=0,pos=1 [by name]"
        )
        command.add_argument("--drop-empty", action="store_true", help="drop rows without text")

    one = add("attack", "Attack a stored model, or one text of yours, with one or more attacks.")
    takes_model(one)
    one.add_argument("overrides", nargs="*", metavar="attack.field=value", help="change an attack")
    one.add_argument(
        "--attack", "--attacks", required=True, help="names with commas; see: textadv list attacks"
    )
    one.add_argument("--data", help=DATA)
    takes_columns(one)
    takes_labels(one)
    one.add_argument("--output-dir", help="directory for records and report; continues a run")
    one.add_argument("--num-examples", type=int, default=1000, help="[%(default)s]")
    one.add_argument(
        "--query-budget",
        "--max-queries",
        type=int,
        help="most queries per text and attack [none; 2000 with --example]",
    )
    one.add_argument("--timeout", type=float, help="most seconds per step of a search [none]")
    one.add_argument("--perturbation", help="also measure under these embedding perturbations")
    one.add_argument(
        "--example", action="append", metavar="TEXT", help="this text; twice for a pair; no files"
    )
    one.add_argument("--label", help="with --example: name or number [what the model predicts]")

    one = add("evaluate", "Attack a stored model with a frozen cascade: the worst case counts.")
    takes_model(one)
    one.add_argument("--data", required=True, help=DATA)
    takes_columns(one)
    takes_labels(one)
    one.add_argument("--output-dir", required=True, help="directory for records and report")
    one.add_argument("--cascade", default="standard-v1", help="its name [%(default)s]")
    one.add_argument("--quick", action="store_true", help="the cascade quick-v1: two minutes")
    one.add_argument("--individual", action="store_true", help="run each attack on all texts")
    one.add_argument(
        "--tracks", help="only these, with commas: char, synonym, contextual, unicode, embedding"
    )
    one.add_argument("--num-examples", type=int, help="[the cascade's]")

    one = add("audit", "Try to show that a robustness figure is wrong, rule by rule.")
    one.add_argument("target", metavar="RUN|MODEL", help="an evaluation, or a model to attack")
    one.add_argument("--data", help=f"of a model, or to check a run's records against: {DATA}")
    takes_columns(one)
    takes_labels(one)
    one.add_argument("--model", help="the model of a run [the one in it, or that it names]")
    one.add_argument("--revision", help="revision of a model from the Hub")
    one.add_argument("--max-length", type=int, help="longest input in tokens [the model's]")
    one.add_argument("--train-data", help="what the model was trained on [its recipe's]")
    one.add_argument("--twin", help="the same model without defence, to transfer attacks from")
    one.add_argument("--ratings", help="JSON lines with valid: true or false, by two raters")
    one.add_argument("--quick", action="store_true", help="a quarter of the work")
    one.add_argument("--num-examples", type=int, help="examples to probe [200, 50 with --quick]")
    one.add_argument("--rules", help="only these, with commas, such as A4,A7")
    one.add_argument("--output-dir", help="where to write [the run; nowhere for a model]")
    one.add_argument("--json", action="store_true", help="as JSON")

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

    one = add("augment", "Write perturbed copies of a data set; labels and columns stay.")
    one.add_argument("data", help=DATA)
    one.add_argument("overrides", nargs="*", metavar="name.field=value", help="change the edits")
    takes_columns(one, "train")
    one.add_argument("--out", required=True, help="new .jsonl, .csv, .tsv or .parquet file")
    edits = one.add_mutually_exclusive_group(required=True)
    edits.add_argument("--source", help=f"random edits: {', '.join(SOURCES)}")
    edits.add_argument("--attack", "--attacks", help="texts that attacks find, names with commas")
    one.add_argument("--copies", type=int, default=1, help="of each row [%(default)s]")
    one.add_argument("--rate", type=float, help="share of words edited by a source [0.1]")
    one.add_argument("--only-copies", action="store_true", help="leave the originals out")
    one.add_argument(
        "--exact", action="store_true", help="in .csv, keep cells that a spreadsheet would run"
    )
    one.add_argument("--model", help="with --attack: the model, a directory or Hub id")
    one.add_argument("--revision", help="revision of a model from the Hub")
    one.add_argument("--query-budget", type=int, help="most queries per text and attack [2000]")
    takes_model_options(one)

    one = add("counterfit", "Make word vectors in which antonyms are far apart.")
    one.add_argument("vectors", help="a .npy matrix beside words.txt, a word2vec or GloVe file")
    one.add_argument("overrides", nargs="*", metavar="field=value", help="epochs=20 radius=0.2 ...")
    one.add_argument("--output-dir", required=True, help="new directory for the vectors")
    pairs = "two words in each line; may be given again [WordNet's]"
    one.add_argument("--synonyms", action="append", metavar="FILE", help=pairs)
    one.add_argument("--antonyms", action="append", metavar="FILE", help=pairs)

    one = add("resources", "Say what attacks need, where it was looked for and how to get it.")
    one.add_argument("attacks", nargs="*", metavar="ATTACK", help="[all]")
    one.add_argument("--json", action="store_true", help="as JSON")

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
