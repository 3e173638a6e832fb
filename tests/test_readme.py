"""The README's code runs, and names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from textadv.cli.arguments import make_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_code_blocks_run_in_order(capsys):
    assert len(BLOCKS) >= 3
    names: dict = {}
    for block in BLOCKS:
        run = compile(block, "README.md", "exec")
        exec(run, names)
    printed = capsys.readouterr().out
    before, after = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", printed).groups())
    assert after > before


def test_the_commands_exist():
    commands = set(re.findall(r"(?:`|^)textadv (\w+)", README, flags=re.MULTILINE))
    parsers = next(a for a in make_parser()._actions if a.dest == "command").choices
    assert commands <= set(parsers), commands - set(parsers)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_the_links_lead_somewhere(link):
    assert (ROOT / link).exists()
