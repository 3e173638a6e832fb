"""What publishing a run would upload: an allow-list, checked file by file."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from textadv.errors import DataError, has_secret, shown
from textadv.files import read_json, read_plain
from textadv.hub.config import check_repo_id
from textadv.settings import parse_yaml

__all__ = ["PlannedFile", "PushPlan", "plan_push", "secret"]

_MODEL_FILES = frozenset(
    (
        *("config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
        *("spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model", "bpe.codes"),
    )
)
_MAX_TEXT_BYTES = 50_000_000
_RUN_FILES = ("recipe.yaml", "report.json", "report.md")
_PICKLES = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"))


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file of an upload.

    Args:
        path: Its path in the repository.
        size: In bytes.
        sha256: Of its content.
        source: The local file; None for `content`.
        content: What was rendered for the upload.
    """

    path: str
    size: int
    sha256: str
    source: Path | None = None
    content: bytes | None = field(default=None, repr=False)

    def text(self) -> str:
        """Return the content of a small text file, for searching; nothing for weights."""
        if self.source is None:
            return (self.content or b"").decode()
        if self.size > _MAX_TEXT_BYTES or self.source.suffix == ".safetensors":
            return ""
        return self.source.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """What an upload would publish, and what it would leave out.

    Args:
        repo_id: Repository id.
        files: The files, each checked.
        left_out: Path and reason of everything else in the run directory.
        card: The model card.
        private: Whether the recipe wants a private repository.
    """

    repo_id: str
    files: tuple[PlannedFile, ...]
    left_out: tuple[tuple[str, str], ...]
    card: str
    private: bool = False

    def listing(self) -> str:
        """Return the files with their sizes, and why others were left out."""
        total = sum(file.size for file in self.files)
        kind = " (private)" if self.private else ""
        lines = [f"{self.repo_id}{kind}: {len(self.files)} files, {_size(total)}"]
        lines += [f"  {_size(file.size):>9}  {file.path}" for file in self.files]
        if self.left_out:
            lines += ["left out:"]
            lines += [f"  {shown(path, 160)[1:-1]} ({reason})" for path, reason in self.left_out]
        return "\n".join(lines)


def plan_push(
    run_dir: str | Path, repo_id: str, *, report_dir: str | Path | None = None
) -> PushPlan:
    """List and check what publishing a run would upload; nothing is sent.

    Args:
        run_dir: Run directory with `model/` and `recipe.yaml`.
        repo_id: Repository id, `owner/name`.
        report_dir: Folder of `report.json` and `report.md`, when it is not `run_dir`.

    Raises:
        ConfigError: No repository id.
        DataError: A file is missing or damaged, or something in it looks like an access token.
    """
    from textadv.card import render_card

    check_repo_id(repo_id, "repository id")
    run_dir = Path(run_dir)
    reports = Path(report_dir) if report_dir is not None else run_dir
    if not (run_dir / "model").is_dir() or (run_dir / "model").is_symlink():
        raise DataError(
            str(run_dir),
            got="no model/ directory in it",
            expected="the directory of a finished run",
        )
    sources, left_out = _choose(run_dir)
    for name in _RUN_FILES[1:]:
        sources.pop(name, None)
        if _is_plain_file(reports / name):
            sources[name] = reports / name
    _check_model(run_dir / "model", sources)
    files = [_planned(path, source) for path, source in sorted(sources.items())]
    for file in files:
        if has_secret(file.text()):
            raise secret(file.path)
    card = render_card(run_dir, repo_id=repo_id, report_dir=reports)
    if has_secret(card):
        raise secret("README.md")
    files.insert(0, _planned("README.md", content=card.encode()))
    recipe = read_plain(sources["recipe.yaml"], "a recipe").decode("utf-8", "replace")
    block = parse_yaml(recipe, "recipe.yaml").get("hub")
    private = isinstance(block, dict) and block.get("private") is True
    return PushPlan(
        repo_id=repo_id,
        files=tuple(files),
        left_out=tuple(left_out),
        card=card,
        private=private,
    )


def _choose(run_dir: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Return the allow-listed files by their path in the repository, and the rest with reasons."""
    chosen: dict[str, Path] = {}
    left_out: list[tuple[str, str]] = []
    for folder, folders, names in os.walk(run_dir):
        here = Path(folder)
        if here not in (run_dir, run_dir / "model"):
            left_out.append((f"{here.relative_to(run_dir)}/", "not on the allow-list"))
            folders.clear()
            continue
        folders.sort()
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = here / name
            allowed = name in _RUN_FILES if here == run_dir else _is_model_file(name)
            reason = _refusal(path, allowed)
            if reason:
                left_out.append((str(path.relative_to(run_dir)), reason))
            else:
                chosen[name] = path
    return chosen, left_out


def _is_model_file(name: str) -> bool:
    return name in _MODEL_FILES or (name.endswith(".safetensors") and not name.startswith("."))


def _refusal(path: Path, allowed: bool) -> str:
    if path.is_symlink():
        return "a link"
    if path.name.startswith("."):
        return "hidden"
    if path.suffix in _PICKLES:
        return "can hold a pickle"
    if path.name == "README.md":
        return "rendered afresh"
    if not allowed:
        return "not on the allow-list"
    return "" if _is_plain_file(path) else "not a plain file"


def _is_plain_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _check_model(folder: Path, sources: dict[str, Path]) -> None:
    """Refuse a model that a plain `from_pretrained` could not load."""
    for name in ("recipe.yaml", "config.json", "tokenizer_config.json"):
        if name not in sources:
            place = folder.parent if name == "recipe.yaml" else folder
            raise DataError(str(place / name), got="no such plain file", expected="a finished run")
    config = read_json(sources["config.json"], "a model's config")
    if "auto_map" in config:
        raise DataError(
            str(sources["config.json"]),
            got="auto_map",
            expected="a model that needs no code of its own",
        )
    weights = {name for name in sources if name.endswith(".safetensors")}
    wanted = {"model.safetensors"}
    if "model.safetensors.index.json" in sources:
        index = read_json(sources["model.safetensors.index.json"], "an index of weights")
        weight_map = index.get("weight_map")
        named = weight_map.values() if isinstance(weight_map, dict) else [""]
        wanted = {name if isinstance(name, str) else shown(name) for name in named}
    missing = sorted(wanted - weights)
    if missing or not wanted:
        raise DataError(
            str(folder),
            got=f"no {shown(', '.join(missing), 200)[1:-1] or 'weights'}",
            expected="it there",
        )
    from safetensors import SafetensorError, safe_open

    for name in sorted(weights):
        try:
            with safe_open(sources[name], framework="numpy") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise DataError(
                str(sources[name]), got=shown(str(error)), expected="whole safetensors"
            ) from None


def _planned(path: str, source: Path | None = None, content: bytes = b"") -> PlannedFile:
    if source is None:
        digest = hashlib.sha256(content).hexdigest()
        return PlannedFile(path=path, size=len(content), sha256=digest, content=content)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return PlannedFile(path=path, size=source.stat().st_size, sha256=digest, source=source)


def secret(path: str) -> DataError:
    """Build the error for a file that holds an access token, without showing it."""
    return DataError(
        path,
        got="what looks like an access token in it",
        expected="no secrets in published files",
        fix="remove it, and revoke the token if it is one",
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
