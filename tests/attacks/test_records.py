from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.oracles import toy
from textadv.attacks import Record, RecordFile, build_attack, read_records, run
from textadv.errors import BusyError, DataError, OutputExistsError

HEADER = {"config_hash": "c", "data_hash": "d"}


def record(name: str = "0", text: str = "good film") -> Record:
    return Record(
        id=name,
        attack="typo",
        status="flipped",
        label=0,
        prediction=0,
        text=(text, "b"),
        adversarial_text=("godo film", "b"),
        adversarial_prediction=1,
        num_queries=5,
        num_unique_queries=4,
        num_modified_words=1,
        num_words=3,
    )


def write(path: Path, count: int) -> None:
    with RecordFile(path, HEADER) as file:
        for row in range(count):
            file.append(record(str(row)))


def test_round_trip_with_awkward_text(tmp_path: Path) -> None:
    rows = [
        record(str(i), text) for i, text in enumerate(["é🙂", "a\nb\u2028c", "\ud800", "\x00", ""])
    ]
    rows.append(dataclasses.replace(rows[0], id="last", status="survived", adversarial_text=None))
    path = tmp_path / "new" / "records.jsonl"
    with RecordFile(path, HEADER) as file:
        for row in rows:
            file.append(row)
    assert read_records(path) == rows
    assert len(path.read_bytes().splitlines()) == len(rows)
    assert set(json.loads(path.read_text().splitlines()[0])) >= {
        *("id", "attack", "status", "reason", "label", "text", "adversarial_text"),
        *("num_queries", "num_unique_queries", "num_modified_words", "num_words"),
    }


def test_a_single_text_is_a_plain_string(tmp_path: Path) -> None:
    row = dataclasses.replace(record(), text=("good film",), adversarial_text=("godo film",))
    path = tmp_path / "records.jsonl"
    with RecordFile(path, HEADER) as file:
        file.append(row)
    assert json.loads(path.read_text())["text"] == "good film"
    assert json.loads(path.read_text())["adversarial_text"] == "godo film"
    assert read_records(path) == [row]


def test_records_without_their_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, 1)
    path.with_name("records.jsonl.header.json").unlink()
    with pytest.raises(DataError, match="what the records beside it belong to"):
        RecordFile(path, HEADER)


def test_a_cut_at_any_byte_loses_only_the_cut_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, 3)
    content = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for size in range(0, len(content) + 1, 7):
        path.write_bytes(content[:size])
        torn = path.with_name("records.jsonl.torn")
        torn.unlink(missing_ok=True)
        with RecordFile(path, HEADER) as file:
            whole = sum(end <= size for end in ends)
            assert len(file.records) == whole
            for row in range(len(file.records), 3):
                file.append(record(str(row)))
        assert path.read_bytes() == content
        assert torn.exists() == (size not in (0, *ends))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    for number, damage in [
        (3, b"{}\n"),
        (2, b'{"status": "won"}\n'),
        (3, b"\xff\xfe\n"),
        (1, b"[]\n"),
    ]:
        path.write_bytes(b"".join([*lines[: number - 1], damage, *lines[number:]]))
        with pytest.raises(DataError, match=f"line {number}: got"):
            RecordFile(path, HEADER)


def test_records_of_another_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, 2)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"different data_hash\).*choose another"):
        RecordFile(path, {**HEADER, "data_hash": "other"})
    assert path.read_bytes() == before
    with RecordFile(path, HEADER) as file:
        assert file.done == {("typo", "0"), ("typo", "1")}


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordFile(path, HEADER), pytest.raises(BusyError, match="another process"):
        RecordFile(path, HEADER)
    RecordFile(path, HEADER).close()


KILLED = """
import sys, time
from pathlib import Path
from tests.oracles import toy
from textadv.attacks import RecordFile, build_attack, run
from textadv.victim import CallableVictim

def slow(texts):
    time.sleep(0.01)
    return toy.scores(texts)

with RecordFile(Path(sys.argv[1]), {"config_hash": "c", "data_hash": "d"}) as file:
    attacks = {"deepwordbug": build_attack("deepwordbug")}
    for record in run(attacks, CallableVictim(slow), toy.examples(60), width=3, skip=file.done):
        file.append(record)
        print(record.id, flush=True)
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    attacks = {"deepwordbug": build_attack("deepwordbug")}
    expected = {r.key: r for r in run(attacks, toy.victim(), toy.examples(60))}
    path = tmp_path / "records.jsonl"
    for lines in (3, 9):
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as process:
            assert process.stdout is not None
            for _ in range(lines):
                assert process.stdout.readline()
            time.sleep(0.002 * lines)
            process.send_signal(signal.SIGKILL)
    assert 12 <= len(read_records(path)) < 60
    with RecordFile(path, HEADER) as file:
        for found in run(attacks, toy.victim(), toy.examples(60), skip=file.done):
            file.append(found)
    records = read_records(path)
    assert len(records) == 60
    assert {r.key: r for r in records} == expected
