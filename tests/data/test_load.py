from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textadv.data import DataConfig, LabelSpace, load_data, load_examples
from textadv.data import rows as rows_module
from textadv.data.sampling import sample, stratified_sample
from textadv.errors import DataError

BINARY = LabelSpace("single_label", ("neg", "pos"))
ROWS = [{"text": f"text number {n}", "label": ["neg", "pos"][n % 2]} for n in range(40)]


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            dialect = "excel-tab" if path.suffix == ".tsv" else "excel"
            writer = csv.DictWriter(file, list(rows[0]), dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
    return path.name


def refusal(tmp_path: Path, rows: list[dict], name: str = "a.jsonl", **options) -> str:
    with pytest.raises(DataError) as caught:
        load_data(DataConfig(train=write(tmp_path / name, rows), **options), base_dir=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, ending):
    name = write(tmp_path / f"a.{ending}", ROWS)
    data = load_data(DataConfig(train=name), base_dir=tmp_path)
    dataset = data.splits["train"]
    assert data.labels == BINARY
    assert dataset["text"][:] == [[row["text"]] for row in ROWS]
    assert dataset["label"][:] == [n % 2 for n in range(40)]
    assert dataset.column_names == ["id", "text", "label"]
    reference = load_data(DataConfig(train=write(tmp_path / "b.jsonl", ROWS)), base_dir=tmp_path)
    assert dataset["id"][:] == reference.splits["train"]["id"][:]
    assert data.digests == reference.digests


def test_pairs_ids_and_other_splits(tmp_path):
    rows = [{"id": n, "premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 3} for n in range(9)]
    config = DataConfig(
        train=write(tmp_path / "a.jsonl", rows),
        validation=write(tmp_path / "b.csv", rows[:4]),
        test=write(tmp_path / "c.parquet", rows[5:6]),
    )
    data = load_data(config, base_dir=tmp_path)
    assert data.splits["validation"][3] == {"id": "3", "text": ["p3", "h3"], "label": 0}
    assert data.splits["test"][:] == {"id": ["5"], "text": [["p5", "h5"]], "label": [2]}
    assert "validation: 4 of 4 texts also occur in train" in data.notes
    assert "test: class 'LABEL_0'" not in " ".join(data.notes)


def test_multi_label_and_regression_columns(tmp_path):
    rows = [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}]
    data = load_data(DataConfig(train=write(tmp_path / "a.jsonl", rows)), base_dir=tmp_path)
    assert data.splits["train"]["label"][:] == [[1.0, 1.0], [0.0, 0.0]]
    rows = [{"text": "a", "label": 0.5}, {"text": "b", "label": 2.25}]
    data = load_data(DataConfig(train=write(tmp_path / "b.csv", rows)), base_dir=tmp_path)
    assert data.splits["train"]["label"][:] == [0.5, 2.25]


def test_typed_text_reaches_the_dataset_unchanged(tmp_path):
    typed = ["NA", "null", "nan", "None", "007", "1e5", "true", "\x1b[1m\0", "a\u200bb", "=1+1"]
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(typed)]
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        data = load_data(DataConfig(train=write(tmp_path / name, rows)), base_dir=tmp_path)
        assert [texts for [texts] in data.splits["train"]["text"][:]] == typed


@pytest.mark.parametrize(
    ("row", "fragments"),
    [
        ({"text": "", "label": 1}, ["row 3", "an empty text in 1 rows", "drop_empty"]),
        ({"text": " \u200b\ufeff\t", "label": 1}, ["row 3", "an empty text"]),
        ({"text": None, "label": 1}, ["row 3, column 'text'", "got nothing (null)"]),
        ({"label": 1}, ["row 3, column 'text'", "got nothing"]),
        ({"text": 7, "label": 1}, ["row 3, column 'text'", "got int 7", "expected text"]),
        ({"text": ["a"], "label": 1}, ["row 3, column 'text'", "got list ['a']"]),
        ({"text": float("nan"), "label": 1}, ["row 3, column 'text'", "got float nan"]),
        ({"text": "a\ud800b", "label": 1}, ["row 3", "lone surrogate U+D800 at character 1"]),
        ({"text": "ok", "label": None}, ["column 'label', row 3", "no label"]),
        ({"text": "ok"}, ["column 'label', row 3", "no label"]),
        ({"text": "ok", "label": float("nan")}, ["column 'label', row 3", "label nan"]),
        ({"text": "ok", "label": -1}, ["column 'label', row 3", "unlabelled"]),
        (
            {"text": "x" * 101, "label": 1},
            ["row 3, column 'text'", "101 characters", "at most 100"],
        ),
    ],
)
def test_rows_that_are_refused(tmp_path, monkeypatch, row, fragments):
    monkeypatch.setattr(rows_module, "MAX_TEXT_CHARACTERS", 100)
    good = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    message = refusal(tmp_path, [*good, row, *good])
    assert all(fragment in message for fragment in ["a.jsonl", *fragments]), message


def test_empty_texts_can_be_dropped(tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": " ", "label": 5}, {"text": "c", "label": 1}]
    config = DataConfig(train=write(tmp_path / "a.csv", rows), drop_empty=True)
    data = load_data(config, base_dir=tmp_path)
    assert data.splits["train"]["label"][:] == [0, 1]
    assert any(note.endswith("dropped 1 rows with an empty text") for note in data.notes)
    assert "0 rows with text, 1 empty" in refusal(tmp_path, rows[1:2], drop_empty=True)


def test_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="0 rows below the columns 'text, label'"):
        load_data(DataConfig(train="a.csv"), base_dir=tmp_path)


def test_duplicate_ids_are_refused_and_missing_ones_made(tmp_path):
    rows = [{"id": "x", "text": "a", "label": 0}, {"id": "x", "text": "b", "label": 1}]
    message = refusal(tmp_path, rows)
    assert "column 'id': got 1 ids more than once, such as 'x'" in message
    rows[1]["id"] = None
    data = load_data(DataConfig(train=write(tmp_path / "b.jsonl", rows)), base_dir=tmp_path)
    first, second = data.splits["train"]["id"][:]
    assert first == "x"
    assert len(second) == 16


def test_made_ids_depend_on_the_text_alone(tmp_path):
    texts = ["a", "b", "a", "c", "a", "b"]
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(texts)]

    def ids(rows: list[dict]) -> list[str]:
        data = load_data(DataConfig(train=write(tmp_path / "a.jsonl", rows)), base_dir=tmp_path)
        return data.splits["train"]["id"][:]

    found = ids(rows)
    a, b, c = found[0], found[1], found[3]
    assert found == [a, b, f"{a}-2", c, f"{a}-3", f"{b}-2"]
    assert sorted(ids(rows[::-1])) == sorted(found)


