"""The trained network: order of rows, region paths, gradients."""

import dataclasses

import pytest
import torch
import torchvision
from torch import Tensor

from d3ssl.errors import InputError
from d3ssl.models.ema import make_teacher
from d3ssl.models.network import ModelConfig, RegionNetwork

SMALL = ModelConfig(backbone="test_resnet", roi_size=4, projector_hidden=16, projector_out=8)


def make_input(batch: int = 3, slots: int = 3, side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    corner = torch.rand(batch, slots, 2) * side / 2
    boxes = torch.cat([corner, corner + side / 3], dim=-1)
    valid = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])[:batch, :slots]
    return torch.randn(batch, 3, side, side), boxes, valid


def test_c4_against_the_steps_one_by_one() -> None:
    """Each valid box by itself through torchvision's RoIAlign and the network's own last stage."""
    network = RegionNetwork(SMALL).eval()
    images, boxes, valid = make_input()
    net = network.backbone.net
    with torch.no_grad():
        features = network.features(images, boxes, valid)
        c4 = net.layer3(net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(images)))))))  # type: ignore
        expected = []
        for image, slot in valid.nonzero().tolist():
            roi = [boxes[image, slot][None]]
            cells = torchvision.ops.roi_align(c4[image : image + 1], roi, 4, 1 / 16, 2, aligned=True)
            expected.append(net.layer4(cells).mean((2, 3))[0])  # type: ignore[operator]
        torch.testing.assert_close(features, torch.stack(expected), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(network(images, boxes, valid), network.projector(features))


@pytest.mark.parametrize(
    ("path", "backbone"),
    [("c3", "test_resnet"), ("c4", "test_resnet"), ("map", "test_resnet"), ("map", "test_vit"), ("fpn", "test_resnet")],
)
def test_paths_give_rows_and_reach_every_trainable_parameter(path, backbone: str) -> None:  # type: ignore[no-untyped-def]
    network = RegionNetwork(dataclasses.replace(SMALL, backbone=backbone, region_path=path)).train()
    images, boxes, valid = make_input()
    rows = network(images, boxes, valid)
    assert rows.shape == (6, 8)
    rows.square().sum().backward()
    missing = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize("path", ["c3", "c4", "map", "fpn"])
def test_invalid_boxes_have_no_influence(path) -> None:  # type: ignore[no-untyped-def]
    network = RegionNetwork(dataclasses.replace(SMALL, region_path=path)).train()
    images, boxes, valid = make_input()
    moved = torch.where(valid[..., None], boxes, boxes + 11.0)
    with torch.no_grad():
        assert torch.equal(network(images, boxes, valid), network(images, moved, valid))


def test_layers_behind_the_last_map_are_not_trained() -> None:
    network = RegionNetwork(dataclasses.replace(SMALL, backbone="efficientnet_lite0"))
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.net.conv_head.weight", "backbone.net.bn2.weight", "backbone.net.bn2.bias"]


def test_all_is_channels_last() -> None:
    network = make_teacher(RegionNetwork(SMALL))
    convolutions = [p for p in network.parameters() if p.ndim == 4 and p.shape[2] > 1 and p.shape[1] > 1]
    assert convolutions
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    seen = []
    hook = network.backbone.net.layer4.register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))  # type: ignore[union-attr]
    network(*make_input())
    hook.remove()
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen)
    assert seen[0].shape == (6, 192, 4, 4)


def test_the_backbone_remembers_its_region_path() -> None:
    for path, kept in (("c3", "c3"), ("c4", "c4"), ("map", "map"), ("fpn", "map")):
        network = RegionNetwork(dataclasses.replace(SMALL, region_path=path))
        assert (network.backbone.region_path, network.backbone.roi_size) == (kept, 4)


@pytest.mark.parametrize("path", ["c3", "c4", "fpn"])
def test_a_path_that_the_backbone_lacks(path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"(.|\n)*region_path map"):
        RegionNetwork(dataclasses.replace(SMALL, backbone="test_vit", region_path=path))
