from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from textadv.data import DataConfig, LabelSpace, load_data, load_examples
from textadv.data.sources import is_file_name
from textadv.errors import DataError

NAMES = ["negative", "positive"]


def dataset(labels: list, kind: object = None) -> Dataset:
    features = Features({"sentence": Value("string"), "label": kind or ClassLabel(names=NAMES)})
    texts = [f"text {n}" for n in range(len(labels))]
    return Dataset.from_dict({"sentence": texts, "label": labels}, features=features)


@pytest.fixture
def hub(monkeypatch):
    """Stand in for the Hub, and record how it is asked."""
    asked = []
    stored = DatasetDict(
        train=dataset([0, 1, 1, 0]), validation=dataset([1, 0]), test=dataset([-1, -1])
    )

    def load_dataset(*args, split=None, **options):
        asked.append((*args, split, options))
        if args[0] == "owner/none":
            raise FileNotFoundError("Dataset 'owner/none' doesn't exist\non the Hub")
        return stored["train"].select(range(2)) if split else stored

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


def test_a_hub_dataset_keeps_its_names_and_splits(hub):
    data = load_data(DataConfig(name="owner/data", config="small", revision="abc"))
    assert data.labels == LabelSpace("single_label", tuple(NAMES))
    assert {split: len(found) for split, found in data.splits.items()} == {
        "train": 4,
        "validation": 2,
    }
    assert data.splits["validation"][0]["text"] == ["text 0"]
    assert hub == [("owner/data", "small", None, {"revision": "abc"})]


def test_slices_and_set_aside_validation(hub):
    config = DataConfig(name="owner/data", validation="train[:2]")
    assert len(load_data(config).splits["validation"]) == 2
    assert hub[-1] == ("owner/data", None, "train[:2]", {"revision": None})
    config = DataConfig(name="owner/data", validation_fraction=0.5)
    assert len(load_data(config).splits["validation"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "owner/none"}, r"^data.name: got owner/none, which cannot .*FileNotFoundError"),
        ({"name": "../up"}, r"^data.name: got '../up', expected a Hub dataset id"),
        ({"name": "https://x.y/z"}, r"^data.name: got 'https://x.y/z'"),
        (
            {"name": "owner/data", "test": "dev"},
            r"^data.test: got no split 'dev'.*train, validation",
        ),
        ({"name": "owner/data", "test": "test"}, r"owner/data, split 'test'.*row 1.*unlabelled"),
        (
            {"name": "owner/data", "text": ["txt"]},
            r"split 'train': text column: got no column 'txt'",
        ),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(hub, options, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(DataConfig(**options))
    assert "\n" not in str(caught.value)


def test_examples_of_a_hub_dataset(hub):
    space = LabelSpace("single_label", ("NEGATIVE", "POSITIVE"))
    data = load_examples("owner/data:small", split="validation", label_space=space)
    assert data.splits["examples"]["label"][:] == [1, 0]
    assert hub[-1][:2] == ("owner/data", "small")
    permuted = LabelSpace("single_label", ("positive", "negative"))
    with pytest.raises(DataError, match="permuted label maps"):
        load_examples("owner/data", split="validation", label_space=permuted)


def test_lists_of_class_labels_are_multi_label(monkeypatch):
    stored = DatasetDict(train=dataset([[0], [0, 1], []], List(ClassLabel(names=NAMES))))
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **options: stored)
    data = load_data(DataConfig(name="owner/emotions"))
    assert data.labels == LabelSpace("multi_label", tuple(NAMES))
    assert data.splits["train"]["label"][:] == [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]


def test_an_offline_hub_is_one_line(monkeypatch, tmp_path):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match=r"^data.name: got owner/data, which cannot be loaded"):
        load_data(DataConfig(name="owner/data"))


def test_what_means_a_file(tmp_path):
    assert is_file_name("a.csv")
    assert is_file_name("./data")
    assert is_file_name(str(tmp_path / "x"))
    assert not is_file_name("owner/data")
    assert not is_file_name("glue:sst2")
