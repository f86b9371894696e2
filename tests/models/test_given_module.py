"""Modules from Python as backbones: on the module's own parameters, with maps from the library or from a function."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from d3ssl.errors import InputError
from d3ssl.models import Backbone, create_backbone, load_backbone, save_backbone, save_like_source


class Own(nn.Module):
    """A network of nobody's library."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.body = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1))
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(own_maps(self, images)[-1].mean((2, 3)))


def own_maps(module: Any, images: Tensor) -> list[Tensor]:
    stem = module.stem(images)
    return [stem, module.body(stem)]


def tensors(backbone: Backbone, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return backbone.maps(images)


def test_a_backbone_is_returned_as_it_is() -> None:
    backbone = create_backbone("test_resnet").train()
    assert load_backbone(backbone) is backbone
    assert backbone.training


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_network_of_timm(name: str, classes: int, tmp_path: Path) -> None:
    net = (
        timm.create_model(name, num_classes=classes, in_chans=4, dynamic_img_size=True)
        if name == "test_vit"
        else (timm.create_model(name, num_classes=classes, in_chans=4))
    )
    backbone = load_backbone(net)
    assert (backbone.architecture, backbone.in_channels, backbone.training) == (f"timm:{name}", 4, False)
    theirs = load_backbone(f"timm:{name}", in_channels=4)
    assert (backbone.channels, backbone.strides) == (theirs.channels, theirs.strides)
    images = torch.randn(2, 4, 64, 96)
    sum(found.sum() for found in backbone.maps(images)).backward()  # type: ignore[union-attr]
    used = [key for key, value in net.named_parameters() if value.grad is not None]
    assert used == [key for key, _ in net.named_parameters() if key not in backbone.unused_parameters]
    save_like_source(backbone, tmp_path / "w.pth")
    timm.create_model(name, num_classes=classes, in_chans=4).load_state_dict(
        torch.load(tmp_path / "w.pth", weights_only=True), strict=True
    )
    save_backbone(tmp_path / "run", backbone, {})
    again = load_backbone(tmp_path / "run")
    assert torch.equal(tensors(again, images)[-1], tensors(backbone, images)[-1])


def test_training_the_backbone_trains_the_module() -> None:
    for net in (timm.create_model("test_resnet"), torchvision.models.resnet18(num_classes=3), Own()):
        backbone = load_backbone(net, maps=own_maps if isinstance(net, Own) else None)
        before = copy.deepcopy(net.state_dict())
        assert {id(value) for value in backbone.parameters()} <= {id(value) for value in net.parameters()}
        optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
        backbone.train().maps(torch.randn(2, 3, 64, 64))[-1].square().sum().backward()
        optimizer.step()
        changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
        assert any("running_mean" in key for key in changed) and any(key.endswith("weight") for key in changed)
        assert not any(key.startswith(("fc.", "head.")) for key in changed)


def test_a_network_of_torchvision(tmp_path: Path) -> None:
    net = torchvision.models.resnet18(num_classes=3)
    backbone = load_backbone(net)
    assert (backbone.architecture, backbone.training) == ("torchvision:resnet18", False)
    named = load_backbone("torchvision:resnet18")
    assert (backbone.mean, backbone.input_size, backbone.strides) == (named.mean, named.input_size, named.strides)
    save_like_source(backbone, tmp_path / "w.pth")
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    assert list(state) == list(net.state_dict())
    torchvision.models.resnet18(num_classes=3).load_state_dict(state, strict=True)


def test_a_network_that_its_name_does_not_make_is_a_module(tmp_path: Path) -> None:
    changed = timm.create_model("test_resnet", act_layer=nn.LeakyReLU)
    odd = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    for net, name in ((changed, "test_resnet"), (odd, "ResNet")):
        backbone = load_backbone(net)
        assert (backbone.library, backbone.timm_name) == ("module", name)


def test_any_other_module_with_a_function(tmp_path: Path) -> None:
    net, images = Own(), torch.randn(2, 3, 64, 96)
    backbone = load_backbone(net, maps=own_maps)
    assert (backbone.channels, backbone.strides, backbone.region_path) == ([8, 12], [4, 8], "map")
    assert (backbone.library, backbone.timm_name, backbone.training) == ("module", "Own", False)
    for found, wanted in zip(tensors(backbone, images), own_maps(net, images), strict=True):
        torch.testing.assert_close(found, wanted)
    assert backbone.pool(images, [torch.tensor([[0.0, 0, 32, 32]])] * 2).shape == (2, 12)
    assert backbone.unused_parameters == ["module.head.weight", "module.head.bias"]
    copied = copy.deepcopy(backbone)
    with torch.no_grad():
        net.stem.weight.zero_()
    assert not torch.equal(tensors(copied, images)[0], tensors(backbone, images)[0])
    save_like_source(backbone, tmp_path / "w.safetensors")
    save_backbone(tmp_path / "run", backbone, {"input_size": 64})
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["library"], manifest["name"]) == ("module", "Own")
    with pytest.raises(InputError, match=r"module given from Python \(Own\)(.|\n)*load_backbone\(module, maps="):
        load_backbone(tmp_path / "run")
    for weights in (tmp_path / "run", tmp_path / "w.safetensors"):
        again = load_backbone(Own(), maps=own_maps, weights=weights)
        assert torch.equal(tensors(again, images)[-1], tensors(backbone, images)[-1])
        assert again.input_size == (64 if weights.is_dir() else 224)


def test_timms_feature_networks_give_their_own_maps() -> None:
    net = timm.create_model("test_resnet", features_only=True, out_indices=(2, 4))
    backbone = load_backbone(net)
    assert (len(backbone.channels), backbone.strides, backbone.library) == (2, [8, 32], "module")


def refused(module: nn.Module, message: str, maps: Any = None) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_backbone(module, maps=maps)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (None, r"does not know how to read feature maps from a Own(.|\n)*pass maps=.*load_backbone\(module, maps="),
        (lambda net, images: net(images), "gives a tensor instead of a list"),
        (lambda net, images: [], "gives nothing instead of a list"),
        (lambda net, images: [net(images)], r"map 0 of maps= has the shape \(2, 5\), not \(B, C, h, w\)"),
        (lambda net, images: ["map"], r"map 0 of maps= is a str"),
        (lambda net, images: [net.stem(images), net.stem(images)[:, :, 1:]], r"map 1 .*31 × 48 cells.*no whole stride"),
        (lambda net, images: [net.stem(images).permute(0, 2, 3, 1)], "no whole stride(.|\n)*channels first"),
        (lambda net, images: [net.stem(images[:1])], "holds 1 images of a batch of 2"),
        (lambda net, images: [net.absent(images)], r"maps= fails on images of 3 channels.*no attribute 'absent'"),
    ],
)
def test_what_is_no_map(maps: Any, message: str) -> None:
    refused(Own(), message, maps)


def test_other_modules_that_cannot_be_used() -> None:
    refused(Own().half(), r"stem.weight is float16(.|\n)*module.float\(\)", own_maps)
    refused(torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None), "from a LRASPP")
    with pytest.raises(InputError, match="maps= belongs to a module"):
        load_backbone("timm:test_resnet", maps=own_maps)
    with pytest.raises(InputError, match=r"module:Own.*cannot be made again"):
        load_backbone("module:Own:random:0")
