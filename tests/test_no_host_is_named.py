"""Training, evaluation, diagnosis and the command line know plans, and no method by its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import d3ssl
from d3ssl.methods import HOSTS

ROOT = Path(d3ssl.__file__).parent
COMMAND = "posttrain"
"""A host that is also the name of a command."""
NAMES = sorted({word.lower() for name, kind in HOSTS.items() for word in (name, kind.__name__)} - {COMMAND})
WORDS = re.compile(rf"(?<![a-z])({'|'.join(NAMES)})(?![a-z])", re.IGNORECASE)
HOME = ("methods/hosts/", "recipes/")
DEFAULT = "methods/config.py"
"""Says which host is trained unless another is named."""


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", ["train", "evaluate", "diagnose", "cli"])
def test_no_text_names_a_host(folder: str) -> None:
    """Code, docstrings and comments alike."""
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files(folder)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if WORDS.search(line)
    ]
    assert files(folder)
    assert found == []


def named_in_code(text: str) -> set[str]:
    """Hosts that names, attributes, imports and strings are; docstrings are not code."""
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    words: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            words.add(node.value)
        elif isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            words |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            words |= {part for alias in node.names for part in alias.name.split(".")}
    return {word for word in words if word.lower() in NAMES}


def test_only_a_host_itself_its_table_and_recipes_name_it_in_code() -> None:
    found = {
        name: named_in_code(file.read_text(encoding="utf-8"))
        for file in files(".")
        if not (name := file.relative_to(ROOT).as_posix()).startswith(HOME)
    }
    assert {name: hosts for name, hosts in found.items() if hosts} == {DEFAULT: {d3ssl.methods.MethodConfig.host}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from d3ssl.methods.hosts import Soco", {"Soco"}),
        ("import d3ssl.methods.hosts.byol", {"byol"}),
        ("is_boxes = config.method.host == 'soco'", {"soco"}),
        ("isinstance(host, hosts.Byol)", {"Byol"}),
        ('def f():\n    """As in SoCo."""', set()),
        ("SOCO_X1 = 3", set()),
    ],
)
def test_a_name_in_code_is_found(text: str, found: set[str]) -> None:
    assert named_in_code(text) == found
