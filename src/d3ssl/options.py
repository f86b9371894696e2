"""Options from dataclasses: YAML recipes, dotted overrides, and errors that name the nearest known key."""

from __future__ import annotations

import dataclasses
import re
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import resources
from typing import Any, TypeVar

from jsonargparse import (
    ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]  # documented, but not in __all__
    ArgumentParser,
    Namespace,
    set_parsing_settings,
)

from d3ssl.errors import InputError, nearest

set_parsing_settings(docstring_parse_attribute_docstrings=True)

C = TypeVar("C")
DATA_HELP = (
    "images in a folder, COCO, VOC, YOLO, ADE20K, Open Images, Hugging Face, list (.txt), tar shards: docs/data.md"
)
"""What DATA may be."""


def make_parser(command: str, what: str, examples: Sequence[str], usage: str | None = None) -> ArgumentParser:
    """A parser whose help says what the command does and shows it in use.

    Args:
        usage: what follows the command in the first line of the help; None: all options.
    """
    text = what + "\n\nexamples:\n" + "\n".join(f"  {example}" for example in examples)

    usage = usage and f"d3ssl {command} {usage}"
    parser = ArgumentParser(prog=f"d3ssl {command}", description=text, exit_on_error=False, usage=usage)
    parser.formatter_class = _formatter(parser.formatter_class)
    return parser


def _formatter(base: type) -> type:
    """jsonargparse's formatter with the description's lines kept as they are."""

    class KeepLines(base):  # type: ignore[misc,valid-type]
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "".join(indent + line for line in text.splitlines(keepends=True))

    return KeepLines


def add_recipe(parser: ArgumentParser) -> None:
    """``--recipe NAME`` and ``--config FILE``; what comes later on the command line wins."""
    parser.add_argument("--recipe", type=str | None, default=None, help=f"start from a recipe: {', '.join(recipes())}")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with the options below, nested by dots")


def recipes() -> list[str]:
    """Names of the recipes that come with d3ssl."""
    return sorted(item.name[:-5] for item in _recipe_folder().iterdir() if item.name.endswith(".yaml"))


def read_recipe(name: str) -> str:
    """The text of a recipe."""
    return (_recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _recipe_folder() -> Any:
    return resources.files("d3ssl") / "recipes"


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse and instantiate.

    Raises:
        InputError: unknown key (with the nearest known one), wrong value, missing option.
    """
    try:
        return parser.instantiate(parser.parse_args(recipe_first(list(argv))))
    except ArgumentError as error:
        raise _clear_error(parser, str(error)) from error


def recipe_first(argv: list[str]) -> list[str]:
    """Turn ``--recipe NAME`` into a config file in front of everything else."""
    for place, word in enumerate(argv):
        if word == "--recipe" or word.startswith("--recipe="):
            name = word.partition("=")[2] or (argv[place + 1] if place + 1 < len(argv) else "")
            if name not in recipes():
                raise InputError(f"there is no recipe '{name}'", remedy=nearest(name, recipes()))
            rest = argv[:place] + argv[place + (1 if "=" in word else 2) :]
            return ["--config", str(_recipe_folder() / f"{name}.yaml"), *rest]
    return argv


def split_places(parser: ArgumentParser, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that are no option's, wherever they stand (``photos/`` in ``photos/ --out run/``), and all others."""
    flags = {flag for action in parser._actions if action.nargs == 0 for flag in action.option_strings}
    flags.add("--print_config")
    places: list[str] = []
    rest: list[str] = []
    takes_next = False
    for word in argv:
        is_option = word.startswith("--") or word in flags
        (rest if is_option or takes_next else places).append(word)
        takes_next = is_option and not takes_next and "=" not in word and word not in flags
    return places, rest


def _clear_error(parser: ArgumentParser, message: str) -> InputError:
    placed = {action.dest: action.metavar or action.dest for action in parser._actions if not action.option_strings}
    options = {action.dest for action in parser._actions if action.option_strings}
    known = options - {"help", "print_config", "print_shtab", "config"}
    group = re.search(r"[Gg]roup '([^']*)' does not accept option '([^']*)'", message)
    plain = re.search(r"unrecognized arguments: --([\w.-]+)", message)
    key = re.search(
        r"Key '([^']+)' is not expected|does not accept option '([^']+)'|No action for key \"([^\"]+)\"", message
    )
    missing = re.search(r"following arguments are required: (.+)", message)
    if missing:
        remedy = f"usage: {parser.usage}." if parser.usage else f"see {parser.prog} --help."
        return InputError(f"not given: {missing[1]}", remedy=remedy)
    name = None
    if group:
        name = f"{group[1]}.{group[2]}" if not group[2].startswith(group[1]) else group[2]
    elif plain:
        name = plain[1]
    elif key:
        name = key[1]
    if name in placed:
        return InputError(f"{name} is no option here", remedy=f"give it without --: {parser.prog} {placed[name]} …")
    if name is not None:
        return InputError(f"there is no option '{name}'", remedy=nearest(name, known))
    return InputError(message, remedy=f"see {parser.prog} --help.")


def build(kind: type[C], namespace: Namespace) -> C:
    """An instance of a dataclass from the namespace's entries of the same names."""
    return kind(**{f.name: namespace[f.name] for f in dataclasses.fields(kind) if f.name in namespace})  # type: ignore[arg-type]


def name_backbones(places: Sequence[str], words: Sequence[str]) -> list[str]:
    """``B …`` as ``--backbone B …``, in front of those that are named so."""
    return [*(word for place in places for word in ("--backbone", place)), *words]
