"""Features by layer against the backbone's own way, RoIAlign with its cells, and a loop over pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from d3ssl.models import load_backbone, roi_align
from d3ssl.models.backbone import Backbone
from d3ssl.models.regions_by_layer import layer_maps, layer_names, layer_strides, pool_box, pool_mask, read_layers
from d3ssl.seeds import torch_generator

BOXES = torch.tensor([[5.0, 9.0, 40.0, 33.0], [0.0, 0.0, 64.0, 64.0], [30.5, 2.25, 61.0, 20.0]])


@pytest.mark.parametrize("path", ["c3", "c4", "map"])
def test_the_region_is_the_backbones_own(path: str) -> None:
    backbone = load_backbone("timm:test_resnet", region_path=path)  # type: ignore[arg-type]
    images = torch.randn(3, 3, 64, 64, generator=torch_generator(0))
    with torch.no_grad():
        found = read_layers(backbone, images, BOXES)
        own = backbone.pool(images, list(BOXES[:, None]))
    torch.testing.assert_close(found.region, own, rtol=1e-4, atol=1e-5)
    if path == "map":
        torch.testing.assert_close(found.by_box["layer4"], own, rtol=1e-4, atol=1e-5)
    assert list(found.by_box) == ["act1", "layer1", "layer2", "layer3", "layer4"] and found.by_mask == {}


def test_blocks_of_a_vit_and_a_size_that_is_no_multiple_of_its_patch() -> None:
    backbone = load_backbone("timm:test_vit")
    images = torch.randn(3, 3, 72, 64, generator=torch_generator(0))
    with torch.no_grad():
        found = read_layers(backbone, images, BOXES, torch.ones(3, 72, 64), blocks=3)
        maps = layer_maps(backbone, images, 3)
        last = backbone.maps(images)[-1]
    assert list(found.by_box) == list(found.by_mask) == ["blocks.1", "blocks.3", "blocks.5"]
    assert layer_names(backbone, 1) == ("blocks.5",) and len(layer_names(backbone, 99)) == 6
    assert layer_strides(backbone, 3) == (16, 16, 16)
    torch.testing.assert_close(maps[-1], last, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.region, found.by_box["blocks.5"])


def test_a_network_by_intermediates_names_its_stages() -> None:
    backbone = load_backbone("timm:hrnet_w18_small")
    assert len(layer_names(backbone)) == len(set(layer_names(backbone))) == len(backbone.strides)
    assert layer_strides(backbone) == tuple(backbone.strides)


def test_a_box_is_the_mean_of_roi_aligns_cells() -> None:
    features = torch.randn(3, 5, 16, 16, generator=torch_generator(1))
    expected = roi_align(features, BOXES[:, None], 1 / 4, 7)[:, 0].mean(dim=(2, 3))
    torch.testing.assert_close(pool_box(features, BOXES, 4, 7), expected, rtol=1e-4, atol=1e-5)


def test_a_mask_weighs_cells_by_the_share_it_covers() -> None:
    """Against a loop over pixels, on images that the map covers with a rest: too large (padded) and too small."""
    generator = torch_generator(2)
    for height, width in ((13, 16), (16, 18)):
        features = torch.randn(2, 3, 4, 4, generator=generator)
        masks = (torch.rand(2, height, width, generator=generator) > 0.6).float()
        for image in range(2):
            total, weight = torch.zeros(3), 0.0
            for y in range(min(height, 16)):
                for x in range(min(width, 16)):
                    total += masks[image, y, x] * features[image, :, y // 4, x // 4]
                    weight += float(masks[image, y, x])
            found = pool_mask(features, masks, 4)[image]
            torch.testing.assert_close(found, total / weight, rtol=1e-5, atol=1e-6)
    assert (pool_mask(features, torch.zeros(2, 16, 16), 4) == 0).all()


def test_a_backbone_with_a_pool_of_its_own_has_no_layers() -> None:
    class Own(Backbone):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def pool(self, images: Tensor, boxes: list[Tensor], region_path: object = None) -> Tensor:
            return torch.cat(boxes)

    assert layer_names(Own()) == ()
    assert torch.equal(read_layers(Own(), torch.zeros(3, 3, 8, 8), BOXES).region, BOXES)
