"""The command line as people meet it."""

import subprocess
import sys

import pytest

from d3ssl.cli.main import COMMANDS, main


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code in (0, None)
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"d3ssl {command}" in text
    assert "--out" in text or "OUT" in text


def test_usage_names_every_command_and_needs_no_torch() -> None:
    code = "import sys; from d3ssl.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)


def test_a_misspelt_command_names_the_nearest(capfd: pytest.CaptureFixture) -> None:
    assert main(["pretrian"]) == 2
    assert "did you mean 'pretrain'" in capfd.readouterr().err


def test_what_has_a_place_is_not_asked_for_as_an_option(capfd: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--data", "photos"]) == 2
    error = capfd.readouterr().err
    assert "data is no option here" in error and "d3ssl doctor DATA" in error


def test_print_config_of_a_recipe_is_yaml_that_can_be_read_back(capsys: pytest.CaptureFixture) -> None:
    import yaml

    with pytest.raises(SystemExit):
        main(
            ["pretrain", "--recipe", "quickstart", "--data", "d", "--out", "o", "--train.steps", "7", "--print_config"]
        )
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["train"]["steps"] == 7
    assert config["method"]["host"] == "soco"
    assert config["host"]["loss"] == "info_nce"
