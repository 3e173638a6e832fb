from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from textadv.attacks import build_attack
from textadv.attacks.wordnet import WordNet, load_wordnet
from textadv.errors import ResourceError
from textadv.resources import find_nltk_data
from textadv.words import Words

# part of speech: synsets, each a list of lemmas
SYNSETS = {
    "noun": [
        ["film", "movie", "motion_picture"],
        ["film", "coat"],
        ["child", "kid"],
        ["box", "chest"],
    ],
    "verb": [["film", "shoot"], ["run", "go"]],
    "adj": [["good", "fine(p)"], ["big", "large", "O.K."]],
    "adv": [["well", "good"]],
}
EXCEPTIONS = {"noun": "children child\n", "verb": "ran run\n", "adj": "", "adv": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a database of a few synsets in WordNet's file format."""
    root = tmp_path / "corpora" / "wordnet"
    root.mkdir(parents=True)
    for name, synsets in SYNSETS.items():
        data = "  1 licence\n"
        index: dict[str, list[int]] = {}
        for lemmas in synsets:
            offset = len(data.encode())
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            data += f"{offset:08d} 00 {name[0]} {len(lemmas):02x} {words} 000 | gloss\n"
            for lemma in lemmas:
                index.setdefault(lemma.partition("(")[0].lower(), []).append(offset)
        lines = [
            f"{lemma} {name[0]} {len(at)} 1 @ {len(at)} 0 "
            + " ".join(f"{o:08d}" for o in at)
            + "  "
            for lemma, at in sorted(index.items())
        ]
        (root / f"data.{name}").write_text(data)
        (root / f"index.{name}").write_text("  1 licence\n" + "\n".join(lines) + "\n")
        (root / f"{name}.exc").write_text(EXCEPTIONS[name])
    return root


def test_synonyms_by_sense_order_and_inflection(folder: Path) -> None:
    net = WordNet(folder)
    assert net.lemmas("film") == ("film", "movie", "motion_picture", "coat", "shoot")
    assert net.synonyms("Films") == ("film", "movie", "coat", "shoot")
    assert net.synonyms("film", "v") == ("shoot",)
    assert net.synonyms("good") == ("fine", "well")
    assert net.synonyms("big") == ("large",)
    assert net.base_forms("children", "n") == ["child"]
    assert net.synonyms("ran") == ("run", "go")
    assert net.base_forms("boxes", "n") == ["box"]
    assert net.synonyms("filming") == ("film", "shoot")
    assert net.synonyms("unknown") == ()


def test_folder_zip_and_nltk_data_are_the_same(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packed" / "corpora" / "wordnet.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"wordnet/{file.name}")
    for path in (folder, tmp_path, archive, tmp_path / "packed"):
        assert load_wordnet(str(path)).lemmas("child") == ("child", "kid")


def test_synonym_attack_uses_it_in_the_case_of_the_word(folder: Path) -> None:
    attack = build_attack("synonym", {"wordnet": str(folder), "max_candidates": 2})
    attack.prepare()
    lattice = attack.lattice(Words.of("Good films and BOXES"))  # type: ignore[attr-defined]
    assert lattice == {0: ["Fine", "Well"], 1: ["film", "movie"], 3: ["BOX", "CHEST"]}


def test_missing_or_broken_wordnet_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ResourceError, match=r"corpora/wordnet: got not found in .*none.*NLTK_DATA"):
        find_nltk_data("corpora/wordnet")
    (tmp_path / "wordnet").mkdir()
    with pytest.raises(ResourceError, match=r"no readable data\.noun"):
        load_wordnet(str(tmp_path / "wordnet"))


def test_real_database_equals_nltk() -> None:
    """The same lemmas in the same order as nltk's reader, on words of many inflections."""
    here = Path(__file__).parents[3] / "shared" / "data" / "nltk_data"
    place = os.environ.get("NLTK_DATA") or str(here)
    try:
        net = load_wordnet(place)
    except ResourceError as error:
        pytest.skip(str(error))
    assert net.synonyms("terrible")[:3] == ("awful", "dire", "direful")
    data = pytest.importorskip("nltk.data")
    data.path.insert(0, place)
    wordnet = pytest.importorskip("nltk.corpus").wordnet
    words = "good better best films running ran is men women abyss doings well-made happily Paris"
    for word in words.split():
        names = [name for synset in wordnet.synsets(word) for name in synset.lemma_names()]
        assert list(net.lemmas(word)) == list(dict.fromkeys(names))
