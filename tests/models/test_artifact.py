"""Backbones on disk: into plain timm, back into d3ssl, and every way in which a spec can be wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from d3ssl.errors import CheckpointError, D3sslError, InputError
from d3ssl.models import load_backbone, save_backbone
from d3ssl.models.backbone import create_backbone


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder."""
    backbone = create_backbone("test_resnet")
    backbone.roi_size = 4
    save_backbone(tmp_path / "run", backbone, {"input_size": 64, "steps": 3})
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name",
    ["resnet18", "test_resnet", "test_vit", "vit_tiny_patch16_224", "efficientnet_lite0", "convnext_atto"],
)
@pytest.mark.parametrize("channels", [3, 4])
def test_weights_load_into_plain_timm(name: str, channels: int, tmp_path: Path) -> None:
    backbone = create_backbone(name, in_channels=channels, seed=5).eval()
    save_backbone(tmp_path, backbone, {})
    state = safetensors.torch.load_file(tmp_path / "backbone.safetensors")
    plain = timm.create_model(name, num_classes=0, in_chans=channels).eval()
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert (missing, unexpected) == ([], [])
    side = backbone.input_size
    images = torch.randn(1, channels, side, side)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), backbone.net(images), atol=1e-5, rtol=1e-4)


def test_round_trip(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["steps"] == 3
    for spec in (run, str(run), run / "backbone.safetensors"):
        backbone = load_backbone(spec)
        assert (backbone.timm_name, backbone.input_size, backbone.training) == ("test_resnet", 64, False)
        assert (backbone.region_path, backbone.roi_size) == ("c4", 4)
    images, boxes = torch.randn(1, 3, 64, 64), [torch.tensor([[3.0, 3, 40, 50]])]
    again = tuple(load_backbone(run).pool(images, boxes) for _ in range(2))
    assert torch.equal(*again)
    changed = load_backbone(run, region_path="map", roi_size=3)
    assert (changed.region_path, changed.roi_size) == ("map", 3)
    assert not torch.equal(changed.pool(images, boxes), again[0])


def test_mean_and_channels_come_from_the_manifest(tmp_path: Path) -> None:
    backbone = create_backbone("test_resnet", in_channels=5)
    backbone.mean = (0.1, 0.2, 0.3, 0.4, 0.5)
    save_backbone(tmp_path, backbone, {})
    loaded = load_backbone(tmp_path, in_channels=3)
    assert (loaded.in_channels, loaded.mean) == (5, backbone.mean)


def test_untrained_layers_are_named(tmp_path: Path) -> None:
    save_backbone(tmp_path, create_backbone("efficientnet_lite0"), {})
    untrained = json.loads((tmp_path / "manifest.json").read_text())["untrained"]
    assert untrained == ["conv_head.weight", "bn2.weight", "bn2.bias"]


def test_random_weights_depend_on_the_seed_only() -> None:
    def weight(spec: str) -> torch.Tensor:
        return load_backbone(spec).net.state_dict()["layer4.0.conv1.weight"]

    torch.manual_seed(1)
    first = weight("timm:test_resnet")
    torch.manual_seed(2)
    assert torch.equal(first, weight("timm:test_resnet"))
    assert torch.equal(first, weight("timm:test_resnet:random"))
    assert torch.equal(first, weight("timm:test_resnet:random:0"))
    assert not torch.equal(first, weight("timm:test_resnet:random:1"))
    assert load_backbone("timm:test_resnet", in_channels=2).in_channels == 2


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("classes", [0, 10])
def test_weights_of_another_origin(wrap: str | None, classes: int, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=classes).state_dict()
    torch.save({wrap: {f"module.{key}": value for key, value in state.items()}} if wrap else state, tmp_path / "w.pth")
    safetensors.torch.save_file(dict(state), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        loaded = load_backbone(f"timm:test_resnet:{tmp_path / name}").net.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_only_pretrained_asks_for_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    create = timm.create_model

    def watch(name: str, pretrained: bool, **options: Any) -> torch.nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", watch)
    load_backbone("timm:test_resnet")
    assert not any(asked)
    asked.clear()
    load_backbone("timm:test_resnet:pretrained")
    assert any(asked)


def fails(spec: str | Path, kind: type[D3sslError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        load_backbone(spec)
    assert caught.value.remedy


def test_specs_that_name_nothing(tmp_path: Path) -> None:
    fails(tmp_path / "absent", InputError, "no such file or folder")
    fails("resnet18", InputError, r"(.|\n)*write timm:resnet18")
    fails("timm:resnet_18", InputError, r"unknown timm network 'resnet_18'(.|\n)*did you mean")
    fails("timm:test_resnet:absent.pth", InputError, r"absent.pth: no such file(.|\n)*timm:test_resnet:pretrained")
    fails("timm:test_resnet:random:x", InputError, "'x' is not a whole number")
    fails(tmp_path, InputError, "is not a run of d3ssl")
    with pytest.raises(InputError, match="region path c4"):
        load_backbone("timm:test_vit", region_path="c4")


def test_run_that_has_not_finished(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: x")
    fails(tmp_path, InputError, r"has not finished(.|\n)*--resume")
    (tmp_path / "backbone.safetensors").write_bytes(b"")  # killed between the two files
    fails(tmp_path, InputError, r"has not finished(.|\n)*--resume")


def test_file_without_manifest(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "backbone.safetensors", tmp_path / "alone.safetensors")
    fails(tmp_path / "alone.safetensors", InputError, r"no manifest.json(.|\n)*timm:NAME:.*alone.safetensors")
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    fails(tmp_path / "checkpoint.pt", InputError, "is not a backbone of d3ssl")


def test_damaged_and_exchanged_files(run: Path) -> None:
    weights, manifest = run / "backbone.safetensors", run / "manifest.json"
    whole, text = weights.read_bytes(), manifest.read_text()
    weights.write_bytes(whole[:-100])
    fails(run, CheckpointError, "does not belong to the manifest.json beside it, or is damaged")
    weights.write_bytes(whole)
    manifest.write_text(text[:40])
    fails(run, InputError, "is not valid JSON")
    manifest.write_text("[]")
    fails(run, CheckpointError, "lacks or misstates timm_name")
    for key, value, message in (
        ("roi_size", None, "lacks or misstates roi_size"),
        ("timm_name", "resnet999", "unknown timm network 'resnet999'"),
        ("timm_name", "test_resnet2", "unknown timm network"),
        ("timm_name", "resnet10t", r"does not fit timm's 'resnet10t' of 3 channels: 6 unexpected keys \(.*, …\); "),
        ("region_path", "fpn", "lacks or misstates region_path"),
        ("in_channels", 4, "lacks or misstates in_channels, mean or std"),
        *(("in_channels", value, "lacks or misstates in_channels") for value in (10**9, -3, 0, True, 3.0)),
        *(("input_size", value, "lacks or misstates input_size") for value in (10**9, -1)),
        *(("roi_size", value, "lacks or misstates roi_size") for value in (10**6, 0)),
        ("mean", [0.5, float("inf"), 0.5], "lacks or misstates mean"),
        ("mean", [[0.5], 0.5, 0.5], "lacks or misstates mean"),
        ("std", [0.5, 0.0, 0.5], "lacks or misstates std"),
        ("std", [0.5, 0.5], "lacks or misstates in_channels, mean or std"),
        ("region_path", [], "lacks or misstates region_path"),
        ("library", [], "lacks or misstates library"),
        ("library", "torch", "lacks or misstates library"),
    ):
        manifest.write_text(json.dumps(json.loads(text) | {key: value}))
        fails(run, D3sslError, message)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    for name, content in (("a.safetensors", b"nothing"), ("a.pth", b"nothing"), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(content)
        fails(f"timm:test_resnet:{tmp_path / name}", CheckpointError, "holds no weights that can be read")
    torch.save({"optimizer": {"lr": 0.1}}, tmp_path / "b.pth")
    fails(f"timm:test_resnet:{tmp_path / 'b.pth'}", CheckpointError, "is not a file of weights")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "c.pth")  # a pickled object: never executed
    fails(f"timm:test_resnet:{tmp_path / 'c.pth'}", CheckpointError, "holds no weights that can be read")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "d.pth")
    fails(f"timm:test_resnet:{tmp_path / 'd.pth'}", CheckpointError, r"\d+ keys missing")
