"""Calls from Python with something else than is wanted say what is wrong, instead of failing somewhere inside."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from d3ssl.console import Ticker
from d3ssl.diagnose import DiagnoseConfig, build_probes, diagnose_backbone, pictures, sensitivity
from d3ssl.diagnose.cutouts import procedural_images
from d3ssl.diagnose.past import modules_of
from d3ssl.diagnose.pictures import draw_pictures
from d3ssl.diagnose.words import advice
from d3ssl.errors import InputError
from d3ssl.evaluate import compare, object_knn
from d3ssl.models import create_backbone, load_backbone, save_backbone
from d3ssl.page import plot_png
from tests.diagnose.test_report import row

CONFIG = DiagnoseConfig(
    size=48, objects=10, seeds=1, contexts=3, draws=100, neighbour_classes=2, gradient_objects=2, blocks=1
)


class Own(nn.Module):
    """A network of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, stride=4, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


def plain(function):
    """Without the checks of shapes that hold in tests only."""
    return inspect.unwrap(function)


@pytest.mark.parametrize("shape", [(6, 4), (6,), (2, 3, 4, 5)])
def test_sensitivity_of_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"where \(objects, conditions, D\) is wanted"):
        plain(sensitivity)(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["cat", "dog", "cat"]), "labels for k-NN are texts, not integers"),
        (["cat", "dog", "cat"], "texts"),
        (np.array([0.0, 1.0, 0.0]), "of the type float64"),
        (np.array([0, 1]), "3 training objects with 2 labels"),
    ],
)
def test_labels_of_knn(labels: object, message: str) -> None:
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match=message):
        plain(object_knn)(x, labels, x, k=1)
    assert object_knn(x, np.array([4, 5, 6]), x, k=1).tolist() == [4, 5, 6]


@pytest.mark.slow
def test_a_module_of_ones_own_is_diagnosed_or_says_what_is_lacking() -> None:
    found = diagnose_backbone(load_backbone(Own(), maps=lambda net, images: [net(images)]), config=CONFIG)
    assert found["backbone"] == "Own" and found["trained_with"] == []
    assert diagnose_backbone(create_backbone("test_resnet").net, config=CONFIG)["receptive_leakage"] > 0
    for call, given, message in (
        (diagnose_backbone, Own(), "does not know how to read feature maps from a Own(.|\n)*maps="),
        (load_backbone, Own, "the class Own is no backbone(.|\n)*an instance"),
        (load_backbone, 7, "a int is no backbone"),
        (diagnose_backbone, [], "no backbone to diagnose"),
    ):
        with pytest.raises(InputError, match=message):
            plain(call)(given, **({"config": CONFIG} if call is diagnose_backbone else {}))
    with pytest.raises(InputError, match=r"carry no gradient(.|\n)*gradient_objects=0"):
        diagnose_backbone(load_backbone(Own(), maps=lambda net, images: [net(images).detach()]), config=CONFIG)
    with pytest.raises(InputError, match=r"5 channels(.|\n)*say in_channels="):
        load_backbone(nn.Conv2d(5, 8, 4, 4), maps=lambda net, images: [net(images)])


def test_a_bar_ends_at_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    tickers: list[Ticker] = []

    class Watched(Ticker):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            tickers.append(self)

    monkeypatch.setattr("d3ssl.console.Ticker", Watched)
    with procedural_images(0) as images:
        probes = build_probes(images, CONFIG, 0)
    draw_pictures(create_backbone("test_resnet").eval(), probes.first(4), CONFIG)
    (bar,) = [own for own in tickers if own.label == "pictures"]
    assert bar.done == bar.total > 0
    draw_pictures(create_backbone("test_resnet").eval(), probes.first(2), CONFIG)
    assert tickers[-1].done == tickers[-1].total and pictures._SHOWN > 2


def test_what_a_run_did_is_not_advised_again(tmp_path: Path) -> None:
    figures = row(0.8, 0.8)
    assert "--method.decouple" in " ".join(advice(figures)) and "--method.deposition" in " ".join(advice(figures))
    done = " ".join(advice(figures | {"trained_with": ["decouple", "deposition"]}))
    assert "--method" not in done and "already" in done
    one = " ".join(advice(figures | {"trained_with": ["decouple"]}))
    assert "--method.decouple" not in one and "--method.deposition" in one
    save_backbone(tmp_path, create_backbone("test_resnet"), {})
    assert modules_of(str(tmp_path)) == []
    (tmp_path / "config.yaml").write_text("method:\n  host: soco\n  decouple: true\n  deposition: false\n")
    assert modules_of(str(tmp_path)) == modules_of(str(tmp_path / "backbone.safetensors")) == ["decouple"]
    for other in ("a: [", "7", "method: soco"):
        (tmp_path / "config.yaml").write_text(other)
        assert modules_of(str(tmp_path)) == []
    assert modules_of("timm:resnet50") == []


def test_different_image_sizes_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_backbone(tmp_path, create_backbone("test_resnet"), {"input_size": 96})
    compare.make_rows(str(tmp_path), ["timm:test_resnet"], {})
    shown = " ".join(capsys.readouterr().err.split())
    assert "images of different sizes" in shown and "at 96 px" in shown and "--size" in shown
    compare.make_rows(str(tmp_path), ["timm:test_resnet"], {}, 128)
    compare.make_rows(str(tmp_path), ["random"], {})
    assert "different sizes" not in capsys.readouterr().err


def test_names_with_dollar_signs_are_drawn_as_they_are() -> None:
    """Between two dollar signs matplotlib expects a formula, and fails at one that is none."""
    plt = pytest.importorskip("matplotlib.pyplot")
    for name in ("$\\frac$", "a $ b", "$100$ bill_^", "\\$", "$$"):
        plot, (one, two) = plt.subplots(1, 2)
        one.barh([name, "plain"], [1, 2])
        one.set_title(name)
        two.plot([1, 1000], [1, 1000], label=name)
        two.set(xscale="log", xlabel=name)
        two.legend()
        assert plot_png(plot).startswith(b"\x89PNG")
