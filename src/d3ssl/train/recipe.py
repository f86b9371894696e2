"""The options of a run of ``d3ssl pretrain``, which ``views`` and ``doctor`` take too."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from d3ssl.console import say
from d3ssl.errors import InputError
from d3ssl.methods import MethodConfig, find_host
from d3ssl.options import add_recipe, build, make_parser, parse, recipe_first
from d3ssl.train.config import RunConfig


def recipe(name: str, **options: Any) -> RunConfig:
    """The configuration of a recipe, with options over its own.

    Args:
        name: of a recipe that comes with d3ssl (``d3ssl pretrain --help`` lists them).
        options: by their names on the command line, with dots as two underscores: ``train__steps=800``.

    Raises:
        InputError: an unknown recipe, option or value.
    """
    words = ["--recipe", name]
    for key, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += [f"--{key.replace('__', '.')}", text]
    return run_config(words)


def run_config(words: Sequence[str]) -> RunConfig:
    """The configuration that ``d3ssl pretrain`` makes of these words."""
    parser = make_parser("pretrain", "", ())
    words = add_run(parser, words)
    return build(RunConfig, parse(parser, words))


def add_run(parser: ArgumentParser, argv: Sequence[str], skip: set[str] | None = None) -> list[str]:
    """The options of a run: ``--recipe``, ``--config``, those of RunConfig, and ``--host.NAME`` of the chosen host.

    Returns:
        The words to parse. Where ``--method.host`` names another host than a file does, that file's ``host`` options
        which the host does not have are left out, and said so.
    """
    words = recipe_first(list(argv))
    name = _host_name(words)
    host = find_host(name)
    add_recipe(parser)
    parser.add_class_arguments(RunConfig, skip={"host", *(skip or set())})
    parser.add_class_arguments(host, "host")
    known = {field.name for field in dataclasses.fields(host)}  # type: ignore[arg-type]
    for place, (option, value) in enumerate(pairwise(words), start=1):
        found = _read(value) if option == "--config" else {}
        own = found.get("host")
        if not isinstance(own, dict) or (found.get("method") or {}).get("host", MethodConfig.host) == name:
            continue
        left_out = sorted(own.keys() - known)
        if left_out:
            say(f"{Path(value).stem}: options of another host are left out for {name}: {', '.join(left_out)}")
        found["host"] = {key: item for key, item in own.items() if key in known}
        words[place] = yaml.safe_dump(found)
    return words


def _host_name(words: list[str]) -> str:
    """What ``--method.host``, or the last file that sets it, says: it decides which options there are."""
    name = MethodConfig.host
    for word, following in pairwise([*words, ""]):
        option, _, value = word.partition("=")
        value = value or following
        if option == "--config":
            name = (_read(value).get("method") or {}).get("host", name)
        elif option == "--method.host":
            name = value
    return str(name)


def _read(file: str) -> dict[str, Any]:
    """What a file of options holds; nothing where it cannot be read: the parser says what is wrong with it."""
    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("method") or {}, dict) else {}


def name_data(places: list[str], words: list[str], command: str) -> list[str]:
    """``DATA`` as ``--data DATA``, which the first edition asked for. It wins over the data of a file of options."""
    is_named = any(word == "--data" or word.startswith("--data=") for word in words)
    if len(places) > 1 or (places and is_named):
        given = ", ".join([*places, *(["--data"] if is_named else [])])
        raise InputError(
            f"the data is given more than once: {given}", remedy=f"write d3ssl {command} DATA --out RUN [options]."
        )
    return [*words, "--data", *places] if places else words
