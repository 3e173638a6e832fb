"""Recipes: the six blocks that decide a run, read from YAML and written back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from textadv import settings
from textadv.data import DataConfig
from textadv.data.labels import PROBLEM_TYPES
from textadv.errors import ConfigError, shown, unknown_name
from textadv.evaluate import EvaluationConfig
from textadv.files import path_problem
from textadv.hub import HubConfig
from textadv.models import ModelConfig
from textadv.objectives import OBJECTIVES, Clean, Objective
from textadv.perturb import PERTURBATIONS, Perturbation
from textadv.training import TrainingConfig

__all__ = [
    "Recipe",
    "as_dict",
    "build",
    "dump_recipe",
    "find_recipe",
    "read_recipe",
    "shipped_recipes",
]

# A field of one of these types is a mapping with a `name` that selects the class.
TABLES: Mapping[type, Mapping[str, type]] = {Objective: OBJECTIVES, Perturbation: PERTURBATIONS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run: the six blocks of a recipe file.

    Example:
        >>> recipe = build(Recipe, {"model": {"name": "m"}, "data": {"train": "t.csv"}}, "recipe")
        >>> recipe.training.learning_rate
        5e-05
    """

    model: ModelConfig
    data: DataConfig
    objective: Objective = dataclasses.field(default_factory=Clean)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    hub: HubConfig = dataclasses.field(default_factory=HubConfig)

    def __post_init__(self) -> None:
        if self.data.task != "auto":
            labels = self.data.labels
            self.check(PROBLEM_TYPES[self.data.task], len(labels) if labels else None)

    def check(self, problem_type: str, num_labels: int | None) -> None:
        """Refuse methods that a head of this kind has no use for.

        Args:
            problem_type: What Transformers calls the task.
            num_labels: Outputs of the head, when they are known.

        Raises:
            ConfigError: With the block and the reason.
        """
        # Nothing is refused for its number of classes while that is unknown.
        head = problem_type, 3 if num_labels is None else num_labels
        parts: list[tuple[str, Any]] = [("objective", self.objective)]
        parts += [
            (f"evaluation.perturbations[{index}]", perturbation)
            for index, perturbation in enumerate(self.evaluation.perturbations)
        ]
        for block, part in parts:
            try:
                part.check(*head)
            except ConfigError as error:
                raise ConfigError(
                    f"{block}: {error.where}", got=error.got, expected=error.expected, fix=error.fix
                ) from None
        if problem_type != "single_label_classification" and self.evaluation.attacks:
            raise ConfigError(
                "evaluation.attacks",
                got=f"text attacks on a {problem_type} head",
                expected="none: they flip the one predicted class",
                fix="set evaluation.attacks: []",
            )


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file.

    Args:
        path: A YAML file.
        overrides: `key.path=value` each, with a YAML value, applied before checking.

    Raises:
        ConfigError: Anything unreadable, unknown, misspelt, of the wrong type or out of range; the
            message names the file and the key.
    """
    path = Path(path)
    tree = settings.read_yaml(path)
    for override in overrides:
        _override(tree, override)
    return cast(Recipe, build(Recipe, tree, str(path)))


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML, which `read_recipe` reads back to an equal value."""
    return yaml.safe_dump(as_dict(recipe), sort_keys=False, allow_unicode=True)


def build(kind: Any, value: Any, where: str) -> Any:
    """Build a block, or any part of one, from plain data; see `textadv.settings.build`."""
    return settings.build(kind, value, where, TABLES)


def as_dict(value: Any) -> Any:
    """Turn configuration into plain data, with the `name` of classes that come from a table."""
    return settings.as_plain(value, TABLES)


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name: `sst2-fgm`, `quickstart/clean`."""
    package = Path(__file__).parent
    # Installed packages carry a copy; a source checkout has them beside the package.
    folder = next(
        (f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), None
    )
    found = {}
    for path in sorted(folder.glob("*/*.yaml")) if folder else []:
        if path.parent.name == "accelerate":
            continue
        name = path.parent.name if path.stem == "train" else f"{path.parent.name}/{path.stem}"
        found[name] = path
    return found


def find_recipe(name: str) -> Path:
    """Return the path of a recipe file, or of the shipped recipe of that name."""
    path = Path(name)
    if not path_problem(path) or path.suffix in (".yaml", ".yml"):
        return path
    shipped = shipped_recipes()
    if name not in shipped:
        raise unknown_name("recipe", name, shipped)
    return shipped[name]


def _override(tree: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    keys = path.split(".")
    if not sign or not all(keys):
        raise ConfigError(
            f"override {shown(override)}", expected="key.path=value, such as training.epochs=1"
        )
    value = settings.parse_yaml(text, f"override {path}")
    node = tree
    for key in keys[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {} if node.get(key) is None else {"name": node[key]}
        node = node[key]
    node[keys[-1]] = value
