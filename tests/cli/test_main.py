"""The command line as people meet it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from d3ssl.cli import diagnose, evaluate, pretrain
from d3ssl.cli.main import COMMANDS, main
from d3ssl.train import RunConfig
from d3ssl.train.recipe import run_config


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


# --- d3ssl pretrain -------------------------------------------------------------------------------------------------

PLAN = ["--recipe", "scenes-photo", "--out", "run", "--dry_run"]


@pytest.mark.parametrize(
    "words",
    [
        ["photos/", *PLAN],
        [*PLAN, "photos/"],
        ["--recipe=scenes-photo", "--dry_run", "photos/", "--out=run"],
        ["--data", "photos/", *PLAN],
        [*PLAN, "--data=photos/"],
    ],
)
def test_data_is_a_plain_word_or_an_option(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RunConfig] = []
    monkeypatch.setattr(pretrain, "show_plan", seen.append)
    pretrain.run(words)
    assert (seen[0].data, seen[0].out) == ("photos/", "run")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["photos/", "--data", "other/"], "the data is given more than once: photos/, --data"),
        (["photos/", "other/"], "the data is given more than once: photos/, other/"),
        ([], "not given: data"),
    ],
)
def test_data_is_given_once(words: list[str], problem: str, capfd: pytest.CaptureFixture) -> None:
    assert main(["pretrain", *words, *PLAN]) == 2
    error = capfd.readouterr().err
    assert problem in error
    assert "d3ssl pretrain DATA --out RUN" in error


def test_a_plain_word_wins_over_the_data_of_a_file_of_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("data: before/\nout: run\n")
    seen: list[RunConfig] = []
    monkeypatch.setattr(pretrain, "show_plan", seen.append)
    pretrain.run(["photos/", "--config", str(tmp_path / "config.yaml"), "--dry_run"])
    assert seen[0].data == "photos/"


def test_the_plan_of_another_host_is_shown_line_by_line(capfd: pytest.CaptureFixture) -> None:
    """A recipe serves another host with the options that they share, and says which ones are left out."""
    assert main(["pretrain", "photos/", *PLAN, "--method.host", "byol"]) == 0
    first, *plan, last = capfd.readouterr().err.splitlines()
    assert first == "scenes-photo: options of another host are left out for byol: region_path, small_ratio"
    config = run_config(["--recipe", "scenes-photo", "--data", "d", "--out", "o", "--method.host", "byol"])
    assert plan == config.plan.table().splitlines()
    assert last == "  backbone: test_resnet"
    assert plan[0] == "byol + DC + DP"
    views = [line.split()[1] for line in plan if line.startswith("  view ")]
    assert views == ["x1", "x2", "x1_cut", "x2_cut", "x3"]
    assert any(line.startswith("  objective image: ") and "InfoNce(temperature=0.2" in line for line in plan)
    pairs = [line.split()[:3] for line in plan if "  × " in line]
    assert pairs == [["x1_cut", "→", "x2"], ["x2_cut", "→", "x1"], ["x3", "→", "x2"], ["x3", "→", "x1"]]


def test_the_table_in_the_docs_is_the_one_that_is_shown(capfd: pytest.CaptureFixture) -> None:
    assert main(["pretrain", "photos/", "--out", "run/", "--dry_run"]) == 0
    page = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    assert textwrap.indent(capfd.readouterr().err, "    ") in page


@pytest.mark.parametrize(("host", "own", "others"), [("soco", "region_path", "area"), ("byol", "area", "region_path")])
def test_help_has_the_options_of_the_host(host: str, own: str, others: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", "--method.host", host, "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: d3ssl pretrain DATA --out RUN [options]")
    group = text[text.index("\n  --host CONFIG") :]
    assert f"--host.{own} " in group
    assert f"--host.{others} " not in text
    assert group.index("--host.loss") < group.index("--host.temperature")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--method.host", "soko"], "did you mean 'soco'? Known: byol, densecl, detcon, ibot, posttrain, soco."),
        (["--host.roi_sizes", "3"], "did you mean 'host.roi_size'? Known: host.aspect,"),
        (["--host.xyz", "3"], "What to do: Known: host.aspect, host.flip,"),
        (["--method.host", "byol", "--host.aera", "[1, 1]"], "did you mean 'host.area'?"),
        (["--method.host", "byol", "--host.region_path", "c4"], "Known: host.area,"),
        (["--model.region_path", "c4"], "did you mean 'host.region_path'? Known: model.backbone, model.weights."),
        (["--views.cutout", "0.3"], "did you mean 'dc.cutout'? Known: views.min_side,"),
    ],
)
def test_an_unknown_host_or_option_names_its_neighbour(
    words: list[str], remedy: str, capfd: pytest.CaptureFixture
) -> None:
    assert main(["pretrain", "photos/", "--out", "run", "--dry_run", *words]) == 2
    assert remedy in " ".join(capfd.readouterr().err.split())


# --- backbones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "backbones"),
    [
        (["run/"], ["run/"]),
        (["--backbone", "run/"], ["run/"]),
        (["run/", "--draws", "7", "other/"], ["run/", "other/"]),
        (["--backbone", "run/", "--backbone", "other/"], ["run/", "other/"]),
        (["run/", "--backbone=other/"], ["run/", "other/"]),
    ],
)
def test_backbones_are_plain_words_or_options(
    words: list[str], backbones: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosed, evaluated = [], []
    monkeypatch.setattr(diagnose, "diagnose_backbone", lambda specs, *_, **__: diagnosed.append(specs))
    diagnose.run([*words, "--out", "out"])
    assert diagnosed == [backbones]

    def measure(backbone: str, data: str, out: str, config: object, *, baselines: list[str], seeds: int) -> None:
        evaluated.append(([backbone, *baselines], data, out, seeds))

    monkeypatch.setattr("d3ssl.evaluate.objects.evaluate_objects", measure)
    rest = ["--data", "labelled/", "--out", "out", "--baseline", "random", "--device", "cpu"]
    evaluate.run(["objects", *words, *rest])
    assert evaluated == [([*backbones, "random"], "labelled/", "out", 1)]


@pytest.mark.parametrize("command", [["diagnose"], ["evaluate", "objects", "--data", "labelled/"]])
def test_no_backbone_is_a_clear_error(command: list[str], capfd: pytest.CaptureFixture) -> None:
    assert main([*command, "--out", "out"]) == 2
    error = capfd.readouterr().err
    assert "not given: backbone" in error
    assert f"usage: d3ssl {' '.join(command[:2])} B … " in error
