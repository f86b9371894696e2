"""torchvision's networks as backbones: the same maps as torchvision's and, where both have the network, as timm's."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import VisionTransformer

from d3ssl.errors import CheckpointError, InputError
from d3ssl.models import load_backbone, save_backbone
from d3ssl.models.backbone import Backbone
from d3ssl.models.regions_by_layer import layer_names, read_layers
from d3ssl.models.torchvision_net import TorchvisionViT


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_a_resnet_equals_timms_of_the_same_weights(images: torch.Tensor, tmp_path: Path) -> None:
    own = torchvision.models.resnet18()
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    boxes = [torch.tensor([[3.0, 5, 40, 60]]), torch.tensor([[0.0, 0, 96, 64], [20, 20, 50, 44]])]
    found = load_backbone(f"torchvision:resnet18:{tmp_path / 'weights.pth'}")
    timms = load_backbone(f"timm:resnet18:{tmp_path / 'weights.pth'}")
    assert (found.strides, found.channels) == (timms.strides, timms.channels)
    for one, other in zip(found.maps(images), timms.maps(images), strict=True):
        torch.testing.assert_close(one, other)
    for path in ("c3", "c4", "map"):
        torch.testing.assert_close(found.pool(images, boxes, path), timms.pool(images, boxes, path))
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert found.input_size == 224


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("densenet121", lambda own, x: own.features(x)),
        ("mobilenet_v3_small", lambda own, x: own.features(x)),
        ("regnet_y_400mf", lambda own, x: own.trunk_output(own.stem(x))),
        ("swin_t", lambda own, x: own.permute(own.norm(own.features(x)))),
    ],
)
def test_the_last_map_is_what_torchvisions_classifier_pools(
    name: str, last: object, images: torch.Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    own = torchvision.models.get_model(name, weights=None).eval()
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    found = load_backbone(f"torchvision:{name}:{tmp_path / 'weights.pth'}")
    with torch.no_grad():
        maps = found.maps(images)
        torch.testing.assert_close(maps[-1], last(own, images))  # type: ignore[operator]
    assert found.strides[-1] == 32
    for value, stride, channels in zip(maps, found.strides, found.channels, strict=True):
        assert value.shape == (2, channels, 64 // stride, 96 // stride)


def test_a_vit_equals_torchvisions_at_its_own_size_and_takes_others() -> None:
    torch.manual_seed(0)
    own = VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=12, mlp_dim=24, num_classes=5
    ).eval()
    nn.init.normal_(own.heads[-1].weight)  # type: ignore[arg-type]  # zero at first
    backbone = Backbone(TorchvisionViT(own), "small_vit", library="torchvision").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = backbone.net.forward_features(images)  # type: ignore[operator]
        torch.testing.assert_close(own.heads(tokens[:, 0]), own(images))
        (found,) = backbone.maps(images)
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens[:, 1:])
        assert backbone.maps(torch.randn(1, 3, 40, 64))[0].shape == (1, 12, 5, 8)
        assert layer_names(backbone, 3)[0] == "encoder.layers.encoder_layer_0"
        boxes = torch.tensor([[0.0, 0, 16, 16], [8, 8, 32, 32]])
        layers = read_layers(backbone, images, boxes, blocks=3)
        torch.testing.assert_close(layers.region, backbone.pool(images, list(boxes[:, None])))
        torch.testing.assert_close(layers.by_box["encoder.layers.encoder_layer_2"], layers.region)


def test_random_weights_depend_on_the_seed_only() -> None:
    torch.manual_seed(3)
    one = load_backbone("torchvision:resnet18:random:7")
    torch.manual_seed(4)
    other = load_backbone("torchvision:resnet18:random:7")
    assert torch.equal(one.net.conv1.weight, other.net.conv1.weight)  # type: ignore[union-attr, arg-type]
    third = load_backbone("torchvision:resnet18")
    assert not torch.equal(one.net.conv1.weight, third.net.conv1.weight)  # type: ignore[union-attr, arg-type]
    assert one.architecture == "torchvision:resnet18"


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown torchvision network 'resnet19'.*\n.*resnet1"):
        load_backbone("torchvision:resnet19")
    with pytest.raises(InputError, match="not padded"):
        load_backbone("torchvision:squeezenet1_1")
    with pytest.raises(InputError, match="3 channels, not 4"):
        load_backbone("torchvision:resnet18", in_channels=4)
    with pytest.raises(InputError, match="no such file"):
        load_backbone(f"torchvision:resnet18:{tmp_path / 'none.pth'}")
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit torchvision's 'resnet18'"):
        load_backbone(f"torchvision:resnet18:{tmp_path / 'other.pth'}")


def test_a_run_of_torchvisions(images: torch.Tensor, tmp_path: Path) -> None:
    backbone = load_backbone("torchvision:resnet18:random:3", region_path="map", roi_size=3)
    save_backbone(tmp_path / "run", backbone, {"input_size": 64})
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["library"], manifest["name"], "timm_name" in manifest) == ("torchvision", "resnet18", False)
    again = load_backbone(tmp_path / "run")
    assert (again.architecture, again.input_size, again.region_path, again.roi_size) == (
        "torchvision:resnet18",
        64,
        "map",
        3,
    )
    with torch.no_grad():
        assert torch.equal(again.maps(images)[-1], backbone.maps(images)[-1])
