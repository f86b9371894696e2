"""Weights in, weights out: what loaded the original file loads the one that comes back, every key and bit in place."""

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from d3ssl.errors import InputError
from d3ssl.models import Backbone, create_backbone, load_backbone, save_like_source

FAMILIES = [
    "timm:test_resnet",
    "timm:convnext_atto",
    "timm:efficientnet_lite0",
    "timm:mobilenetv3_small_050",
    "timm:regnetx_002",
    "timm:test_vit",
    "timm:swin_tiny_patch4_window7_224",
    "torchvision:resnet18",
]

SMALL_SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}
"""No name in timm makes a Swin this small, so it is passed as a module."""


def library_net(spec: str) -> nn.Module:
    library, name = spec.split(":")
    make: Any = timm.create_model if library == "timm" else torchvision.models.get_model
    return make(name, num_classes=7, **(SMALL_SWIN if name.startswith("swin") else {}))


def library_maps(net: Any, images: Tensor) -> list[Tensor]:
    if not hasattr(net, "forward_intermediates"):  # torchvision's resnet
        stem = net.relu(net.bn1(net.conv1(images)))
        maps = [stem]
        value = net.maxpool(stem)
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            value = stage(value)
            maps.append(value)
        return maps
    is_vit = hasattr(net, "blocks") and hasattr(net, "pos_embed")
    options: dict[str, Any] = {"indices": 1, "norm": True} if is_vit else {}
    return net.forward_intermediates(images, intermediates_only=True, **options)


def change(backbone: nn.Module) -> None:
    with torch.no_grad():
        for value in backbone.parameters():
            value += 0.01 * torch.randn_like(value)


def read(path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=FAMILIES)
def test_a_changed_backbone_goes_back_into_its_library(number: int, tmp_path: Path) -> None:
    spec, suffix = FAMILIES[number], (".pth", ".safetensors")[number % 2]
    net = library_net(spec)
    before = copy.deepcopy(net.state_dict())
    start, end = tmp_path / f"start{suffix}", tmp_path / f"end{suffix}"
    if suffix == ".pth":
        torch.save(net.state_dict(), start)
    else:
        safetensors.torch.save_file(net.state_dict(), start, metadata={"format": "pt"})
    is_named = "swin" not in spec
    backbone = load_backbone(f"{spec}:{start}") if is_named else load_backbone(library_net(spec), weights=start)
    save_like_source(backbone, end)
    assert same(read(start), read(end))
    change(backbone)
    save_like_source(backbone, end)
    assert not same(read(start), read(end))
    again = library_net(spec)
    again.load_state_dict(read(end), strict=True)
    assert list(read(start)) == list(read(end))
    classifier = [key for key in before if key not in backbone.named_weights()]
    assert bool(classifier) == is_named and all(torch.equal(before[key], again.state_dict()[key]) for key in classifier)
    side = backbone.layout.fixed_size[0] if backbone.layout.fixed_size else backbone.input_size
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        for found, wanted in zip(backbone(images), library_maps(again.eval(), images), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.body."])
def test_wrapper_prefix_and_company_come_back(prefix: str, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    content = {f"{prefix}{key}": value for key, value in state.items()} | {"roi_head.weight": torch.ones(3)}
    whole = {"epoch": 3, "arch": "x", "state_dict": content, "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(whole, tmp_path / "start.pth")
    backbone = load_backbone(f"timm:test_resnet:{tmp_path / 'start.pth'}")
    assert (backbone.source.prefix, backbone.source.wrapper) == (prefix, ("state_dict",))
    change(backbone)
    save_like_source(backbone, tmp_path / "end.pth")
    found: Any = torch.load(tmp_path / "end.pth", weights_only=True)
    assert {key: found[key] for key in found if key != "state_dict"} == {"epoch": 3, "arch": "x"}
    found = found["state_dict"]
    assert list(found) == list(content)
    assert torch.equal(found["roi_head.weight"], torch.ones(3))
    own = backbone.net.state_dict()
    assert all(torch.equal(found[f"{prefix}{key}"], value) for key, value in own.items())


def test_torchs_version_numbers_come_back(tmp_path: Path) -> None:
    state: Any = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "start.pth")
    save_like_source(load_backbone(f"torchvision:resnet18:{tmp_path / 'start.pth'}"), tmp_path / "end.pth")
    found: Any = torch.load(tmp_path / "end.pth", weights_only=True)
    assert found._metadata == state._metadata


def test_safetensors_header_comes_back(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(state, tmp_path / "start.safetensors", metadata={"format": "pt", "by": "me"})
    backbone = load_backbone(f"timm:test_resnet:{tmp_path / 'start.safetensors'}")
    save_like_source(backbone, tmp_path / "end.safetensors")
    with safetensors.safe_open(tmp_path / "end.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "by": "me"}
    assert same(read(tmp_path / "start.safetensors"), read(tmp_path / "end.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_come_back(dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, end = tmp_path / "start.safetensors", tmp_path / "end.safetensors"
    safetensors.torch.save_file(timm.create_model("test_resnet").to(dtype).state_dict(), start)
    backbone = load_backbone(f"timm:test_resnet:{start}")
    told = "weights are used as float32, and saved as they came" in " ".join(capsys.readouterr().err.split())
    assert told == (dtype != torch.float64)
    assert {value.dtype for value in backbone.parameters()} == {torch.float32}
    save_like_source(backbone, end)
    assert same(read(start), read(end))
    change(backbone)
    save_like_source(backbone, end)
    assert read(end)["layer1.0.conv1.weight"].dtype == dtype
    own = backbone.named_weights()["layer1.0.conv1.weight"]
    assert torch.equal(read(end)["layer1.0.conv1.weight"], own.to(dtype))


def test_networks_that_came_from_no_file(tmp_path: Path) -> None:
    for backbone, classes in ((create_backbone("test_resnet"), 0), (load_backbone("torchvision:resnet18"), 1000)):
        for name in ("w.pth", "w.safetensors"):
            save_like_source(backbone, tmp_path / name)
            make: Any = timm.create_model if backbone.library == "timm" else torchvision.models.get_model
            make(backbone.timm_name, num_classes=classes).load_state_dict(read(tmp_path / name), strict=True)


def test_pretrained_weights_keep_their_classifier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create, made = timm.create_model, []

    def pretend(name: str, pretrained: bool, **options: Any) -> nn.Module:
        made.append(create(name, pretrained=False, **options))
        return made[-1]

    monkeypatch.setattr(timm, "create_model", pretend)
    backbone = load_backbone("timm:test_resnet:pretrained")
    save_like_source(backbone, tmp_path / "w.pth")
    whole = next(net for net in made if hasattr(net.fc, "weight"))
    assert same(read(tmp_path / "w.pth"), whole.state_dict())


def test_a_copy_shares_the_source() -> None:
    backbone = load_backbone("timm:test_resnet")
    assert copy.deepcopy(backbone).source is backbone.source


def test_the_ending_has_to_fit(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    backbone: Backbone = load_backbone(f"timm:test_resnet:{tmp_path / 'w.pth'}")
    with pytest.raises(InputError, match=r"came from a file of torch.save(.|\n)*end its name in .pth"):
        save_like_source(backbone, tmp_path / "w.safetensors")