def test_pairs_that_join_to_the_same_text_are_different(tmp_path):
    rows = [
        {"text_a": a, "text_b": b, "label": n}
        for n, (a, b) in enumerate([("ab", "c"), ("a", "bc"), ("abc", " x")])
    ]
    data = load_data(DataConfig(train=write(tmp_path / "a.csv", rows)), base_dir=tmp_path)
    assert len({value.split("-")[0] for value in data.splits["train"]["id"][:]}) == 3


def test_digests_depend_on_texts_labels_and_ids(tmp_path):
    rows = [{"id": "1", "text": "a", "label": 0}, {"id": "2", "text": "b", "label": 1}]
    changes = [{}, {"id": "3"}, {"text": "c"}, {"label": 2}]
    digests = {
        load_data(
            DataConfig(
                train=write(tmp_path / "a.jsonl", [*rows, {**rows[0], "id": "0", **change}])
            ),
            base_dir=tmp_path,
        ).digests["train"]
        for change in changes
    }
    assert len(digests) == len(changes)


def test_conflicts_between_label_lists_are_counted(tmp_path):
    rows = [{"text": "a", "label": ["x", "y"]}, {"text": "a", "label": ["x"]}]
    data = load_data(DataConfig(train=write(tmp_path / "a.jsonl", rows)), base_dir=tmp_path)
    assert "1 texts with conflicting labels" in data.notes[-1]


def test_duplicates_conflicts_and_overlap_are_counted(tmp_path):
    rows = [
        {"text": text, "label": label}
        for text, label in [("same", 0), ("same", 1), ("twice", 1), ("twice", 1), ("once", 0)]
    ]
    config = DataConfig(
        train=write(tmp_path / "a.csv", rows), test=write(tmp_path / "b.csv", rows[4:])
    )
    data = load_data(config, base_dir=tmp_path)
    assert data.notes[1:] == [
        "train: 2 rows repeat the text of another row, "
        "1 texts with conflicting labels, such as 'same'",
        "test: 1 of 1 texts also occur in train",
    ]


def test_a_class_that_train_lacks_is_named(tmp_path):
    train = write(tmp_path / "a.csv", ROWS)
    test = write(tmp_path / "b.csv", [*ROWS[:3], {"text": "z", "label": "neutral"}])
    with pytest.raises(
        DataError, match=r"b.csv.* row 4: got label 'neutral'.*does not occur in the tr"
    ):
        load_data(DataConfig(train=train, test=test), base_dir=tmp_path)
    config = DataConfig(train=train, test=test, labels=["neg", "neutral", "pos"])
    data = load_data(config, base_dir=tmp_path)
    assert data.splits["test"]["label"][:] == [0, 2, 0, 1]
    assert "test: class 'neutral' does not occur in train" in data.notes


def test_class_names_of_the_source_are_kept_and_not_contradicted(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["pos", "neg"])})
    columns = {"text": ["a", "b"], "label": [0, 1]}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "a.parquet")
    data = load_data(DataConfig(train="a.parquet"), base_dir=tmp_path)
    assert data.labels.names == ("pos", "neg")
    with pytest.raises(DataError, match=r"permuted label maps.*data\.labels"):
        load_data(DataConfig(train="a.parquet", labels=["neg", "pos"]), base_dir=tmp_path)
    train = write(
        tmp_path / "b.jsonl", [{"text": "a", "label": "neg"}, {"text": "b", "label": "pos"}]
    )
    with pytest.raises(DataError, match=r"a.parquet: permuted label maps.*expected train"):
        load_data(DataConfig(train=train, test="a.parquet"), base_dir=tmp_path)
    with pytest.raises(DataError, match=r"permuted label maps.*model"):
        load_examples(str(tmp_path / "a.parquet"), label_space=BINARY)


