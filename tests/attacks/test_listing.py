from __future__ import annotations

from pathlib import Path

import pytest

from textadv import resources
from textadv.attacks import ATTACKS, build_attack
from textadv.attacks.base import attack_identity, attack_resources, config_hash
from textadv.attacks.listing import attack_needs, list_resources
from textadv.errors import ResourceError
from textadv.resources import KINDS

NONE_NEEDED = {
    "checklist", "deepwordbug", "deepwordbug-all", "imperceptible-delete",
    "imperceptible-homoglyph", "imperceptible-invisible", "imperceptible-reorder",
    "input-reduction", "pruthi",
}  # fmt: skip


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide every resource of the machine."""
    for spec in KINDS.values():
        monkeypatch.setenv(spec.variable, str(tmp_path / "none")) if spec.nltk else (
            monkeypatch.delenv(spec.variable, raising=False)
        )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(resources.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(resources, "_package_model", lambda package: None)


def test_attacks_on_characters_need_nothing() -> None:
    needs = attack_needs()
    assert set(needs) == set(ATTACKS)
    assert {name for name, kinds in needs.items() if not kinds} == NONE_NEEDED
    assert all(set(kinds) <= set(KINDS) for kinds in needs.values())
    assert needs["textfooler"] == ("vectors", "tagger", "encoder")
    assert needs["bert-attack"] == ("masked-lm",)


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("name", sorted(set(ATTACKS) - NONE_NEEDED))
def test_a_missing_resource_is_named_with_its_fix_before_the_first_query(name: str) -> None:
    with pytest.raises(ResourceError, match=r"Fix: ") as caught:
        build_attack(name).prepare()
    assert any(kind in str(caught.value) for kind in attack_needs()[name])


@pytest.mark.usefixtures("nothing")
def test_the_list_says_where_it_looked() -> None:
    for row in list_resources():
        assert row.path is None
        assert row.variable in row.looked or "none" in row.looked
        assert row.how
        assert row.version == ""
        assert all(row.kind in attack_needs()[name] for name in row.attacks)


def test_the_list_finds_what_is_there(
    toy_resources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTADV_VECTORS", toy_resources["vectors"])
    (row,) = (row for row in list_resources() if row.kind == "vectors")
    assert row.path == Path(toy_resources["vectors"])
    assert len(row.content) == 16
    assert "textfooler" in row.attacks


def test_what_identifies_an_attack_is_the_content_and_not_the_path(
    toy_resources: dict[str, str], tmp_path: Path
) -> None:
    import shutil

    old = Path(toy_resources["vectors"])
    copy = Path(shutil.copytree(old.parent, tmp_path / "copy")) / old.name
    fields = {"source": "vectors", "vectors": str(old)}
    first = build_attack("synonym", fields)
    second = build_attack("synonym", {**fields, "vectors": str(copy)})
    assert attack_resources(second) == {"vectors": str(copy)}
    assert config_hash(attack_identity(first)) == config_hash(attack_identity(second))
    with (copy.parent / "words.txt").open("a") as file:
        file.write("more\n")
    assert config_hash(attack_identity(first)) != config_hash(attack_identity(second))
