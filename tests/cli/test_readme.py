"""The README's commands and snippets are real."""

import re
import shlex
from pathlib import Path

import pytest

from d3ssl.cli.main import COMMANDS
from d3ssl.options import parse, recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("d3ssl ")]
    return [line for line in lines if line]


def test_there_are_commands() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is parsed by its own parser up to the point where work would begin."""
    import importlib

    words = shlex.split(command)[1:]
    assert words[0] in COMMANDS
    module = importlib.import_module(f"d3ssl.cli.{words[0]}")

    class Parsed(Exception):
        pass

    def only_parse(parser, argv):  # type: ignore[no-untyped-def]
        parse(parser, argv)
        raise Parsed

    monkeypatch.setattr(module, "parse", only_parse)
    with pytest.raises(Parsed):
        module.run(words[1:])


def test_python_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) == 2
    import d3ssl
    from d3ssl.models.artifact import save_backbone

    save_backbone(tmp_path / "run", d3ssl.load_backbone("timm:test_resnet"), {"input_size": 64})
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        names: dict = {}
        exec(snippet, names)  # our own README
    assert names["keep"].shape == (1, 1, 96, 96)


def test_ci_finds_the_test_command() -> None:
    match = re.search(r"<!-- test command -->\n```sh\n(.*?)\n```", README, flags=re.DOTALL)
    assert match
    assert "pytest" in match[1]
    assert "test command" in (ROOT / ".ci" / "run").read_text()


def test_named_files_are_there() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []


def test_recipes_are_there() -> None:
    assert {"quickstart", "scenes-photo", "coco-r50-c4", "coco-r50-fpn"} <= set(recipes())


@pytest.mark.parametrize("name", recipes())
def test_recipes_make_a_configuration(name: str) -> None:
    from d3ssl.train.config import check
    from d3ssl.train.recipe import run_config

    config = run_config(["--recipe", name, "--data", "d", "--out", "o"])
    check(config, 1)
    expected = {"posttrain": {"DC"}, "detcon-small": set(), "coco-r50-detcon": set(), "coco-vits-ibot": {"DC"}}
    assert config.plan.modules == expected.get(name, {"DC", "DP"})