def test_validation_is_set_aside_stratified_and_seeded(tmp_path):
    rows = [{"text": f"t{n}", "label": "abc"[min(n % 10, 2)]} for n in range(100)]
    rows.append({"text": "alone", "label": "d"})
    config = DataConfig(train=write(tmp_path / "a.csv", rows), validation_fraction=0.2)
    data = load_data(config, base_dir=tmp_path, seed=1)
    train, validation = data.splits["train"], data.splits["validation"]
    assert Counter(validation["label"][:]) == {0: 2, 1: 2, 2: 16}
    assert Counter(train["label"][:]) == {0: 8, 1: 8, 2: 64, 3: 1}
    assert not set(train["id"][:]) & set(validation["id"][:])
    same = load_data(config, base_dir=tmp_path, seed=1)
    other = load_data(config, base_dir=tmp_path, seed=2)
    assert same.digests == data.digests
    assert other.digests != data.digests
    with pytest.raises(DataError, match=r"validation_fraction: got 0.001 of 101 rows"):
        load_data(DataConfig(train="a.csv", validation_fraction=0.001), base_dir=tmp_path)


def test_a_class_with_one_row_stays_in_training(tmp_path):
    rows = [{"text": f"t{n}", "label": "many" if n < 4 else f"one{n}"} for n in range(10)]
    config = DataConfig(train=write(tmp_path / "a.csv", rows), validation_fraction=0.2)
    for seed in range(5):
        data = load_data(config, base_dir=tmp_path, seed=seed)
        assert data.splits["validation"]["label"][:] == [0, 0]


def test_max_examples_bounds_every_split_and_keeps_two_classes(tmp_path):
    name = write(tmp_path / "a.csv", ROWS)
    data = load_data(DataConfig(train=name, test=name, max_examples=7), base_dir=tmp_path)
    assert {split: len(dataset) for split, dataset in data.splits.items()} == {
        "train": 7,
        "test": 7,
    }
    with pytest.raises(DataError, match=r"single class.*raise data.max_examples"):
        load_data(DataConfig(train=name, max_examples=1), base_dir=tmp_path)


def test_examples_for_a_stored_model(tmp_path):
    path = tmp_path / "a.csv"
    write(path, ROWS)
    data = load_examples(str(path), label_space=BINARY, num_examples=5, seed=3)
    examples = data.splits["examples"]
    assert len(examples) == 5
    everything = load_examples(str(path), label_space=BINARY).splits["examples"]
    by_id = {row["id"]: row for row in everything}
    assert all(row == by_id[row["id"]] for row in examples)
    with pytest.raises(DataError, match=r"label 'neg'.*0: 'ham', 1: 'spam'"):
        load_examples(str(path), label_space=LabelSpace("single_label", ("ham", "spam")))
    with pytest.raises(DataError, match="num_examples: got 0"):
        load_examples(str(path), label_space=BINARY, num_examples=0)
    with pytest.raises(DataError, match=r"^--data: got .*no such file"):
        load_examples(str(tmp_path / "no.csv"), label_space=BINARY)


def test_a_missing_file_names_the_option(tmp_path):
    config = DataConfig(train=write(tmp_path / "a.csv", ROWS), test="b.csv")
    with pytest.raises(DataError, match=r"^r.yaml: data.test: got .*b.csv', no such file"):
        load_data(config, base_dir=tmp_path, where="r.yaml: data")
    with pytest.raises(DataError, match=r"^data.train: got nothing"):
        load_data(DataConfig())


def test_many_rows_cross_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_CHUNK_ROWS", 7)
    monkeypatch.setattr(rows_module, "_CHUNK_CHARACTERS", 50)
    data = load_data(DataConfig(train=write(tmp_path / "a.csv", ROWS)), base_dir=tmp_path)
    assert [texts for [texts] in data.splits["train"]["text"][:]] == [row["text"] for row in ROWS]
    assert len(set(data.splits["train"]["id"][:])) == len(ROWS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_a_stratified_sample_holds_every_share_to_within_one(strata, data):
    size = data.draw(st.integers(0, len(strata)))
    chosen = stratified_sample(np.array(strata), size, 0, "key")
    assert len(chosen) == len(set(chosen.tolist())) == size
    counts = Counter(strata[index] for index in chosen)
    for value, count in Counter(strata).items():
        assert abs(counts[value] - count * size / len(strata)) < 1


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 3))
def test_a_sample_is_sorted_distinct_and_repeatable(count, size, seed):
    chosen = sample(count, size, seed, "key").tolist()
    assert chosen == sorted(set(chosen)) == sample(count, size, seed, "key").tolist()
    assert len(chosen) == min(count, size)
    assert set(chosen) <= set(range(count))
