"""Imports point downwards only, and importing has no side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "textadv"

# Each module may import those above its own line, and none beside it.
LAYERS = [
    # L0: the standard library and torch
    {"errors", "interrupts", "seeding"},
    # L1: pure functions and dataclasses
    {"files"},
    {
        "diff",
        "diskspace",
        "losses",
        "metrics",
        "norms",
        "ragged",
        "rounding",
        "runlock",
        "settings",
        "training",
        "words",
    },
    {"monitors", "report_shape", "report_text", "statistics"},
    {"report"},
    # L2: the only modules that touch models or downloads
    {"adapters"},
    {"sharding"},
    {"checkpoint", "models", "modes", "processes", "sites", "testing", "tokens", "vectors"},
    {"hook", "launch", "parts", "resources", "reuse", "trained"},
    {"embeddings", "language"},
    {"passes", "whitebox"},
    {"classifier"},
    {"victim"},
    # L3: methods; they know no transformers class
    {"attacks", "perturb", "weights"},
    {"counterfit", "shards"},
    # L4: use cases
    {"batching", "data", "evaluate", "objectives", "quality", "results"},
    {"augment", "ball", "details", "journal", "pairing", "robust_accuracy", "store", "validation"},
    {"measure", "nonfinite", "robustness", "single"},
    {"cascade", "compare", "trainer"},
    # L5: recipes in; cards, pages and uploads out
    {"audit", "card"},
    {"hub", "page"},
    {"config"},
    {"run"},
    # L6: the faces
    {"integrations", "quickstart"},
    {"cli"},
    {"__init__", "__main__"},
]


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(module: str) -> int:
    found = [level for level, names in enumerate(LAYERS) if module in names]
    assert len(found) == 1, f"textadv.{module} is in {len(found)} layers: place it in LAYERS"
    return found[0]


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules of the package that are imported at run time."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            if node.module == "textadv":
                names = [f"textadv.{alias.name}" for alias in node.names]
        else:
            found |= imports_of(node)
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("textadv.")}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    module = module_of(path)
    level = layer_of(module)
    for used in imports_of(ast.parse(path.read_text())) - {module}:
        if not (PACKAGE / used).exists() and not (PACKAGE / f"{used}.py").exists():
            continue  # a name of the package itself, such as __version__
        below = layer_of(used) < level
        assert below, f"textadv.{module} must not import textadv.{used}: it is not below it"


def test_the_test_sees_an_upward_import():
    assert imports_of(ast.parse("def f():\n    from textadv.cli import main")) == {"cli"}
    assert imports_of(ast.parse("from textadv import trainer")) == {"trainer"}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_is_light_and_leaves_no_trace():
    code = (
        "import sys, logging, os\n"
        "before = dict(os.environ)\n"
        "import textadv, textadv.cli\n"
        "assert dict(os.environ) == before\n"
        "assert not logging.getLogger('textadv').handlers\n"
        "heavy = ('torch', 'transformers', 'datasets', 'accelerate')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_every_public_name_exists():
    code = "import textadv\nprint(all(getattr(textadv, n) is not None for n in textadv.__all__))"
    assert run(code) == "True"
