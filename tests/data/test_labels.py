from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from textadv.data.encode import encode_labels
from textadv.data.infer import infer_labels
from textadv.data.labels import LabelSpace, refuse_other_map
from textadv.data.raw import RawLabels
from textadv.errors import DataError

NAN = float("nan")


def raw(*labels: object) -> RawLabels:
    found = RawLabels("a.csv, column 'label',")
    for row, label in enumerate(labels, start=1):
        found.append(label, row)
    return found


def mapped(*labels: object, **options):
    found = raw(*labels)
    space, _ = infer_labels(found, **options)
    return space, encode_labels(found, space).tolist()


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        ((0, 1, 1), ("LABEL_0", "LABEL_1"), [0, 1, 1]),
        (("0", "1", " 1 "), ("LABEL_0", "LABEL_1"), [0, 1, 1]),
        ((1.0, 0.0), ("LABEL_0", "LABEL_1"), [1, 0]),
        (("1.0", "0.0", 1), ("LABEL_0", "LABEL_1"), [1, 0, 1]),
        ((5, 1, 10), ("1", "5", "10"), [1, 0, 2]),
        (("pos", "neg", "pos"), ("neg", "pos"), [1, 0, 1]),
        (("NA", "null", "NA"), ("NA", "null"), [0, 1, 0]),
        ((True, False), ("False", "True"), [1, 0]),
        (("true", "false"), ("false", "true"), [1, 0]),
        ((np.int64(1), np.int64(0)), ("LABEL_0", "LABEL_1"), [1, 0]),
        (("007", "abc"), ("007", "abc"), [0, 1]),
    ],
)
def test_single_labels(labels, names, ids):
    space, encoded = mapped(*labels)
    assert (space, encoded) == (LabelSpace("single_label", names), ids)
    assert space.problem_type == "single_label_classification"
    assert all(space.id2label[index] == space.names[index] for index in encoded)


@pytest.mark.parametrize(
    ("labels", "names", "vectors"),
    [
        ((["b", "a"], [], ["a"]), ("a", "b"), [[1, 1], [0, 0], [1, 0]]),
        (([0, 2], [1], []), ("LABEL_0", "LABEL_1", "LABEL_2"), [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
        (([0, 1, 1], [0, 0, 0]), ("LABEL_0", "LABEL_1", "LABEL_2"), [[0, 1, 1], [0, 0, 0]]),
        (([1.0, 0.0], [1.0, 1.0]), ("LABEL_0", "LABEL_1"), [[1, 0], [1, 1]]),
        ((["[0, 2]", "[1]"]), ("LABEL_0", "LABEL_1", "LABEL_2"), [[1, 0, 1], [0, 1, 0]]),
        (([4], [7, 4]), ("4", "7"), [[1, 0], [1, 1]]),
    ],
)
def test_lists_are_multi_label(labels, names, vectors):
    space, encoded = mapped(*labels)
    assert (space, encoded) == (LabelSpace("multi_label", names), vectors)
    assert space.problem_type == "multi_label_classification"


def test_numbers_with_fractions_are_regression():
    space, encoded = mapped(0.5, "2.25", 3.0)
    assert (space.task, space.num_labels, encoded) == ("regression", 1, [0.5, 2.25, 3.0])
    assert mapped(1, 2, 5, task="regression")[1] == [1.0, 2.0, 5.0]


def test_known_names_fix_the_ids():
    assert mapped("pos", "neg", names=["pos", "neg"])[1] == [0, 1]
    assert mapped(0, 1, names=["pos", "neg"]) == (
        LabelSpace("single_label", ("pos", "neg")),
        [0, 1],
    )
    assert mapped(-1, 1, names=["-1", "0", "1"])[1] == [0, 2]
    assert mapped(["b"], ["c"], names=["a", "b", "c"])[1] == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("labels", "options", "fragments"),
    [
        ((0, 1, -1), {}, ["row 3", "label -1", "-1 often means unlabelled"]),
        ((0, 1, -100), {}, ["row 3", "label -100", "loss would ignore"]),
        ((0, 1, 1), {"names": ["x"]}, ["one label name"]),
        ((0, 1, 2), {"names": ["a", "b"]}, ["row 3", "label 2", "0..1"]),
        (("a", "b", "c"), {"names": ["a", "b"]}, ["row 3", "label 'c'", "0: 'a', 1: 'b'"]),
        ((1, "pos", 2.5), {}, ["1 float, 1 int, 1 name", "2.5"]),
        ((1, 0, 1.5), {}, ["1 float, 2 int", "regression"]),
        ((*(0.0, 1.0) * 9, 1.5), {}, ["row 19", "label 1.5", "regression"]),
        ((1.5, 0.0), {"task": "single_label"}, ["row 1", "label 1.5"]),
        ((1, 1, 1), {}, ["a single class, 1, in all 3"]),
        (("a", "a"), {}, ["a single class, 'a'"]),
        ((0.5, 0.5), {}, ["a single class, 0.5"]),
        (("Pos", "pos", "neg"), {}, ["differ only in case", "Pos"]),
        (("a", ["b"]), {}, ["1 list, 1 name"]),
        (("a", "b"), {"task": "multi_label"}, ["row 1", "a list"]),
        ((["a"], ["b"]), {"task": "single_label"}, ["one label per row"]),
        (([0.5, 0.2], [0.1, 0.3]), {}, ["row 1", "0/1 vectors"]),
        ((["a", 1], ["b"]), {}, ["lists of names, of ids"]),
        (([], []), {}, ["only empty lists"]),
        (("a", 1), {"task": "regression"}, ["row 1", "label 'a'", "a number"]),
        (tuple(f"text {n}" for n in range(60)), {}, ["60 different labels in 60 rows"]),
    ],
)
def test_labels_that_cannot_be_trained_on(labels, options, fragments):
    with pytest.raises(DataError) as caught:
        mapped(*labels, **options)
    message = str(caught.value)
    assert all(fragment in message for fragment in ["a.csv, column 'label'", *fragments]), message


@pytest.mark.parametrize(
    "label", [None, "", "  ", NAN, float("inf"), {"a": 1}, [None], [[1]], b"a"]
)
def test_what_is_no_label_is_refused_with_its_row(label):
    with pytest.raises(DataError, match="row 2"):
        raw("a", label)


def test_a_stored_space_takes_names_ids_and_other_case():
    space = LabelSpace("single_label", ("Negative", "Positive"))
    for labels in [
        (0, 1),
        ("0", "1"),
        ("negative", "POSITIVE"),
        ("Negative", "Positive"),
        (0.0, 1.0),
    ]:
        assert encode_labels(raw(*labels), space).tolist() == [0, 1]
    assert encode_labels(raw(True, False), space).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"label 'good' .*'bad', 'good'.*0: 'Negative'"):
        encode_labels(raw("good", "bad"), space)


