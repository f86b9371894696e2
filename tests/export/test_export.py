"""Exports are what the tools load: keys, shapes, maps; and what cannot be exported leaves nothing behind."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

import d3ssl
from d3ssl.cli.main import main
from d3ssl.errors import D3sslError, InputError
from d3ssl.export import TARGETS, export_backbone
from d3ssl.export.resnets import layers, resnet_named
from d3ssl.export.target import TOLERANCE, any_sizes, compare_maps
from d3ssl.models import save_backbone

FAMILIES = [
    "timm:test_resnet",
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:test_vit",
    "timm:mobilenetv3_small_050",
    "timm:regnety_002",
]


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Export, and check that maps were compared and that the file is all that was made."""

    def run(backbone: Any, to: str, *, in_channels: int = 3, ending: int = 0, measured: bool = True) -> Path:
        folder = tmp_path / "exported"
        out = folder / f"out{TARGETS[to].endings[ending]}"
        found = export_backbone(backbone, to, out, in_channels=in_channels)
        assert list(folder.iterdir()) == [out]
        assert (found.path, found.target) == (out, to)
        if measured:
            assert found.verified.difference is not None and found.verified.difference <= TOLERANCE
        else:
            assert found.verified.difference is None and "was not run" in found.verified.how
        return out

    return run


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("spec", FAMILIES)
def test_timm_loads_every_family(spec: str, channels: int, export: Callable[..., Path]) -> None:
    path = export(spec, "timm", in_channels=channels)
    net = timm.create_model(spec.removeprefix("timm:"), num_classes=0, in_chans=channels)
    net.load_state_dict(safetensors.torch.load_file(path), strict=True)


@pytest.mark.slow
def test_timm_loads_a_swin_at_its_own_size(export: Callable[..., Path]) -> None:
    export("timm:swin_tiny_patch4_window7_224", "timm", in_channels=1)


def test_a_resnet_goes_from_timm_to_torchvision_and_back(export: Callable[..., Path], tmp_path: Path) -> None:
    start = d3ssl.load_backbone("timm:resnet18")
    path = export(start, "torchvision", ending=1)
    own = torchvision.models.resnet18()
    own.fc = nn.Identity()  # type: ignore[assignment]
    own.load_state_dict(torch.load(path, weights_only=True), strict=True)
    back = d3ssl.load_backbone(f"torchvision:resnet18:{path}")
    export_backbone(back, "timm", tmp_path / "back.safetensors")
    for key, value in safetensors.torch.load_file(tmp_path / "back.safetensors").items():
        assert torch.equal(value, start.net.state_dict()[key])


def test_networks_of_torchvision_keep_their_keys(export: Callable[..., Path]) -> None:
    path = export("torchvision:mobilenet_v3_small", "torchvision")
    missing, unexpected = torchvision.models.mobilenet_v3_small().load_state_dict(
        safetensors.torch.load_file(path), strict=False
    )
    assert all(key.startswith("classifier.") for key in missing) and not unexpected


def test_a_detector_of_torchvision_takes_the_body(export: Callable[..., Path]) -> None:
    start = d3ssl.load_backbone("torchvision:resnet18")
    state = safetensors.torch.load_file(export(start, "torchvision-detector"))
    assert {key.removeprefix("backbone.body.") for key in state} == set(start.net.state_dict())
    assert all(key.startswith("backbone.body.") for key in state)


def test_a_run_and_its_file_are_exported_as_they_are(tmp_path: Path) -> None:
    backbone = d3ssl.load_backbone("timm:test_resnet:random:3", in_channels=4)
    save_backbone(tmp_path / "run", backbone, {})
    for number, spec in enumerate((tmp_path / "run", tmp_path / "run" / "backbone.safetensors")):
        out = tmp_path / f"{number}.safetensors"
        export_backbone(spec, "timm", out)
        for key, value in safetensors.torch.load_file(out).items():
            assert torch.equal(value, backbone.net.state_dict()[key])


def test_a_module_stays_as_it_is(export: Callable[..., Path]) -> None:
    net = timm.create_model("test_resnet", num_classes=5).train()
    path = export(net, "timm")
    assert net.training
    assert torch.equal(safetensors.torch.load_file(path)["conv1.0.weight"], net.state_dict()["conv1.0.weight"])


def test_a_training_backbone_stays_in_training_mode(export: Callable[..., Path]) -> None:
    backbone = d3ssl.load_backbone("timm:test_resnet").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    export(backbone, "timm")
    assert backbone.training and all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


