"""Rows × seeds: what is kept, when it is measured again, and what intervals say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3ssl.errors import InputError
from d3ssl.evaluate.cache import weights_digest
from d3ssl.evaluate.compare import Row, compare, make_rows
from d3ssl.evaluate.report import losses, verdict
from d3ssl.evaluate.task import Measure, Measured
from d3ssl.models import Backbone, create_backbone, save_backbone


class Weight:
    """A task whose figure is known: the mean weight of the first layer, plus the seed."""

    name = "weight"
    measures = (
        Measure(key="mean", title="mean", meaning="of the weights", percent=False),
        Measure(key="spread", title="spread", meaning="of the weights", percent=False, higher_is_better=False),
    )

    def __init__(self, options: str = "a") -> None:
        self.options, self.calls = options, 0
        self.captions = {"p.png": "a picture"}

    def fingerprint(self) -> str:
        return self.options

    def budget(self) -> str:
        return "one look"

    def measure(self, backbone: Backbone, seed: int, folder: Path) -> dict[str, Any]:
        self.calls += 1
        Image.new("RGB", (4, 4)).save(folder / "p.png")
        value = float(backbone.net.state_dict()["layer1.0.conv1.weight"].mean()) + seed
        return {"mean": value, "mean_low": value - 1, "mean_high": value + 1, "spread": 2.0, "extra": [1, 2]}


def rows(*names: str) -> list[Row]:
    return [
        Row(name=name, load=lambda seed, n=name: create_backbone("test_resnet", seed=len(n) + seed)) for name in names
    ]


def test_one_seed_keeps_the_interval_of_the_images(tmp_path: Path) -> None:
    found = compare(Weight(), rows("a"), 1, tmp_path)
    assert found["mean_low"] == pytest.approx(found["mean"] - 1)
    assert found["extra"] == [1, 2] and "spread_low" not in found
    assert found == json.loads((tmp_path / "metrics.json").read_text())


def test_several_seeds_add_students_interval_to_that_of_the_images(tmp_path: Path) -> None:
    found = compare(Weight(), rows("a", "bb"), 3, None)
    values = [cell["mean"] for cell in found["cells"]["a"]]
    mean = sum(values) / 3
    half = 4.302652729911275 * math.sqrt(sum((v - mean) ** 2 for v in values) / 2) / math.sqrt(3)
    assert found["mean"] == pytest.approx(mean)
    assert found["mean_low"] == pytest.approx(mean - math.hypot(half, 1.0))  # the images' own interval is ± 1
    assert found["spread_low"] == found["spread_high"] == 2.0  # nothing is known of the images
    assert set(found["rows"]) == {"a", "bb"} and "extra" not in found


def test_cells_are_kept_until_weights_options_or_seed_change(tmp_path: Path) -> None:
    first, again, other = Weight(), Weight(), Weight("b")
    compare(first, rows("a", "bb"), 2, tmp_path)
    assert first.calls == 4
    compare(again, rows("a", "bb", "ccc"), 2, tmp_path)
    assert again.calls == 2
    compare(other, rows("a"), 2, tmp_path)
    assert other.calls == 2
    moved = [Row(name="a", load=lambda seed: create_backbone("test_resnet", seed=99))]
    last = Weight("b")
    compare(last, moved, 2, tmp_path)
    assert last.calls == 2


@pytest.mark.parametrize("content", ['{"fingerprint": "', "[]", "null", '{"metrics": {}}', "\\xff", None])
def test_a_damaged_cell_is_measured_again(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture) -> None:
    whole = compare(Weight(), rows("a"), 1, tmp_path)
    (path,) = tmp_path.glob("cells/*/*/cell.json")
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"metrics": None}) if content is None else content)
    task = Weight()
    assert compare(task, rows("a"), 1, tmp_path)["mean"] == whole["mean"]
    assert task.calls == 1
    assert json.loads(path.read_text()) == kept


def test_a_cell_that_was_broken_off_is_measured_again(tmp_path: Path) -> None:
    class Failing(Weight):
        def measure(self, backbone: Backbone, seed: int, folder: Path) -> dict[str, Any]:
            found = super().measure(backbone, seed, folder)
            if seed == 1:
                raise RuntimeError("stopped")
            return found

    with pytest.raises(RuntimeError, match="stopped"):
        compare(Failing(), rows("a"), 2, tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    task = Weight()
    compare(task, rows("a"), 2, tmp_path)
    assert task.calls == 1


def test_the_page_is_self_contained_and_has_every_row(tmp_path: Path) -> None:
    compare(Weight(), rows("a", "<b>"), 1, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;" in text and "<b>" not in text and "http" not in text
    assert text.count("<img") == 3 and "one look" in text


def test_verdict_knows_what_is_better_and_what_may_be_chance() -> None:
    def row(name: str, value: float) -> Measured:
        return Measured(name=name, cells=[{"mean": value, "mean_low": value - 1, "mean_high": value + 1}])

    assert "better than x" in verdict(Weight(), [row("us", 9.0), row("x", 1.0)])[1]
    assert "do not touch" in verdict(Weight(), [row("us", 9.0), row("x", 1.0)])[1]
    assert "no better than x" in verdict(Weight(), [row("us", 0.0), row("x", 1.0)])[1]
    assert "overlap" in verdict(Weight(), [row("us", 1.5), row("x", 1.0)])[1]


def test_losses_are_sentences_with_all_rows() -> None:
    class Losing(Weight):
        gap = Measure(key="gap", title="gap", meaning="lost", loss_when="when all changes")
        measures = (*Weight.measures, gap, Measure(key="absent", title="other", meaning="lost", loss_when="never"))

    found = [
        Measured(name="a", cells=[{"gap": 0.21, "gap_low": 0.18, "gap_high": 0.24}]),
        Measured(name="b", cells=[{"gap": 0.06}]),
    ]
    assert losses(Losing(), found) == ["When all changes, a loses 21.0 [18.0, 24.0] points; b 6.0."]


def test_random_is_the_same_network_read_alike(tmp_path: Path) -> None:
    backbone = create_backbone("test_resnet", seed=5)
    backbone.region_path, backbone.roi_size = "c3", 5
    save_backbone(tmp_path, backbone, {"input_size": 64, "mean": [0.1, 0.2, 0.3]})
    trained, random = make_rows(str(tmp_path), ["random"], {})
    one, two = random.load(0), random.load(1)
    assert (one.timm_name, one.region_path, one.roi_size) == ("test_resnet", "c3", 5)
    assert one.input_size == 64 and one.mean == (0.1, 0.2, 0.3)
    assert weights_digest(one) != weights_digest(two)
    assert weights_digest(trained.load(0)) == weights_digest(trained.load(1))


def test_baselines_are_tried_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        make_rows("timm:test_resnet", [str(tmp_path / "missing")], {})
    with pytest.raises(InputError, match="named twice"):
        make_rows("timm:test_resnet", ["timm:test_resnet"], {})
    with pytest.raises(InputError, match="spec"):
        make_rows(create_backbone("test_resnet"), ["random"], {})
    with pytest.raises(InputError, match="seeds"):
        compare(Weight(), rows("a"), 0, tmp_path)


def test_weights_digest_sees_every_weight_and_the_reading() -> None:
    backbone = create_backbone("test_resnet", seed=0)
    before = weights_digest(backbone)
    with torch.no_grad():
        backbone.net.get_parameter("layer1.0.conv1.weight")[1, 2, 0, 1] += 1e-3
    changed = weights_digest(backbone)
    backbone.roi_size = 3
    assert len({before, changed, weights_digest(backbone)}) == 3
