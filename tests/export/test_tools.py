"""Exports in the tools that are not dependencies; each test is skipped where its extra is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import huggingface_hub
import jaxtyping
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import d3ssl
from d3ssl.errors import D3sslError, InputError
from d3ssl.export import export_backbone
from d3ssl.export.target import TOLERANCE
from d3ssl.files import write_json, write_text
from d3ssl.models import save_backbone


def needs(*packages: str, extra: str) -> pytest.MarkDecorator:
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: pip install 'd3ssl[{extra}]'")


onnx = needs("onnx", "onnxscript", "onnxruntime", extra="onnx")
hf = needs("transformers", extra="hf")
GRAPHS = [
    ("timm:test_resnet", 1),
    pytest.param("timm:test_resnet", 4, marks=pytest.mark.slow),
    pytest.param("timm:test_vit", 1, marks=pytest.mark.slow),
    pytest.param("timm:test_vit", 4, marks=pytest.mark.slow),
]
MORE_GRAPHS = [
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:mobilenetv3_small_050",
    "timm:regnety_002",
    "torchvision:resnet18",
]


def export(spec: Any, to: str, out: Path, channels: int = 3, **options: Any) -> None:
    found = export_backbone(spec, to, out, in_channels=channels, **options)
    assert found.verified.difference is not None and found.verified.difference <= TOLERANCE


def check_graph(read: Any, spec: str, channels: int) -> None:
    """Batches and sizes that the export did not see."""
    backbone = d3ssl.load_backbone(spec, in_channels=channels)
    for shape in [(1, channels, 128, 64), (5, channels, 96, 96)]:
        images = torch.randn(*shape)
        with torch.no_grad():
            own = backbone.maps(images)
        for one, other in zip(own, read(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="needs ultralytics (AGPL-3.0): pip install ultralytics"
)


@pytest.fixture(autouse=True)
def symbolic_sizes_are_no_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export runs the code with sizes that stand for any number, which the checks of types refuse."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# --- graphs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "channels"), GRAPHS)
def test_torch_export_takes_any_batch_and_size(spec: str, channels: int, tmp_path: Path) -> None:
    export(spec, "torch-export", tmp_path / "a.pt2", channels)
    check_graph(torch.export.load(tmp_path / "a.pt2").module(), spec, channels)


@onnx
@pytest.mark.parametrize(("spec", "channels"), GRAPHS)
def test_onnx_takes_any_batch_and_size(spec: str, channels: int, tmp_path: Path) -> None:
    from d3ssl.export.targets.onnx import onnx_reader

    export(spec, "onnx", tmp_path / "a.onnx", channels)
    check_graph(onnx_reader(tmp_path / "a.onnx"), spec, channels)


@pytest.mark.slow
@pytest.mark.parametrize("spec", MORE_GRAPHS)
@pytest.mark.parametrize("to", ["torch-export", pytest.param("onnx", marks=onnx)])
def test_graphs_of_every_family(spec: str, to: str, tmp_path: Path) -> None:
    export(spec, to, tmp_path / ("a.onnx" if to == "onnx" else "a.pt2"))


@pytest.mark.slow
@onnx
def test_onnx_of_a_swin_says_that_it_takes_one_size(tmp_path: Path) -> None:
    found = export_backbone("timm:swin_tiny_patch4_window7_224", "onnx", tmp_path / "a.onnx")
    assert "(B, 3, 224, 224), of no other size" in found.loading


def test_a_module_from_python_goes_into_a_graph_and_nowhere_else(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    backbone = d3ssl.load_backbone(net, maps=lambda module, images: [module(images)])
    export(backbone, "torch-export", tmp_path / "a.pt2")
    with pytest.raises(InputError, match=r"cannot hold(.|\n)*targets that can: onnx, torch-export"):
        export_backbone(backbone, "timm", tmp_path / "a.safetensors")


def test_what_cannot_be_traced_is_one_error(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 8, 3, 2, 1)
    twice = lambda module, images: [module(images) * (2 if float(images.sum().item()) > 0 else 1)]  # noqa: E731
    backbone = d3ssl.load_backbone(net, maps=twice)
    with pytest.raises(D3sslError, match=r"torch.export cannot trace module:Conv2d"):
        export_backbone(backbone, "torch-export", tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


# --- Hugging Face --------------------------------------------------------------------------------------------------


@hf
@pytest.mark.parametrize(
    ("spec", "channels"),
    [("timm:test_resnet", 1), ("timm:test_efficientnet", 4), ("timm:test_vit", 1), ("torchvision:resnet18", 3)],
)
def test_a_folder_for_transformers_and_timm(spec: str, channels: int, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    export(spec, "hf", out, channels)
    own = d3ssl.load_backbone(spec, in_channels=channels)
    again = d3ssl.load_backbone(f"hf:{out}", in_channels=channels)
    assert all(torch.equal(value, again.net.state_dict()[key]) for key, value in own.net.state_dict().items())
    net = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in own.net.state_dict().items())


@hf
@pytest.mark.slow
@pytest.mark.parametrize("spec", ["timm:mobilenetv3_small_050", "timm:regnety_002", "timm:test_convnext"])
def test_folders_of_more_families(spec: str, tmp_path: Path) -> None:
    export(spec, "hf", tmp_path / "folder")


@hf
def test_the_image_processor_normalises_as_the_backbone_expects(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor  # pyright: ignore[reportMissingImports]

    backbone = d3ssl.load_backbone("timm:test_resnet")
    backbone.mean, backbone.std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    export(backbone, "hf", tmp_path / "folder")
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "folder")
    pixels = processor(Image.fromarray(np.full((200, 200, 3), 51, np.uint8)))["pixel_values"]
    assert pixels.shape == (1, 3, 160, 160)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([0.2, 0.0, -0.5]))


@hf
def test_the_card_has_what_the_run_knows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_backbone(run, d3ssl.load_backbone("timm:test_resnet"), {"data_digest": "abc123", "steps": 7})
    write_text(run / "config.yaml", "data: /secret/photos\nout: run\ntrain:\n  steps: 7\n")
    write_json(run / "metrics.json", {"strength": 0.25, "exported": {"context_sensitivity": 0.5}, "frontier": [1]})
    export(run, "hf", tmp_path / "folder", licence="cc-by-4.0")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\n") and "license: cc-by-4.0\n" in card
    for text in ("data digest: abc123", "steps: 7", "exported.context_sensitivity: 0.5", "AutoModel.from_pretrained"):
        assert text in card
    assert "secret" not in card and str(tmp_path) not in card
    export("timm:test_resnet", "hf", tmp_path / "other")
    assert "Not stated." in (tmp_path / "other" / "README.md").read_text()


class Hub:
    """The hub as the tests want it."""

    error: Exception | None = None

    def create_repo(self, name: str, exist_ok: bool) -> None:
        if self.error is not None:
            raise self.error

    def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str) -> Any:
        assert {own.name for own in folder_path.iterdir()} >= {"config.json", "model.safetensors", "README.md"}
        return type("Done", (), {"commit_url": f"address of {repo_id}"})


@hf
def test_a_folder_is_pushed_once_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    found = export_backbone("timm:test_resnet", "hf", tmp_path / "a", push_to="me/it")
    assert found.pushed == "address of me/it"
    monkeypatch.setattr(Hub, "error", ConnectionError("no route to host"))
    with pytest.raises(
        D3sslError, match=r"not pushed to me/it \(ConnectionError: no route(.|\n)*no file of it is there"
    ):
        export_backbone("timm:test_resnet", "hf", tmp_path / "b", push_to="me/it")
    assert (tmp_path / "b" / "model.safetensors").is_file()


@hf
@pytest.mark.parametrize(("name", "message"), [("me", "no name of a repository"), ("me/it", "needs a token")])
def test_pushing_is_refused_before_anything_is_written(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match=message):
        export_backbone("timm:test_resnet", "hf", tmp_path / "a", push_to=name)
    assert list(tmp_path.iterdir()) == []


# --- ultralytics ---------------------------------------------------------------------------------------------------


@ultralytics
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_yolo_has_the_maps_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    backbone = d3ssl.load_backbone("timm:resnet18")
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: another ε would show
            module.running_var.uniform_(0.001, 1.0)  # type: ignore[union-attr]
    export(backbone, "ultralytics", tmp_path / "yolo")
    from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
    from ultralytics.utils import DEFAULT_CFG  # pyright: ignore[reportMissingImports]

    opened: Any = YOLO(tmp_path / "yolo" / "yolo.pt")
    yolo = opened.model.train()
    for parameter in yolo.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    yolo.args = DEFAULT_CFG
    box = {"batch_idx": torch.tensor([0.0, 1.0]), "cls": torch.tensor([[3.0], [5.0]])}
    batch = box | {"img": torch.rand(2, 3, 64, 64), "bboxes": torch.tensor([[0.5, 0.5, 0.6, 0.4]] * 2)}
    loss = yolo(batch)[0].sum()
    loss.backward()
    assert torch.isfinite(loss) and float(yolo.model[1].m[0].weight.grad.abs().sum()) > 0
