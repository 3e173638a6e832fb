"""From plain data to dataclasses: one strict reader for everything a user can set."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union

import yaml

from textadv.errors import ConfigError, has_secret, shown, unknown_name
from textadv.files import read_plain

__all__ = ["StrictLoader", "Tables", "as_plain", "build", "parse_yaml", "read_yaml"]

MAX_BYTES = 200_000
MAX_DEPTH = 40

Tables: TypeAlias = Mapping[type, Mapping[str, type]]


def as_plain(value: Any, tables: Tables) -> Any:
    """Turn configuration into plain data, with the `name` of classes that come from a table."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: as_plain(getattr(value, f.name), tables) for f in dataclasses.fields(value)
        }
        for base, table in tables.items():
            if isinstance(value, base):
                name = next(name for name, kind in table.items() if kind is type(value))
                return {"name": name, **fields}
        return fields
    if isinstance(value, Mapping):
        return {key: as_plain(item, tables) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item, tables) for item in value]
    return value


def build(kind: Any, value: Any, where: str, tables: Tables) -> Any:
    """Check `value` against a type and build it.

    Args:
        kind: A dataclass, a table's base class, `Literal`, `list[...]`, a union with None, a
            mapping, or one of str, int, float and bool.
        value: Plain data, as YAML gives it. Numbers may be text such as `1e-5`, which YAML does not
            take for a number.
        where: Path to the value, for errors: `recipe.yaml: training.seed`.
        tables: For each base class, the classes that a mapping's `name` selects.
    """
    if kind in tables:
        return _build_named(kind, value, where, tables)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where, tables)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _build_union(arguments, value, where, tables)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise unknown_name("value", value, map(str, arguments), where)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | str):
            raise wrong_type(where, value, "a list")
        items = value if isinstance(value, list) else [value]
        built = (build(arguments[0], v, f"{where}[{i}]", tables) for i, v in enumerate(items))
        return list(built) if origin is list else tuple(built)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise wrong_type(where, value, "a mapping")
        return value
    return _build_scalar(kind, value, where)


def _build_named(base: type, value: Any, where: str, tables: Tables) -> Any:
    table = tables[base]
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, dict) or "name" not in value:
        raise wrong_type(where, value, f"a mapping with a name: {', '.join(table)}")
    fields = dict(value)
    name = fields.pop("name")
    if not isinstance(name, str) or name not in table:
        raise unknown_name(base.__name__.lower(), name, table, f"{where}.name")
    return _build_dataclass(table[name], fields, where, tables)


def _build_dataclass(kind: Any, value: Any, where: str, tables: Tables) -> Any:
    if not isinstance(value, dict):
        raise wrong_type(where, value, "a mapping of settings")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    dot = "." if ": " in where or not where.endswith((".yaml", ".yml")) else ": "
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            raise ConfigError(
                f"{where}{dot}{shown(str(key))[1:-1]}",
                got="an unknown key",
                expected=f"one of {', '.join(fields)}" if fields else "no settings here",
                fix=f"did you mean {near[0]!r}?" if near else "",
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING
        if required and field.default_factory is dataclasses.MISSING and name not in value:
            raise ConfigError(f"{where}{dot}{name}", got="nothing", expected="a value")
    built = {
        key: build(hints[key], item, f"{where}{dot}{key}", tables) for key, item in value.items()
    }
    try:
        return kind(**built)
    except ConfigError as error:
        # Blocks name their own fields, some with the block's name in front.
        block = where.rpartition(dot)[2].rpartition(".")[2].rpartition(": ")[2]
        name = error.where.removeprefix(f"{block}.")
        raise ConfigError(
            f"{where}{dot}{name}", got=error.got, expected=error.expected, fix=error.fix
        ) from None


def _build_union(kinds: tuple[Any, ...], value: Any, where: str, tables: Tables) -> Any:
    if value is None and type(None) in kinds:
        return None
    options = [kind for kind in kinds if kind is not type(None)]
    errors = []
    for kind in options:
        try:
            return build(kind, value, where, tables)
        except ConfigError as error:
            errors.append(error)
    raise errors[-1]


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise wrong_type(where, value, "true or false")
    if kind is str:
        if isinstance(value, str):
            return value
        raise wrong_type(where, value, "text", "put it in quotes")
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise wrong_type(where, value, "a whole number")
    if kind is float:
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise wrong_type(where, value, "a finite number")
        return number
    raise TypeError(f"{where}: no reader for fields of type {kind}")


def wrong_type(where: str, value: Any, expected: str, fix: str = "") -> ConfigError:
    kind = "null" if value is None else type(value).__name__
    got = "nothing" if value is None else f"{shown(value)} ({kind})"
    return ConfigError(where, got=got, expected=expected, fix=fix)


class StrictLoader(yaml.SafeLoader):
    """Plain data only, and no key twice."""


def _unique_mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = key_node.value
        place = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise ConfigError(place, got="a key that is a list or mapping", expected="a word")
        if key in seen:
            raise ConfigError(place, got=f"{shown(key)} twice", expected="each key once")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file: plain data, no aliases, no key twice, no secrets.

    Raises:
        ConfigError: Anything else; the message names the file and the line.
    """
    content = read_plain(
        path, "a YAML file", where=f"recipe {path}", limit=MAX_BYTES, error=ConfigError
    )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start}", got="not UTF-8", expected="UTF-8"
        ) from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise wrong_type(f"{path}", tree, "a mapping of blocks: model, data, ...")
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text: plain data, no aliases, no key twice, no secrets.

    Args:
        text: YAML.
        where: Its place, for errors, to which the line is added.

    Raises:
        ConfigError: Anything else.
    """
    if has_secret(text):
        raise ConfigError(
            where,
            got="what looks like an access token",
            expected="no secrets: recipes are saved and published",
            fix="remove it, revoke it, and use `hf auth login` or HF_TOKEN",
        )
    try:
        _check_events(text)
        return yaml.load(text, StrictLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f": line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "text"
        raise ConfigError(f"{where}{line}", got=shown(problem), expected="plain YAML") from None
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error.where}", got=error.got, expected=error.expected
        ) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Numbers of thousands of digits, dates that do not exist, tags on values of another kind.
        raise ConfigError(where, got=shown(str(error)), expected="plain YAML") from None


def _check_events(text: str) -> None:
    """Refuse aliases, which can multiply, and deep nesting, before anything is built."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else "YAML"
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(line, got="a YAML alias", expected="every value written out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ConfigError(line, got="too deep nesting", expected="a recipe")
