"""The table of the evidence: its arithmetic by hand, and the whole command in small."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.scenes_table import blurred as blurred  # makes timm know its networks
from benchmarks.scenes_table import cells, record, table
from benchmarks.scenes_table.budgets import BUDGETS
from benchmarks.scenes_table.record import gather
from benchmarks.scenes_table.rows import BLURRED, COMPARED, REGIONS, ROWS
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.errors import InputError
from d3ssl.models.backbone import create_backbone

ROOT = Path(__file__).parents[2]
FIGURES = {
    "random": {0: {"o_knn": 0.2, "context_sensitivity": None}},
    "host": {
        0: {"o_knn": 0.40, "context_sensitivity": 0.8},
        1: {"o_knn": 0.42, "context_sensitivity": 0.9},
        2: {"o_knn": 0.44, "context_sensitivity": 1.0},
    },
    "D3SSL": {
        0: {"o_knn": 0.60, "context_sensitivity": 0.24},
        1: {"o_knn": 0.61, "context_sensitivity": 0.27},
        2: {"o_knn": 0.65, "context_sensitivity": 0.30},
    },
}
_BY_MEASURE = {goal.measure: goal for goal in table.GOALS}
KNN, CONTEXT, MIOU = (_BY_MEASURE[name] for name in ("o_knn", "context_sensitivity", "linear_miou"))


def test_the_interval_is_students() -> None:
    found = table.interval([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)  # t(0.975, 2)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert math.isnan(table.interval([0.5]).low)


def test_changes_are_seed_by_seed() -> None:
    relative = table.interval(table.seed_changes(FIGURES, "D3SSL", CONTEXT))
    assert relative.value == pytest.approx(-0.7)
    assert relative.high - relative.low == pytest.approx(0, abs=1e-9)
    points = table.interval(table.seed_changes(FIGURES, "D3SSL", KNN))
    assert points.value == pytest.approx(0.2)  # of 0.20, 0.19, 0.21
    assert not table.seed_changes(FIGURES, "random", CONTEXT)
    one = table.interval(table.seed_changes(FIGURES, "random", KNN))
    assert one.value == pytest.approx(-0.2)


def test_changes_beyond_doubt_are_marked() -> None:
    worse = {seed: {"o_knn": own["o_knn"] - 0.1, "context_sensitivity": 0.9} for seed, own in FIGURES["host"].items()}
    head, rule, d3ssl, other, one = table.changes(
        FIGURES | {"worse": worse}, ["D3SSL", "worse", "random"], "host"
    ).splitlines()
    columns = [cell.strip() for cell in head.split("|")]
    assert rule.count("|") == head.count("|") == d3ssl.count("|")
    context, knn = columns.index("context sensitivity, %"), columns.index("o knn, points")

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.split("|")]

    assert cells(d3ssl)[context] == "**-70.0 ± 0.0**" and cells(d3ssl)[knn] == "**+20.0 ± 2.5**"  # 4.3027 × 0.01 ÷ √3
    assert cells(other)[knn] == "*-10.0 ± 0.0*"
    assert cells(other)[context] == "+0.8 ± 28.0"  # of 12.5, 0 and −10 %: the interval holds 0
    assert cells(one)[knn] == "-20.0" and cells(one)[context] == "–"


def test_changes_from_a_row_without_a_gap_are_in_points_and_lower_is_better() -> None:
    figures = {
        name: {seed: {"context_gap": gap + 0.001 * seed} for seed in range(3)}
        for name, gap in {"host": 0.2, "good": 0.001, "bad": 0.1}.items()
    }
    for rows, reference, head, wanted in (
        (["good"], "host", "context gap, %", "**-99.0 ± 1.2**"),
        (["bad"], "good", "context gap, points", "*+9.9 ± 0.0*"),
        (["good"], "bad", "context gap, points", "**-9.9 ± 0.0**"),
    ):
        lines = [line.strip("| ").split(" | ") for line in table.changes(figures, rows, reference).splitlines()]
        assert lines[0][2:] == [head] and lines[2][2:] == [wanted]  # of the measures that were taken


@pytest.mark.parametrize("host", [(0.01, -0.001, 0.01), (0.001, 0.02, 0.001)])
def test_no_share_is_taken_of_what_is_not_apart_from_0(host: tuple[float, ...]) -> None:
    leakage = _BY_MEASURE["neighbour_leakage"]
    figures = {
        name: {seed: {"neighbour_leakage": value} for seed, value in enumerate(values)}
        for name, values in {"host": host, "D3SSL": (0.002, 0.002, 0.002)}.items()
    }
    assert not table.seed_changes(figures, "D3SSL", leakage)
    why = "no share of host's, which is not apart from 0"
    assert f"| neighbour leakage | -50% | – | {why} |" in table.goals(figures, "D3SSL")
    figures["host"] = {seed: {"neighbour_leakage": 0.01 + 0.001 * seed} for seed in range(3)}
    assert table.seed_changes(figures, "D3SSL", leakage)[0] == pytest.approx(-0.8)


def test_goals_not_measured_are_named_with_their_units_and_measures_without_a_goal_are_not() -> None:
    lines = table.goals(FIGURES, "D3SSL").splitlines()
    assert "| o knn shuffled | +15 points | – | not measured |" in lines
    assert "| neighbour leakage | -50% | – | not measured |" in lines
    assert "| box ap | better | – | not measured |" in lines
    assert len(lines) == 2 + 10 and not any("strides" in line for line in lines)


def test_a_figure_of_fewer_seeds_than_its_row_says_so() -> None:
    figures = FIGURES | {"D3SSL": FIGURES["D3SSL"] | {2: {"context_sensitivity": 0.30}}}
    assert "| D3SSL | 3 | 0.605 ± 0.064 (2) | 0.270 ± 0.075 |" in table.markdown(
        figures, ["o_knn", "context_sensitivity"]
    )
    assert "| o knn | +15 points | +19.5 ± 6.4 points (2) | not outside the interval |" in table.goals(figures, "D3SSL")
    changed = table.changes(figures, ["D3SSL"], "host").splitlines()[-1]
    assert "| D3SSL | 3 | **-70.0 ± 0.0** |" in changed and "**+19.5 ± 6.4** (2)" in changed


@pytest.mark.parametrize(
    ("goal", "low", "high", "word"),
    [
        (CONTEXT, -0.7, -0.61, "yes"),
        (CONTEXT, -0.7, -0.5, "not outside the interval"),
        (CONTEXT, -0.5, 0.1, "no"),
        (KNN, 0.16, 0.3, "yes"),
        (KNN, 0.1, 0.3, "not outside the interval"),
        (KNN, -0.1, 0.1, "no"),
        (MIOU, 0.001, 0.1, "yes"),
        (MIOU, -0.1, -0.01, "no"),
        (KNN, math.nan, math.nan, "one seed"),
    ],
)
def test_a_goal_is_reached_where_the_whole_interval_is_beyond_it(
    goal: table.Goal, low: float, high: float, word: str
) -> None:
    assert table.reached(goal, table.Interval((low + high) / 2, low, high)) == word


def test_every_row_has_known_regions() -> None:
    assert {row.regions for row in ROWS.values()} == set(REGIONS)


def test_every_method_is_compared() -> None:
    compared = {name for names in COMPARED.values() for name in names}
    assert compared <= set(ROWS) and all(len(names) == len(set(names)) for names in COMPARED.values())
    alone = {name for name in ROWS if name.endswith((", host", ", random"))}
    assert set(ROWS) - compared == {"random", "host", *alone}


@pytest.fixture
def work(tmp_path: Path) -> cells.Work:
    return cells.Work(
        scenes=tmp_path / "scenes", out=tmp_path / "out", budget=BUDGETS["study"], threads=1, end=math.inf
    )


def _complete(work: cells.Work, row: str, seed: int) -> Path:
    """A cell with all its figures, without a training."""
    folder = cells._folder(work, row, seed)
    cells._claim(work, row, folder)
    for own in cells._measurements(work, seed):
        own.result(folder).parent.mkdir()
        own.result(folder).write_text(json.dumps(dict.fromkeys(own.figures.values(), 0.5)))
    return folder


@pytest.mark.parametrize("name", ["test_resnet", "resnet50"])
def test_blurred_networks_have_the_plain_ones_weights_and_maps_and_see_a_pixel_less(name: str) -> None:
    plain, blurred = create_backbone(name, seed=0).eval(), create_backbone(BLURRED + name, seed=1).eval()
    blurred.net.load_state_dict(plain.net.state_dict())
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 24:40, 24:40] = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = torch.cat([image.roll((way, way), (2, 3)) for way in range(8)])
    with torch.no_grad():
        maps = {own: backbone.maps(moved) for own, backbone in (("plain", plain), ("blurred", blurred))}
        assert [own.shape for own in maps["plain"]] == [own.shape for own in maps["blurred"]]
        empty = {"plain": plain.maps(image * 0), "blurred": blurred.maps(image * 0)}
    change = {}
    for own, found in maps.items():
        answer = (found[2] - empty[own][2]).mean(dim=(2, 3))  # to the object, wherever it lies; stride 8
        change[own] = ((answer - answer.mean(0)).norm(dim=1).mean() / answer.mean(0).norm()).item()
    assert change["blurred"] < 0.5 * change["plain"], change


def test_rows_of_blurred_networks_are_trained_and_measured_by_their_commands(
    work: cells.Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(cells, "_call", lambda work, log, *words: called.append(words))
    for row in ("blur before strides, random", "blur before strides, host", "host"):
        cells.run_cell(work, row, 0)
    random = [words for words in called if "timm:blurred_test_resnet:random:0" in words]
    trained = [words for words in called if words[1] == "pretrain"]
    assert len(random) == len(cells._measurements(work, 0)) == len({words[1:3] + words[-1:] for words in random})
    assert [words[0] for words in trained] == ["benchmarks.scenes_table.blurred", "d3ssl"]
    assert ["blurred_test_resnet" in words for words in trained] == [True, False]
    assert {words[0] for words in called if any("-host-0" in word for word in words) or words in random} == {
        "benchmarks.scenes_table.blurred"
    }


def test_all_figures_are_gathered_whichever_call_made_them(work: cells.Work) -> None:
    for seed in (0, 2):
        folder = _complete(work, "random", seed)
    found = gather(work)
    assert found.keys() == {"random"} and found["random"].keys() == {0, 2}
    assert cells.is_complete(work, found["random"][2])
    (folder / "objects" / "metrics.json").unlink()
    found = gather(work)["random"]
    assert "o_knn" in found[0].figures and "o_knn" not in found[2].figures
    assert found[2].figures["context_sensitivity"] == 0.5
    assert cells.is_complete(work, found[0]) and not cells.is_complete(work, found[2])
    folder.rename(folder.with_name("random-old"))  # what people put aside
    assert gather(work)["random"].keys() == {0}


def test_curves_are_of_the_trainings_that_logged_all_of_it(work: cells.Work, tmp_path: Path) -> None:
    logged = [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0, "position": 0.5}, {"step": 30, "position": None}]
    for (row, seed), lines in {("host", 0): logged, ("host", 1): logged[:1], ("D3SSL", 1): logged}.items():
        run = cells._folder(work, row, seed) / "run"
        run.mkdir(parents=True)
        (run / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    measured = cells.Measured(figures={}, commit="", machine="")
    shown = {row: dict.fromkeys(range(3), measured) for row in ("random", "host", "D3SSL")}
    curves = record.gather_curves(work, shown, ("loss", "position"))
    assert curves == {"host": [logged], "D3SSL": [logged]}
    table.plot_curves(curves, tmp_path / "curves.png", ("loss", "position"))
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 300


def test_a_table_seed_by_seed_is_read_back_and_one_made_otherwise_is_refused(
    work: cells.Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = {"budget": "study", "scenes": {"seed": 2}}
    for seed in (0, 10):
        _complete(work, "random", seed)
    file, found = tmp_path / "figures.json", gather(work)
    record.write(file, claim, work, found)
    assert record.read(file, claim, work, ["random", "host"]) == found
    assert record.read(file, claim, work, ["host"]) == {}
    for other in (claim | {"budget": "cpu"}, claim | {"scenes": {"seed": 3}}, claim | {"unseen": {}}):
        with pytest.raises(InputError, match=r"figures\.json.*of another budget or of other scenes"):
            record.read(file, other, work, ["random"])
    monkeypatch.setattr(cells, "_network", lambda *_: "resnet50")
    with pytest.raises(InputError, match=r"figures\.json.*'random' of another recipe"):
        record.read(file, claim, work, ["random"])
    for text in ("[]", '{"rows": {}}', '{"table": {}, "rows": {"random": {"seeds": {"a": {}}}}}'):
        file.write_text(text)
        with pytest.raises(InputError, match="not a table seed by seed"):
            record.read(file, claim, work, ["random"])


def test_a_cell_of_another_recipe_is_refused(work: cells.Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _complete(work, "random", 0)
    folder = cells._folder(work, "D3SSL", 0)
    cells._claim(work, "D3SSL", folder)
    cells._claim(work, "D3SSL", folder)  # the same again
    recipe = cells.read_recipe(work.budget.recipe)
    monkeypatch.setattr(cells, "read_recipe", lambda _: "# other words\n" + recipe)
    cells._claim(work, "D3SSL", folder)
    monkeypatch.setattr(cells, "read_recipe", lambda _: recipe.replace("lr: 4.5e-3", "lr: 3.0e-3"))
    with pytest.raises(cells.CellFailed, match="made by another recipe"):
        cells.run_cell(work, "D3SSL", 0)
    with pytest.raises(cells.CellFailed, match="made by another recipe"):
        cells._claim(replace(work, budget=replace(work.budget, steps=7)), "D3SSL", folder)
    assert gather(work).keys() == {"random"}  # which no recipe trains


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table") / "scenes"
    make_scenes(folder, ScenesConfig(images=40, val_images=20, size=96, num_classes=4, themes=2, workers=1))
    return folder


def test_a_signal_ends_the_cells_and_leaves_no_process_behind(scenes: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.scenes_table", str(scenes), "--out", str(tmp_path / "out")]
    words += ["--budget", "smoke", "--rows", "random", "host", "--seeds", "2"]
    log = tmp_path / "out" / "cells" / "random-0" / "objects.log"
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(1200):
            if log.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        message = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 3, message
    assert "not finished: random, seed 0; host, seed 0; random, seed 1; host, seed 1" in message
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            assert str(tmp_path / "out") not in command.read_text(errors="replace")


@pytest.mark.slow
def test_the_command_in_small(scenes: Path, tmp_path: Path) -> None:
    """Three rows through all stages; the second call computes nothing, and adds no block to the document."""
    unseen = tmp_path / "unseen"
    make_scenes(unseen, ScenesConfig(images=1, val_images=20, size=96, num_classes=4, themes=2, seed=5, workers=1))
    shutil.rmtree(unseen / "train")
    document = tmp_path / "docs" / "results.md"
    words = [sys.executable, "-m", "benchmarks.scenes_table", str(scenes), "--out", str(tmp_path / "out")]
    words += ["--budget", "smoke", "--rows", "host", "D3SSL", "--seeds", "1"]
    words += ["--write", str(document), "--unseen", str(unseen)]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "train is not that of" in call().stderr
    shutil.copytree(scenes / "train", unseen / "train")
    first = call("--minutes", "0")
    assert first.returncode == 1 and "run the same command again" in first.stderr
    assert not list(tmp_path.glob("out/cells/*/run"))
    second = call()
    assert second.returncode == 0, second.stderr
    rows = json.loads((tmp_path / "out" / "figures.json").read_text())["rows"]
    assert list(rows) == ["host", "D3SSL"]
    for row in rows.values():
        own = row["seeds"]["0"]["figures"]
        assert 0 <= own["o_knn"] <= 1 and own["context_sensitivity"] > 0
        assert 0 <= own["box_ap"] <= 1 and 0 <= own["linear_miou_shuffled"] <= 1
        assert own["images_per_s"] > 0
        assert 0 < own["position_sensitivity_strides"] != own["position_sensitivity"]
        assert own["o_knn_shuffled_unseen"] != own["o_knn_shuffled"]  # other scenes
    written = document.read_text()
    assert "| host | 1 |" in written and "| context sensitivity | -60% |" in written
    with Image.open(document.parent / "images" / "scenes_table.png") as image:
        assert image.width > 300
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*") if path.is_file()}
    assert call().returncode == 0
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert document.read_text() == written
    beside = document.parent / "figures" / "scenes_table.json"
    assert str(tmp_path) not in beside.read_text()  # it is published
    elsewhere = call("--known", str(beside), "--out", str(tmp_path / "other"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert not (tmp_path / "other" / "cells").exists()
    assert document.read_text().replace(f" --out {tmp_path / 'other'}", "") == written  # --known says nothing of them
    (tmp_path / "out" / "cells" / "host-0" / "objects" / "metrics.json").unlink()
    (tmp_path / "out" / "cells" / "host-0" / "run" / "backbone.safetensors").unlink()  # so that it cannot be measured
    failed = call()
    assert failed.returncode == 1 and "host, seed 0: d3ssl evaluate ended with" in failed.stderr
    assert "**Not finished:** host, seed 0." in document.read_text() and "| D3SSL | 1 |" in document.read_text()
    other = call("--budget", "cpu")
    assert other.returncode == 1 and "another budget" in other.stderr
