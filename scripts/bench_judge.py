"""Print how often `textadv compare` calls one model different from itself, and misses a real gap.

The model is attacked several times with other seeds of the attack on the same texts, and pairs of
these runs are compared. Then a gap is planted in one run of a pair, by breaking that share of the
texts at random, and it is counted how often the comparison finds it. Runs are kept in the output
directory, and a second start goes on where the first was stopped. Run from the root of the
repository:

    python scripts/bench_judge.py --model runs/sst2-clean/model --data sst2/test.jsonl

Without a model it uses a toy that is trained in a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textadv.attacks import Example
from textadv.attacks.examples import make_examples, sample_examples
from textadv.compare import Comparison, compare_results
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.metrics import wilson_interval
from textadv.results import Results
from textadv.victim import ModelVictim, Victim

ALPHA = 0.05


def main() -> None:
    """Attack, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a directory [a toy]")
    parser.add_argument("--data", help="JSON lines with text and label")
    parser.add_argument("--attack", default="deepwordbug")
    parser.add_argument("--num-examples", type=int, default=200)
    parser.add_argument("--query-budget", type=int, default=300)
    parser.add_argument("--runs", type=int, default=10, help="attacks with other seeds")
    parser.add_argument("--pairs", type=int, default=40, help="comparisons of them")
    parser.add_argument("--gap", type=float, default=10.0, help="planted, in points")
    parser.add_argument("--output-dir", help="where runs are kept [a temporary directory]")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    victim, examples = subject(arguments)
    sample = sample_examples(examples, arguments.num_examples, 0)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.output_dir or temporary)
        runs = [attacked(victim, sample, arguments, seed, folder) for seed in range(arguments.runs)]
    report(runs, arguments)
    print(f"{time.perf_counter() - started:.0f} s")


def subject(arguments: argparse.Namespace) -> tuple[Victim, list[Example]]:
    """Return what is attacked and the texts."""
    if arguments.model is None:
        from tests.audit.toys import examples, trained, victim_of

        return victim_of(trained()), examples(count=max(arguments.num_examples, 1))
    from textadv.data import LabelSpace, load_examples

    victim = ModelVictim.load(arguments.model)
    data = load_examples(arguments.data, label_space=LabelSpace.from_model(victim.model.config))
    columns = data.splits["examples"].with_format(None)[:]
    return victim, make_examples(columns["text"], columns["label"], ids=columns["id"])


def attacked(
    victim: Victim,
    sample: Sequence[Example],
    arguments: argparse.Namespace,
    seed: int,
    folder: Path,
) -> Results:
    """Return the results of the attack with one seed."""
    config = EvaluationConfig(
        attacks=[arguments.attack],
        num_examples=len(sample),
        query_budget=arguments.query_budget,
        seed=seed,
    )
    name = arguments.model or "toy"
    found = evaluate_attacks(victim, sample, config, folder / f"seed-{seed}", model=name)
    (result,) = found.attacks.values()
    print(f"seed {seed}: {100 * result.accuracy_under_attack:.1f} % stand", flush=True)
    return Results(report=found, records=found.records)


def report(runs: Sequence[Results], arguments: argparse.Namespace) -> None:
    """Print both counts."""
    pairs = list(itertools.combinations(runs, 2))[: arguments.pairs]
    same = [compare_results(*pair, alpha=ALPHA) for pair in pairs]
    differ = [(one.main.only_first + one.main.only_second) / one.n for one in same]
    print(f"\n{arguments.attack}, n = {same[0].n}, {len(runs)} seeds, {len(pairs)} pairs")
    print(f"texts that end otherwise under another seed: {100 * max(differ):.1f} % at most")
    print(f"called different, one model:      {counted(same)}")
    raw = sum(one.main.p_value <= ALPHA for one in same)
    print(f"  by the uncorrected test:        {raw} of {len(same)}")
    source = random.Random("gap")
    gap = [
        compare_results(first, with_gap(second, arguments.gap / 100, source), alpha=ALPHA)
        for first, second in pairs
    ]
    print(f"called different, gap of {arguments.gap:g} points: {counted(gap)}")


def counted(found: Sequence[Comparison]) -> str:
    """Return how many comparisons have a winner, with a 95 % interval."""
    k, n = sum(one.winner() is not None for one in found), len(found)
    low, high = wilson_interval(k, n)
    return f"{k} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"


def with_gap(results: Results, gap: float, source: random.Random) -> Results:
    """Return the same run with a share of all texts, drawn from those that stand, broken."""
    standing = [r.id for r in results.records if r.status == "survived"]
    broken = set(
        source.sample(standing, min(len(standing), round(gap * results.report.num_examples)))
    )
    records = [
        dataclasses.replace(r, status="flipped") if r.id in broken else r for r in results.records
    ]
    return dataclasses.replace(results, records=tuple(records))


if __name__ == "__main__":
    main()
