"""Imports point downwards only, and importing has no side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "textadv"

LAYERS = [
    {"errors", "seeding"},
    {"norms", "losses", "words", "metrics", "report", "settings", "training"},
    {"embeddings", "models", "victim", "resources", "testing", "launch", "checkpoint"},
    {"perturb", "attacks"},
    {"objectives", "weights", "batching", "data", "evaluate", "validation", "trainer", "store",
     "journal"},
    {"config", "hub", "card", "run"},
    {"cli", "quickstart", "__main__", "__init__", "integrations"},
]  # fmt: skip

# Arrows inside a layer, each from the use to what is used.
SIBLINGS = {
    ("victim", "models"),
    ("report", "metrics"),
    ("trainer", "batching"),
    ("trainer", "journal"),
    ("trainer", "objectives"),
    ("trainer", "store"),
    ("trainer", "validation"),
    ("validation", "batching"),
    ("run", "config"),
    ("config", "hub"),
    ("hub", "card"),
    ("cli", "quickstart"),
    ("__main__", "cli"),
    ("__init__", "integrations"),
}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(module: str) -> int:
    found = [level for level, names in enumerate(LAYERS) if module in names]
    assert len(found) == 1, f"textadv.{module} is in {len(found)} layers: place it in LAYERS"
    return found[0]


def imports_of(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            if node.module == "textadv":
                names = [f"textadv.{alias.name}" for alias in node.names]
        else:
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
        below = layer_of(used) < level or (module, used) in SIBLINGS
        assert below, f"textadv.{module} (L{level}) must not import textadv.{used}"


def test_the_test_sees_an_upward_import():
    assert imports_of(ast.parse("def f():\n    from textadv.cli import main")) == {"cli"}
    assert imports_of(ast.parse("from textadv import trainer")) == {"trainer"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_runs_code_from_data(path):
    """No pickle, eval, exec, unsafe YAML or torch.load anywhere."""
    banned_modules = {"pickle", "dill", "marshal", "shelve", "cloudpickle"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not banned_modules & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in banned_modules
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "__import__", "torch.load"}, called
            if called == "yaml.load":
                assert "StrictLoader" in ast.unparse(node)


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
