"""The order of the folders is the permission to import: a part imports only from parts to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import d3ssl

FOUNDATION = ("contracts", "errors", "files", "console", "seeds", "distributed", "page", "options", "memory")
ORDER = (
    "data",
    "regions",
    "views",
    "models",
    "methods",
    "train",
    "doctor",
    "evaluate",
    "embedding",
    "diagnose",
    "posttraining",
    "export",
    "cli",
)
ENTRY_POINTS = ("__init__", "__main__")
"""Modules at the top that may import everything and that no part may import."""
NOT_CODE = ("recipes",)


def imported_modules(file: Path, package: Path) -> set[tuple[str, ...]]:
    """Paths below the package of all modules that a file imports, wherever in it: ("data", "coco").

    ``from d3ssl import data`` and relative imports count, and so does ``d3ssl.data`` after ``import d3ssl``. Only
    ``d3ssl.__version__`` is free for all. What follows ``import`` may be a module or a name in one; a name that is
    neither a file nor a folder is taken for a name in the module before it.
    """
    inside = (package.name, *file.relative_to(package).parts[:-1])
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names if alias.name != package.name}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == package.name:
            found.add((package.name, node.attr))
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                target = package.parent.joinpath(*base, alias.name)
                is_module = base[:1] == (package.name,) and (target.is_dir() or target.with_suffix(".py").is_file())
                found.add((*base, alias.name) if is_module or base == (package.name,) else base)
    return {module[1:] for module in found if module[:1] == (package.name,) and module[1:] != ("__version__",)}


def violations(package: Path) -> list[str]:
    """Every import that the order of a package's folders does not permit, and every part that has no place in it."""
    known = {*FOUNDATION, *ORDER, *ENTRY_POINTS, *NOT_CODE}
    parts = [path for path in package.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]
    found = [f"{path.name} has no place in the order" for path in parts if path.stem not in known]
    for file in sorted(package.rglob("*.py")):
        part = file.relative_to(package).parts[0].removesuffix(".py")
        if part in ENTRY_POINTS or part not in known:
            continue
        refused = [module for module in sorted(imported_modules(file, package)) if not may_import(part, module[0])]
        found += [f"{file.relative_to(package)} imports {'.'.join((package.name, *module))}" for module in refused]
    return found + [f"circle: {' → '.join(circle)}" for circle in circles(package)]


def may_import(part: str, target: str) -> bool:
    if target in FOUNDATION:
        return True  # the foundation among itself too; circles are looked for apart
    if part in FOUNDATION or target not in ORDER:
        return False
    return ORDER.index(target) <= ORDER.index(part)


def circles(package: Path) -> list[list[str]]:
    """Circles of imports between modules. A package that its own modules' imports run does not count as importing."""
    modules = {".".join(file.relative_to(package).with_suffix("").parts): file for file in package.rglob("*.py")}
    graph = {}
    for name, file in modules.items():
        targets = {".".join(target) for target in imported_modules(file, package)}
        graph[name] = sorted(
            target if target in modules else f"{target}.__init__" for target in targets if target != name
        )
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name in graph and name not in done:
            for target in graph[name]:
                visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def test_the_package_keeps_the_order() -> None:
    assert violations(Path(d3ssl.__file__).parent) == []


def make_package(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "d3ssl"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


PERMITTED = {
    "__init__.py": "from d3ssl.cli import main",
    "contracts.py": "import torch",
    "errors.py": "import d3ssl.contracts",
    "data/__init__.py": "from d3ssl.data.images import read",
    "data/images.py": "from d3ssl.errors import InputError\nfrom d3ssl import contracts\nfrom .stored import x",
    "data/stored.py": "import numpy",
    "views/boxes.py": "from d3ssl.data import images\nfrom ..data.stored import x",
    "views/draw.py": "import d3ssl\nfrom d3ssl import __version__\nprint(d3ssl.__version__)",
    "cli/main.py": "import d3ssl.views.boxes\nfrom d3ssl.views import boxes",
    "recipes/a.yaml": "a: 1",
}


def test_what_is_permitted_passes(tmp_path: Path) -> None:
    assert violations(make_package(tmp_path, PERMITTED)) == []


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("data/images.py", "from d3ssl.views.boxes import f", "data/images.py imports d3ssl.views.boxes"),
        ("data/images.py", "import d3ssl.views.boxes as b", "data/images.py imports d3ssl.views.boxes"),
        ("data/images.py", "from d3ssl import views", "data/images.py imports d3ssl.views"),
        ("data/images.py", "from ..views import boxes", "data/images.py imports d3ssl.views.boxes"),
        ("data/images.py", "from .. import views", "data/images.py imports d3ssl.views"),
        ("data/deep/x.py", "from ...views import boxes", "data/deep/x.py imports d3ssl.views.boxes"),
        ("data/images.py", "def f():\n    import d3ssl.views", "data/images.py imports d3ssl.views"),
        ("data/images.py", "from d3ssl import something", "data/images.py imports d3ssl.something"),
        ("data/images.py", "import d3ssl\nd3ssl.views.boxes.f()", "data/images.py imports d3ssl.views"),
        ("data/images.py", "import d3ssl\nd3ssl.pretrain()", "data/images.py imports d3ssl.pretrain"),
        ("data/images.py", "from .. import __init__", "data/images.py imports d3ssl.__init__"),
        ("data/images.py", "from d3ssl.unknown import x", "data/images.py imports d3ssl.unknown"),
        ("errors.py", "from d3ssl.data.images import f", "errors.py imports d3ssl.data.images"),
        ("views/boxes.py", "from d3ssl.cli.main import f", "views/boxes.py imports d3ssl.cli.main"),
        ("utils.py", "", "utils.py has no place in the order"),
        ("helpers/x.py", "", "helpers has no place in the order"),
        ("contracts.py", "from d3ssl.errors import E", "circle: contracts → errors → contracts"),
        ("data/stored.py", "from d3ssl.data.images import read", "circle: data.images → data.stored → data.images"),
        (
            "data/stored.py",
            "from d3ssl.data import y",
            "circle: data.images → data.stored → data.__init__ → data.images",
        ),
    ],
)
def test_violations_are_found(tmp_path: Path, file: str, text: str, found: str) -> None:
    assert found in violations(make_package(tmp_path, {**PERMITTED, file: text}))
