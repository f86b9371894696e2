"""The options of a run of ``d3ssl pretrain``, which ``views`` and ``doctor`` take too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from d3ssl.cli.options import add_recipe, build, make_parser, parse, recipe_first
from d3ssl.methods import MethodConfig, find_host
from d3ssl.train import RunConfig


def run_config(words: Sequence[str]) -> RunConfig:
    """The configuration that ``d3ssl pretrain`` makes of these words."""
    parser = make_parser("pretrain", "", ())
    add_run(parser, words)
    return build(RunConfig, parse(parser, words))


def add_run(parser: ArgumentParser, argv: Sequence[str], skip: set[str] | None = None) -> None:
    """The options of a run: ``--recipe``, ``--config``, those of RunConfig, and ``--host.NAME`` of the chosen host."""
    add_recipe(parser)
    parser.add_class_arguments(RunConfig, skip={"host", *(skip or set())})
    parser.add_class_arguments(find_host(_host_name(list(argv))), "host")


def _host_name(argv: list[str]) -> str:
    """What ``--method.host``, or the last file that sets it, says: it decides which options there are."""
    name, words = MethodConfig.host, recipe_first(argv)
    for word, following in pairwise([*words, ""]):
        option, _, value = word.partition("=")
        value = value or following
        if option == "--method.host":
            name = value
        elif option == "--config" and Path(value).is_file():
            try:
                found = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):
                continue  # the parser says what is wrong with it
            method = found.get("method") if isinstance(found, dict) else None
            name = str(method.get("host", name)) if isinstance(method, dict) else name
    return name
