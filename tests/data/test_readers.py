from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textadv.data import lines
from textadv.data.readers import open_table
from textadv.errors import DataError

TYPED = ["NA", "null", "nan", "None", "007", "1e5", "true", "-0", "1.0", "", " x ", '"', "#N/A"]
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\t\r\n\0\u200b\u2028\ufeff|;'),
    min_size=1,
)


def rows_of(path: Path, *columns: str) -> list[list]:
    table = open_table(path, "data.train")
    return list(table.rows(list(columns) or table.columns))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(path)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_typed_text_stays_as_it_is(tmp_path, ending, delimiter):
    path = tmp_path / f"a.{ending}"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(
            [["text", "label"], *([t, "0"] for t in TYPED)]
        )
    assert [text for text, _ in rows_of(path)] == TYPED


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), crlf=st.booleans())
def test_csv_written_by_python_is_read_back(tmp_path_factory, rows, crlf):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n" if crlf else "\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["text", "label"], *rows])
    path.write_bytes(buffer.getvalue().encode())
    assert rows_of(path) == [list(row) for row in rows]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXTS, st.integers()), min_size=1, max_size=5), ascii_only=st.booleans()
)
def test_json_lines_written_by_python_are_read_back(tmp_path_factory, rows, ascii_only):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    objects = [json.dumps({"text": t, "label": n}, ensure_ascii=ascii_only) for t, n in rows]
    path.write_bytes("\n".join(objects).encode())
    assert rows_of(path, "label", "text") == [[number, text] for text, number in rows]


def test_parquet_keeps_text_nulls_and_class_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    path = tmp_path / "a.parquet"
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    Dataset.from_dict({"text": ["007", None], "label": [1, 0]}, features=features).to_parquet(path)
    table = open_table(path, "data.train")
    assert list(table.rows(["label", "text"])) == [[1, "007"], [0, None]]
    assert table.class_names == {"label": ["neg", "pos"]}


def test_bom_and_blank_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\n\r\na,0\r\n\r\n")
    table = open_table(path, "data.train")
    assert table.columns == ["text", "label"]
    assert list(table.rows(["text"])) == [["a"]]
    assert table.notes == [f"{path}: skipped 2 blank lines"]


def test_controls_are_kept(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n\x1b[31mred\x00,0\n")
    assert rows_of(path) == [["\x1b[31mred\x00", "0"]]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["0 rows", "empty file"]),
        (b"text,label\na,0\nb\n", ["row 2 (line 3)", "got 1 fields", "expected 2"]),
        (b'text,label\n"a\nb",0\nc,1,2\n', ["row 2 (line 4)", "got 3 fields"]),
        (b"text,label,text\na,0,b\n", ["header", "'text' more than once"]),
        (b'text,label\na,0\n"b,1\n', ["row 2", "broken quoting"]),
        (b'text,label\n"a"b,0\n', ["row 1 (line 2)", "broken quoting"]),
        (b"text,label\nna\xefve,0\n", ["row 1 (line 2)", "byte 0xef at byte offset 13", "UTF-8"]),
        (b"\xef\xbb\xbftext,label\ncaf\xe9,0\n", ["byte 0xe9 at byte offset 17"]),
        (b"\xef\xbb\xbft\xe9xt,label\n", ["byte 0xe9 at byte offset 4"]),
        ("text,label\n".encode("utf-16"), ["UTF-16", "expected UTF-8", "iconv"]),
        (b"text,label\na\xed\xa0\x80,0\n", ["row 1", "byte 0xed at byte offset 12"]),
        (b"text;label\na;0\n", ["one column 'text;label'", "expected commas"]),
    ],
)
def test_damaged_csv(tmp_path, content, fragments):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    message = refusal(path)
    assert all(fragment in message for fragment in [str(path), *fragments]), message


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["0 rows"]),
        (b'{"text": "a"}\n{"text": "b', ["row 2 (line 2)", "broken JSON at byte 23", "cut off"]),
        (b'{"text": "a"}\n\n{"text": b}\n', ["row 2 (line 3)", "broken JSON at byte 24"]),
        (b'[{"text": "a"}]', ["row 1", "a JSON list", "one JSON object per line"]),
        (b'{"text": "a"}\n"b"\n', ["row 2", "a JSON str"]),
        (b'{"text": "a", "text": "b"}\n', ["row 1", "a key occurs twice"]),
        (b"[" * 100_000, ["row 1", "cannot be read"]),
        (b'{"n": ' + b"9" * 5000 + b"}", ["row 1", "cannot be read"]),
        (b'{"text": "\xff"}\n', ["byte 0xff at byte offset 10"]),
    ],
)
def test_damaged_json_lines(tmp_path, content, fragments):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    message = refusal(path)
    assert all(fragment in message for fragment in [str(path), *fragments]), message


def test_damaged_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a" * 100] * 100}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert "broken Parquet" in refusal(path)
    path.write_bytes(whole[:4] + bytes(30) + whole[34:])
    assert "broken Parquet" in refusal(path)


def test_what_is_not_a_file_is_named_without_hanging(tmp_path):
    folder, fifo, link = (tmp_path / f"{name}.csv" for name in ("folder", "fifo", "link"))
    folder.mkdir()
    os.mkfifo(fifo)
    link.symlink_to(tmp_path / "gone.csv")
    device = tmp_path / "device.csv"
    device.symlink_to("/dev/zero")
    for path, word in [
        (folder, "a directory"),
        (fifo, "a FIFO"),
        (link, "a broken link"),
        (device, "a device"),
        (tmp_path / "none.csv", "no such file"),
        (tmp_path / "nul\0.csv", "unreadable"),
        (tmp_path / "a.xlsx", "a file ending in .csv, .tsv"),
    ]:
        message = refusal(path)
        assert message.startswith("data.train: got"), message
        assert word in message, message


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_huge_line_is_refused_in_bounded_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**16)
    path = tmp_path / name
    head = b"text,label\nshort,0\n" if name.endswith("csv") else b'{"text": "short"}\n'
    path.write_bytes(head + b"x" * 2**24)
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "row 2" in message, message
    assert "a line of more than 65,536 bytes" in message, message
    assert peak < 2**21


def test_an_endless_quoted_field_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("textadv.data.readers.MAX_LINE_BYTES", 2**16)
    limit = csv.field_size_limit()
    csv.field_size_limit(2**16)
    try:
        path = tmp_path / "a.csv"
        path.write_bytes(b'text,label\n"' + b"word\n" * 2**15)
        assert "row 1" in refusal(path)
    finally:
        csv.field_size_limit(limit)
