"""The whole command: several backbones on the same probes, saved probes, and a page that stands by itself."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d3ssl.cli import diagnose as command
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.diagnose import DiagnoseConfig, diagnose_backbone
from d3ssl.diagnose.pictures import relative_distances
from d3ssl.diagnose.words import advice, short_names, verdict
from d3ssl.errors import InputError
from tests.browser import CHROMIUM, PHONE, show

CONFIG = DiagnoseConfig(
    size=48, objects=10, seeds=1, contexts=3, draws=100, neighbour_classes=2, gradient_objects=2, blocks=1
)
SPECS = ["timm:test_vit", "timm:test_vit:random:1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "scenes"
    make_scenes(folder, ScenesConfig(images=24, val_images=1, size=64, num_classes=4, themes=2, workers=1))
    return folder / "train"


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("both")
    diagnose_backbone(list(SPECS), data, out, CONFIG, save_to=out / "probes.npz")
    return out


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it_on_a_phone(both: Path, tmp_path: Path) -> None:
    shown = show(both / "report.html", tmp_path)
    assert shown.errors == [] and shown.wide == []
    assert shown.width <= PHONE and shown.text > 1000
    assert len(shown.images) >= 6 and min(shown.images) > 100
    assert "What to do about it" in shown.headings


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "diagnosis.json").read_text())


def test_all_rows_are_there_and_the_first_is_on_top(both: Path) -> None:
    found = read(both)
    assert list(found["rows"]) == SPECS and found["backbone"] == SPECS[0]
    for name, value in found["rows"][SPECS[0]].items():
        assert found[name] == value
    digests = {row["probe_digest"] for row in found["rows"].values()}
    assert len(digests) == 1
    one, two = found["rows"].values()
    assert one["context_sensitivity"] != two["context_sensitivity"]
    assert list(found["by_size"]) == ["0.2", "0.4"]
    assert found["by_size"]["0.4"]["context_sensitivity"] == found["context_sensitivity"]
    assert set(found["by_distance"]) == {"touching", "far"} and found["neighbour_chance"] == 0.5
    assert found["location_chance"] == pytest.approx(1 / 9)
    assert list(found["layers"]) == ["blocks.5"]


@pytest.mark.slow
def test_saved_probes_give_the_same_figures(both: Path, data: Path, tmp_path: Path) -> None:
    plain = DiagnoseConfig(draws=100, gradient_objects=2, blocks=1)
    again = diagnose_backbone(SPECS[1], None, tmp_path, plain, probes=both / "probes.npz")
    wanted = read(both)["rows"][SPECS[1]]
    assert {key: again[key] for key in wanted} == wanted
    assert again["data"] == str(data) and again["protocol"]["size"] == 48 and again["protocol"]["objects"] == 10
    with pytest.raises(InputError, match="objects = 10, not 11"):
        diagnose_backbone(SPECS[0], None, None, DiagnoseConfig(objects=11), probes=both / "probes.npz")
    with pytest.raises(InputError, match="one of --probes and --data"):
        diagnose_backbone(SPECS[0], data, None, plain, probes=both / "probes.npz")


def test_backbones_that_cannot_be_compared(data: Path) -> None:
    with pytest.raises(InputError, match="the same backbone twice"):
        diagnose_backbone([SPECS[0], SPECS[0]], data, None, CONFIG)
    with pytest.raises(InputError, match="no backbone"):
        diagnose_backbone([], data, None, CONFIG)
    with pytest.raises(InputError, match="takes only images of"):
        diagnose_backbone(["timm:test_vit", "timm:mixer_s32_224"], data, None, CONFIG)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[bytes] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            kind, _, content = str(values["src"]).partition(";base64,")
            assert kind == "data:image/png"
            self.pictures.append(base64.b64decode(content))
        self.outside += [str(value) for name, value in attrs if name in ("href", "srcset", "action")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_by_itself(both: Path) -> None:
    text = (both / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "http" not in re.sub(r"base64,[^\"]*", "", text)
    page = Page()
    page.feed(text)
    assert page.open == [] and page.outside == []
    assert len(page.pictures) == 2 * (1 + 4) + 1
    for picture in page.pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert image.width >= 300 and np.asarray(image.convert("L")).std() > 5
    shown, found = html.unescape(text), read(both)
    for line in verdict(found["rows"]):
        assert line in shown
    for row in found["rows"].values():
        value, low, high = (row[f"context_sensitivity{end}"] for end in ("", "_low", "_high"))
        assert f"{value:.2f} [{low:.2f}, {high:.2f}]" in shown
        for line in advice(row):
            assert line in shown


def row(context: float, place: float, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"layers": {}, "layers_by_mask": {}, "by_distance": {}, "by_size": {}, "by_padding": {}}
    for key, value in (("context_sensitivity", context), ("position_sensitivity", place)):
        found |= {key: value, f"{key}_low": value - 0.05, f"{key}_high": value + 0.05}
    return found | more


def test_the_verdict_says_what_the_figures_say() -> None:
    lines = verdict({"a": row(0.05, 0.8), "b": row(0.5, 0.78)})
    text = " ".join(lines)
    assert "a: an object's feature depends hardly on its surroundings" in text
    assert "moves it 80% as far" in text and "strongly" in text
    assert "b depends more on the surroundings than a (0.50 against 0.05; the intervals do not touch)" in text
    assert "b depends less on the place than a (0.78 against 0.80; the intervals overlap" in text
    assert "An object's feature depends markedly" in verdict({"b": row(0.5, 0.78)})[0]


def test_backbones_have_short_names_that_tell_them_apart() -> None:
    plain = ["timm:resnet50:pretrained", "timm:resnet50:random:1", "torchvision:resnet50"]
    assert short_names(plain) == {spec: spec for spec in plain}
    runs = ["/data/one/run", "/data/two/run", "host", "timm:resnet18:/models/here/weights.pth"]
    wanted = ["one/run", "two/run", "host", "timm:resnet18:here/weights.pth"]
    assert list(short_names(runs).values()) == wanted
    assert list(short_names(["/data/one/run", "timm:resnet18:a/b.pth"]).values()) == ["run", "timm:resnet18:b.pth"]
    assert short_names(["runs/a", "./runs/a"]) == {"runs/a": "runs/a", "./runs/a": "./runs/a"}


def test_what_can_be_read_is_said_only_where_the_interval_says_so() -> None:
    ends = {"neighbour_leakage_high": 0.4, "position_r2_high": 0.2}
    values = {"neighbour_leakage": 0.3, "neighbour_leakage_low": 0.2, "position_r2": 0.1, "position_r2_low": -0.1}
    text = " ".join(verdict({"a": row(0.1, 0.1, **values, **ends)}))
    assert "beside it can be read" in text and "30.0 % [20.0, 40.0]" in text
    assert "Its place in the image cannot reliably be read from it (position R² 0.10 [-0.10, 0.20])" in text
    assert "outside" not in text


def test_advice_follows_from_the_figures() -> None:
    assert advice(row(0.05, 0.05)) == ["No problem found: features depend little on surroundings and position."]
    coupled = " ".join(advice(row(0.8, 0.05, layers={"one": row(0.3, 0.1), "two": row(0.75, 0.1)})))
    assert "at one the context sensitivity is 0.30" in coupled and "decouple" in coupled
    assert "deposition" not in coupled and "mask" not in coupled
    masked = advice(row(0.8, 0.05, layers={"one": row(0.8, 0.1)}, layers_by_mask={"one": row(0.2, 0.1)}))
    assert any("0.20 by mask and 0.80 by box" in line for line in masked)
    placed = " ".join(advice(row(0.05, 0.9)))
    assert "deposition" in placed and "decouple" not in placed
    leaks = {name: {"neighbour_leakage": value} for name, value in (("touching", 0.8), ("far", 0.1))}
    assert any("that touch" in line for line in advice(row(0.05, 0.05, by_distance=leaks)))
    sizes = {"0.2": row(0.9, 0.1), "0.4": row(0.4, 0.1)}
    assert any("objects of 20%" in line for line in advice(row(0.4, 0.1, by_size=sizes)))


def test_distances_in_pictures_are_those_of_the_ratio() -> None:
    features = torch.randn(5, 4, 6)
    found = relative_distances(features, 1)
    phi = features.double() - features.double().mean(dim=(0, 1))
    phi = phi / phi.norm(dim=2, keepdim=True)
    others = [1 - float(phi[a, 1] @ phi[b, 1]) for a in range(5) for b in range(5) if a != b]
    for number in range(5):
        for condition in range(4):
            own = 1 - float(phi[number, condition] @ phi[number, 1])
            assert found[number, condition] == pytest.approx(own / np.mean(others), abs=1e-9)


def test_the_command_takes_several_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def keep(*args: Any, **options: Any) -> None:
        seen.update(args=args, options=options)

    monkeypatch.setattr(command, "diagnose_backbone", keep)
    words = ["--backbone", "a", "--backbone", "b", "--out", "o", "--save_probes", "p.npz"]
    command.run([*words, "--other_sides", "[0.1,0.3]", "--padding", "[circular,zeros]"])
    backbones, data, out, config = seen["args"]
    assert list(backbones) == ["a", "b"] and data is None and out == "o"
    assert seen["options"] == {"probes": None, "save_to": "p.npz"}
    assert tuple(config.other_sides) == (0.1, 0.3) and tuple(config.padding) == ("circular", "zeros")
    command.run(["--backbone", "a", "--out", "o"])
    assert list(seen["args"][0]) == ["a"] and seen["args"][3] == DiagnoseConfig()
