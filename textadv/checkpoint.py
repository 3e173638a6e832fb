"""Checkpoints as transactions: written aside, hashed, renamed, verified before they are read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from textadv.adapters import trained_weights
from textadv.errors import CheckpointError, shown
from textadv.files import parse_json, path_problem, read_plain

__all__ = [
    "folders",
    "latest",
    "load_optimizer",
    "load_tensors",
    "load_weights",
    "prune",
    "replace",
    "save",
    "save_optimizer",
    "save_tensors",
    "save_weights",
    "write_text",
]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def save(folder: Path, write: Callable[[Path], None], *, manifest: bool = True) -> None:
    """Let `write` fill a hidden directory, then make it `folder` in one step.

    The manifest with the size and SHA-256 of each file is written last and every file and the
    directory are flushed to disk before the rename, so a directory that verifies is whole. If
    anything fails, what was there before stays, and nothing else.
    """
    staging, old = _beside(folder, "tmp"), _beside(folder, "old")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        write(staging)
        # The disk takes its time while the hashes are computed.
        with ThreadPoolExecutor(1) as disk:
            synced = [disk.submit(_sync, path) for path in staging.iterdir()]
            if manifest:
                _write_manifest(staging)
        for one in synced:
            one.result()
        for path in (staging / MANIFEST, staging) if manifest else (staging,):
            _sync(path)
        if folder.exists():
            # Until the new one has the name, `latest` finds the old one under its hidden name.
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync(folder.parent)


def latest(parent: Path) -> Path | None:
    """Return the newest checkpoint that verifies; damaged ones are set aside and named in the log.

    What a killed save left unfinished is cleared away first.

    Raises:
        CheckpointError: If there are, or were, checkpoints and none verifies.
    """
    _clear(parent)
    for folder in reversed(folders(parent)):
        fault = _fault(folder)
        if fault is None:
            return folder
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        logger.warning("checkpoint %s is damaged (%s): set aside as %s", folder, fault, aside.name)
    damaged = len(list(parent.glob("damaged-step-*")))
    if damaged:
        raise CheckpointError(
            str(parent),
            got=f"{damaged} checkpoints, all damaged",
            expected="one that verifies",
            fix="start again in a new directory",
        )
    return None


def prune(parent: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, each in one step."""
    for folder in folders(parent)[:-keep]:
        gone = _beside(folder, "gone")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write an optimizer's state as safetensors (tensors) and JSON (everything else)."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[name] = value
    save_file(tensors, folder / "optimizer.safetensors")
    settings = {"groups": state["param_groups"], "plain": plain}
    (folder / "optimizer.json").write_text(json.dumps(settings), encoding="utf-8")


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restore what `save_optimizer` wrote."""
    settings = json.loads((folder / "optimizer.json").read_text(encoding="utf-8"))
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in settings["plain"].items()
    }
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": settings["groups"]})


def save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write named tensors."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, file)


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read named tensors."""
    return dict(load_file(file))


def save_weights(model: nn.Module, file: Path) -> None:
    """Write weights, tied ones once; of a model with adapters only what is trained."""
    if (trained := trained_weights(model)) is not None:
        save_tensors(trained, file)
        return
    save_model(model, str(file))


def load_weights(model: nn.Module, file: Path) -> None:
    """Read weights back into a model of the same shape."""
    if (trained := trained_weights(model)) is not None:
        for name, tensor in load_tensors(file).items():
            trained[name].copy_(tensor)
        return
    load_model(model, str(file))


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file in a hidden directory, then make it `file` in one step.

    The directory takes in what a killed `write` leaves: safetensors has hidden files of its own.
    """
    staging = _beside(file, "tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        write(staging / file.name)
        _sync(staging / file.name)
        (staging / file.name).replace(file)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _sync(file.parent)


def write_text(file: Path, text: str) -> None:
    """Replace a text file in one step."""
    replace(file, lambda aside: aside.write_text(text, encoding="utf-8"))


def folders(parent: Path) -> list[Path]:
    """Return all checkpoints, oldest first."""
    return sorted(path for path in parent.glob("step-*") if path.is_dir())


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


def _clear(parent: Path) -> None:
    """Give replaced checkpoints without a successor their name back; delete other leftovers."""
    for old in parent.glob(".step-*.old"):
        folder = parent / old.name[1 : -len(".old")]
        if not folder.exists():
            old.rename(folder)
    for suffix in ("old", "tmp", "gone"):
        for left in parent.glob(f".step-*.{suffix}"):
            shutil.rmtree(left)


def _write_manifest(folder: Path) -> None:
    entries = {
        file.name: {"size": file.stat().st_size, "sha256": _digest(file)}
        for file in sorted(folder.iterdir())
    }
    (folder / MANIFEST).write_text(_manifest(entries), encoding="utf-8")


def _manifest(entries: Any) -> str:
    """Return the one text of a manifest."""
    body = json.dumps(entries, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"files": entries, "sha256": digest}, indent=1)


def _fault(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        content = read_plain(folder / MANIFEST, MANIFEST).decode()
        entries = parse_json(content)["files"]
        if content != _manifest(entries):
            return f"{MANIFEST} does not match its own hash"
        if folder.is_symlink():
            return "it is a link"
        found = {file.name for file in folder.iterdir()} - {MANIFEST}
        if unlisted := sorted(found - {*entries}):
            return f"{shown(unlisted[0])} is not in {MANIFEST}"
        for name, entry in entries.items():
            file = folder / name
            if name not in found:
                return f"{shown(name)[1:-1]} is missing"
            if path_problem(file) or file.is_symlink():
                return f"{name} is not a plain file"
            if file.stat().st_size != entry["size"]:
                return f"{name} has {file.stat().st_size} bytes instead of {shown(entry['size'])}"
            if _digest(file) != entry["sha256"]:
                return f"{name} does not match its hash"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST}: {type(error).__name__}"
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
