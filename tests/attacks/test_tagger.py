from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from tests.oracles import toy
from textadv.attacks.meaning import same_tag
from textadv.attacks.tagger import Tagger, universal
from textadv.errors import ResourceError

SHARED = Path(os.environ.get("TEXTADV_SHARED", Path(__file__).parents[3] / "shared"))


def test_known_words_then_weights_and_context(tmp_path: Path) -> None:
    tagger = Tagger(toy.write_tagger(tmp_path))
    assert tagger.penn_tags(["the", "unknown", "film"]) == ["DT", "JJ", "NN"]
    assert tagger.penn_tags(["unknown", "film"]) == ["NN", "NN"]
    assert tagger.tags(("the", "film", "is", "warm")) == ("DET", "NOUN", "VERB", "VERB")
    assert tagger.tags(()) == ()


def test_a_tie_goes_to_the_last_in_the_alphabet(tmp_path: Path) -> None:
    for part, values in {"tagdict": {}, "weights": {}, "classes": ["NN", "VB", "JJ"]}.items():
        (tmp_path / f"x.{part}.json").write_text(json.dumps(values))
    assert Tagger(tmp_path).penn_tags(["word"]) == ["VB"]


def test_universal_tags_and_rules() -> None:
    tags = {"NNS": "NOUN", "VBD": "VERB", "JJR": "ADJ", "RB": "ADV", "``": ".", "FW": "X"}
    assert {tag: universal(tag) for tag in tags} == tags
    assert same_tag("NOUN", "VERB", "noun-verb")
    assert not same_tag("NOUN", "VERB", "exact")
    assert not same_tag("NOUN", "ADJ", "noun-verb")


def test_broken_files_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no readable weights"):
        Tagger(tmp_path)
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as packed:
        packed.writestr("t/x.weights.json", "{")
    with pytest.raises(ResourceError, match="no readable weights"):
        Tagger(tmp_path / "t.zip")


def test_equals_nltk_on_real_text() -> None:
    data = SHARED / "data"
    if not (data / "nltk_data" / "taggers").is_dir():
        pytest.skip(f"no tagger and texts in {data}")
    nltk = pytest.importorskip("nltk")
    nltk.data.path.insert(0, str(data / "nltk_data"))
    reference = pytest.importorskip("nltk.tag.perceptron").PerceptronTagger()
    place = data / "nltk_data" / "taggers" / "averaged_perceptron_tagger_eng.zip"
    tagger, count = Tagger(place), 0
    for name in ("sst2/validation", "ag_news/test"):
        lines = (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:60]
        for line in lines:
            words = json.loads(line)["text"].split()
            assert tagger.penn_tags(words) == [tag for _, tag in reference.tag(words)]
            count += len(words)
    assert count > 3000