def test_integers_that_are_names_are_never_ids():
    space = LabelSpace("single_label", ("1", "2", "3"))
    assert encode_labels(raw(1, 3), space).tolist() == [0, 2]
    with pytest.raises(DataError, match="label 0 "):
        encode_labels(raw(0, 1), space)


def test_names_that_differ_only_in_case_are_told_apart_exactly():
    space = LabelSpace("single_label", ("US", "us"))
    assert encode_labels(raw("US", "us"), space).tolist() == [0, 1]
    with pytest.raises(DataError, match="label 'Us'"):
        encode_labels(raw("Us"), space)


def test_other_maps_are_refused_with_both_shown():
    space = LabelSpace("single_label", ("pos", "neg"))
    with pytest.raises(
        DataError, match=r"permuted.*0: 'neg', 1: 'pos'.*model .*0: 'pos', 1: 'neg'"
    ):
        refuse_other_map(["neg", "pos"], space, "glue")
    with pytest.raises(DataError, match="different label maps"):
        refuse_other_map(["ham", "spam"], space, "glue")
    with pytest.raises(DataError, match="different label maps"):
        refuse_other_map(["a", "b", "c"], LabelSpace("single_label", ("LABEL_0", "LABEL_1")), "x")
    refuse_other_map(["POS", "neg"], space, "glue")
    refuse_other_map(["neg", "pos"], LabelSpace("single_label", ("LABEL_0", "LABEL_1")), "glue")


def test_the_space_of_a_stored_model():
    names = {"0": "a", "1": "b"}
    config = SimpleNamespace(id2label=names, problem_type=None)
    assert LabelSpace.from_model(config) == LabelSpace("single_label", ("a", "b"))
    assert LabelSpace.from_model(SimpleNamespace(config=config)).names == ("a", "b")
    config = SimpleNamespace(id2label=names, problem_type="multi_label_classification")
    assert LabelSpace.from_model(config).task == "multi_label"
    config = SimpleNamespace(id2label={0: "LABEL_0"}, problem_type=None)
    assert LabelSpace.from_model(config).task == "regression"
    with pytest.raises(DataError, match="id2label"):
        LabelSpace.from_model(SimpleNamespace(id2label={0: "a", 2: "b"}, problem_type=None))


def test_the_space_survives_a_transformers_config():
    from transformers import BertConfig

    space = LabelSpace("multi_label", ("a", "b", "c"))
    config = BertConfig(
        id2label=space.id2label, label2id=space.label2id, problem_type=space.problem_type
    )
    assert config.num_labels == space.num_labels
    assert LabelSpace.from_model(BertConfig.from_dict(config.to_dict())) == space
