"""Folding frozen batch norms changes neither maps nor gradients, nor anything in training mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from d3ssl.models import Backbone, load_backbone
from d3ssl.models.folded_norm import fold_norms

NAMES = ("timm:test_resnet:random", "timm:test_efficientnet:random", "timm:mobilenetv3_small_050:random")
NAMES += ("timm:regnetx_002:random", "torchvision:resnet18:random", "timm:repvgg_a0:random")


def varied(spec: str) -> Backbone:
    """Weights and statistics as no initialisation makes them."""
    backbone, generator = load_backbone(spec), torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for own in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert own is not None
                own.copy_(torch.rand(own.shape, generator=generator) + 0.5)
    return backbone


def read(backbone: Backbone) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    maps = backbone.maps(images)
    sum((own.square().mean() for own in maps), torch.zeros(())).backward()
    return maps, {name: own.grad for name, own in backbone.named_parameters() if own.grad is not None}


@pytest.mark.parametrize("spec", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_same_maps_and_gradients(spec: str, training: bool) -> None:
    plain = varied(spec).double().train(training)
    folded = copy.deepcopy(plain)
    keys = list(plain.state_dict())
    assert fold_norms(folded) >= 10
    folded = copy.deepcopy(folded)  # as the teacher is
    assert list(folded.state_dict()) == keys
    assert [m.training for m in folded.modules()] == [m.training for m in plain.modules()]
    (maps, gradients), (own_maps, own_gradients) = read(plain), read(folded)
    for expected, found in zip(maps, own_maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert gradients.keys() == own_gradients.keys()
    for name, expected in gradients.items():
        torch.testing.assert_close(own_gradients[name], expected, rtol=1e-6, atol=1e-10)
    for name, own in plain.named_buffers():  # running statistics
        torch.testing.assert_close(folded.get_buffer(name), own)


def test_copies_share_nothing() -> None:
    folded = varied(NAMES[0]).eval()
    fold_norms(folded)
    other, image = copy.deepcopy(folded), torch.randn(1, 3, 64, 64)
    before = folded.maps(image)[-1]
    for own in other.parameters():
        own.data.zero_()
    torch.testing.assert_close(folded.maps(image)[-1], before, rtol=0, atol=0)
    assert other.maps(image)[-1].abs().max() == 0


class ReadTwice(nn.Module):
    """A convolution whose map goes to its norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8)
        self.norm.running_mean = torch.ones(8)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.conv(x)
        return [self.norm(x) + x]


def test_not_folded_where_the_map_is_read_twice() -> None:
    backbone = load_backbone(ReadTwice(), maps=lambda net, images: net(images)).eval()
    image = torch.randn(1, 3, 64, 64)
    before = backbone.maps(image)[-1]
    assert fold_norms(backbone) == 0
    torch.testing.assert_close(backbone.maps(image)[-1], before, rtol=0, atol=0)


def test_networks_without_batch_norm() -> None:
    assert fold_norms(load_backbone("timm:test_vit:random")) == 0
