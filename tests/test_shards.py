from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.oracles import toy
from textadv.attacks import read_records
from textadv.errors import ConfigError, OutputExistsError
from textadv.evaluate import EvaluationConfig, evaluate_attacks
from textadv.shards import share


def config() -> EvaluationConfig:
    return EvaluationConfig(attacks=["deepwordbug"], num_examples=40, query_budget=60)


class Thread:
    """A process of a launch, played by a thread."""

    def __init__(self, index: int, barrier: threading.Barrier) -> None:
        self.process_index, self.num_processes = index, barrier.parties
        self.wait_for_everyone = barrier.wait


def launch(count: int, folder: Path, stop_after: int | None = None) -> list[object]:
    """Run the evaluation in `count` threads and return their reports, or what they raised."""
    barrier = threading.Barrier(count, timeout=60)
    reports: list[object] = [None] * count

    def one(index: int) -> None:
        left = [stop_after]

        def stop(record: object) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

        try:
            reports[index] = evaluate_attacks(
                toy.victim(), toy.examples(40), config(), folder, stop,
                processes=Thread(index, barrier),
            )  # fmt: skip
        except BaseException as error:
            reports[index] = error
            barrier.abort()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reports


@pytest.mark.parametrize("count", [2, 3, 7])
def test_records_and_report_are_the_same_for_any_number_of_processes(
    count: int, tmp_path: Path
) -> None:
    alone = evaluate_attacks(toy.victim(), toy.examples(40), config(), tmp_path / "alone")
    for report in launch(count, tmp_path / "many"):
        assert report == alone
        assert report.records == alone.records
    assert set(read_records(tmp_path / "many" / "records.jsonl")) == set(alone.records)
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [
        "records.jsonl",
        "records.jsonl.header.json",
        "report.json",
        "report.md",
    ]


def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    alone = evaluate_attacks(toy.victim(), toy.examples(40), config(), tmp_path / "alone")
    stopped = launch(3, tmp_path / "many", stop_after=4)
    assert any(isinstance(report, KeyboardInterrupt) for report in stopped)
    assert list((tmp_path / "many").glob("records.*-of-3.jsonl"))
    for report in launch(2, tmp_path / "many"):
        assert report == alone
        assert report.records == alone.records


def test_shares_split_the_examples_by_id_alone() -> None:
    examples = toy.examples(100)
    shares = [share(examples, index, 4) for index in range(4)]
    assert sorted(e.id for one in shares for e in one) == sorted(e.id for e in examples)
    assert all(10 < len(one) < 40 for one in shares)
    backwards = share(examples[::-1], 1, 4)
    assert {e.id for e in backwards} == {e.id for e in shares[1]}


def test_wrong_launches_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a directory to share records in"):
        evaluate_attacks(
            toy.victim(), toy.examples(4), config(), processes=Thread(0, threading.Barrier(2))
        )
    for name in ("records.0-of-2.jsonl", "records.jsonl"):
        folder = tmp_path / name
        evaluate_attacks(toy.victim(), toy.examples(4), config(), folder)
        for file in folder.glob("records*"):
            file.rename(folder / file.name.replace("records.jsonl", name))
        found = launch(2, folder)
        assert any(
            isinstance(error, OutputExistsError) and "records of another run" in str(error)
            for error in found
        )


@pytest.mark.slow
def test_two_real_processes_equal_one(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from accelerate import PartialState\n"
        "from tests.oracles import toy\n"
        "from tests.test_shards import config\n"
        "from textadv.evaluate import evaluate_attacks\n"
        "state = PartialState(cpu=True)\n"
        "assert state.num_processes == 2\n"
        "evaluate_attacks(toy.victim(), toy.examples(40), config(), sys.argv[1], processes=state)\n"
        "state.wait_for_everyone()\n"
        "state.destroy_process_group()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parent.parent
    base = {**os.environ, "PYTHONPATH": str(root), "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "many")],
            cwd=root,
            env={
                **base, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
                "ACCELERATE_USE_CPU": "true",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [process.wait(timeout=240) for process in started] == [0, 0]
    alone = evaluate_attacks(toy.victim(), toy.examples(40), config(), tmp_path / "alone")
    assert set(read_records(tmp_path / "many" / "records.jsonl")) == set(alone.records)
    assert (tmp_path / "many" / "report.json").read_bytes() == (
        tmp_path / "alone" / "report.json"
    ).read_bytes()