# --- layouts without their tools -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet152", "resnext101_64x4d", "wide_resnet50_2"])
def test_the_layers_of_a_resnet_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    net = resnet_named(name)
    assert net is not None
    assert [layer.shape for layer in layers(net, 3)] == [tuple(own.shape) for own in state.values() if own.ndim == 4]
    assert resnet_named(f"{name}d") is None and resnet_named("convnext_tiny") is None


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("to", "outer", "keys"),
    [
        ("detectron2", "model", ("stem.conv1.weight", "stem.conv1.norm.bias", "res3.0.shortcut.norm.running_var")),
        ("mmdetection", "state_dict", ("backbone.conv1.weight", "backbone.layer2.0.downsample.1.running_var")),
    ],
)
def test_key_layouts(to: str, outer: str, keys: tuple[str, ...], channels: int, export: Callable[..., Path]) -> None:
    path = export("timm:resnet18", to, in_channels=channels, measured=False)
    state = torch.load(path, weights_only=True)[outer]
    assert set(keys) <= set(state)
    assert state[keys[0]].shape == (64, channels, 7, 7)


@pytest.mark.parametrize("to", ["detectron2", "mmdetection"])
def test_a_layout_with_a_wrong_key_is_refused(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__(f"d3ssl.export.targets.{to}", fromlist=["library_state"])
    whole = module.library_state
    monkeypatch.setattr(module, "library_state", lambda own: {"layer1.0.conv9.weight": torch.ones(1), **whole(own)})
    with pytest.raises(D3sslError, match="1 keys or shapes are not"):
        export_backbone("timm:resnet18", to, tmp_path / "out.pth")
    assert list(tmp_path.iterdir()) == []


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "options", "to", "out", "message"),
    [
        ("timm:test_resnet", {}, "tim", "a", r"there is no target 'tim'(.|\n)*did you mean 'timm'"),
        ("timm:test_resnet", {}, "timm", "a.pth", r"is no name for a file of target 'timm'(.|\n)*\.safetensors"),
        (
            "timm:test_vit",
            {},
            "torchvision",
            "a.pth",
            r"cannot hold this backbone: torchvision(.|\n)*can: timm, .*onnx",
        ),
        ("timm:resnet18", {"in_channels": 5}, "torchvision", "a.pth", r"3 channels, not 5(.|\n)*can: timm, hf, onnx"),
        ("torchvision:mobilenet_v3_small", {}, "timm", "a.safetensors", r"timm has no(.|\n)*can: torchvision, onnx"),
        ("timm:test_convnext", {}, "detectron2", "a.pth", r"takes plain ResNets"),
        ("timm:resnet18", {"push_to": "me/it"}, "timm", "a.safetensors", r"--push belongs to target 'hf'"),
        ("absent", {}, "timm", "a.safetensors", r"no such file or folder"),
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing(
    spec: str, options: dict[str, Any], to: str, out: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_backbone(spec, to, tmp_path / out, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_path_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        export_backbone("timm:test_resnet", "timm", tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_other_maps_fail_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("d3ssl.export.targets.timm", fromlist=["library_state"])
    whole = module.library_state
    monkeypatch.setattr(
        module, "library_state", lambda own: {k: v * 1.01 if v.ndim == 4 else v for k, v in whole(own).items()}
    )
    with pytest.raises(D3sslError, match=r"maps differ from the backbone's by .*more than 1e-04"):
        export_backbone("timm:test_resnet", "timm", tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_maps_that_are_nan_or_of_other_shapes_are_no_match() -> None:
    backbone = d3ssl.load_backbone("timm:test_resnet")
    with pytest.raises(D3sslError, match="differ"):
        compare_maps(lambda images: [own * torch.nan for own in backbone.maps(images)], backbone, any_sizes(backbone))
    with pytest.raises(D3sslError, match="shapes"):
        compare_maps(lambda images: [backbone.maps(images)[0]], backbone, any_sizes(backbone))
    with pytest.raises(D3sslError, match="shapes"):
        compare_maps(lambda images: [], backbone, any_sizes(backbone))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("d3ssl.export.targets.timm.write_state", fill)
    with pytest.raises(D3sslError, match="the disk is full"):
        export_backbone("timm:test_resnet", "timm", tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_is_not_installed_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(TARGETS["onnx"]), "packages", ("no_such_package",))
    with pytest.raises(InputError, match=r"needs no_such_package, which is not installed(.|\n)*d3ssl\[onnx\]"):
        export_backbone("timm:test_resnet", "onnx", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_was_verified_and_how_to_load_it(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    out = tmp_path / "a.safetensors"
    assert main(["export", "timm:test_resnet", "--to", "timm", "--out", str(out), "--channels", "1"]) == 0
    shown = capfd.readouterr().err
    assert "all maps compared" in shown and "largest difference" in shown
    assert 'timm.create_model("test_resnet", num_classes=0, in_chans=1)' in shown
    assert main(["export", "timm:test_resnet", "--to", "timm", "--out", str(out)]) == 2
    assert "is there already" in capfd.readouterr().err
