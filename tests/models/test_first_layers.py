"""The layers up to a stride: those that its map depends on, and no others of a chain."""

from __future__ import annotations

import pytest
import torch

from d3ssl.methods import Learner
from d3ssl.methods.hosts.posttrain import Posttrain
from d3ssl.models import load_backbone
from d3ssl.models.first_layers import first_parameters
from d3ssl.views import RegionsSpec
from tests.methods.examples import make_views


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18", "timm:test_efficientnet"])
def test_they_are_what_the_map_depends_on(name: str) -> None:
    backbone = load_backbone(f"{name}:random").eval()
    maps = backbone.maps(torch.randn(1, 3, 64, 64))
    maps[backbone.strides.index(4)].square().sum().backward()
    reached = {name for name, p in backbone.net.named_parameters() if p.grad is not None}
    assert set(first_parameters(backbone, 4)) == reached
    assert first_parameters(backbone, 0) == []


def test_a_network_of_one_stride_has_none() -> None:
    assert first_parameters(load_backbone("timm:test_vit:random"), 4) == []


def test_layers_between_maps_are_counted_as_timm_counts_them() -> None:
    backbone = load_backbone("timm:swin_tiny_patch4_window7_224:random")
    first = first_parameters(backbone, 4)
    assert {name.split(".")[0] for name in first} == {"patch_embed", "layers"}
    assert first == [name for name, _ in backbone.net.named_parameters()][: len(first)]


def test_they_stay_as_they_are() -> None:
    plan = Posttrain(frozen_stride=4).plan(64, RegionsSpec(regions_per_image=3))
    backbone = load_backbone("timm:test_resnet:random:1")
    frozen = set(first_parameters(backbone, 4))
    learner = Learner(plan, backbone).train()
    learner(make_views(plan), 0.0).loss.backward()
    for name, parameter in learner.backbone.net.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name
