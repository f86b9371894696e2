"""The FPN region path."""

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from d3ssl.errors import InputError
from d3ssl.models.readers.pyramid import FpnPath, level_of

CHANNELS, STRIDES = [3, 4, 6, 8, 10], [2, 4, 8, 16, 32]


def make_path() -> FpnPath:
    torch.manual_seed(0)
    return FpnPath(CHANNELS, STRIDES, width=8, out_features=12, roi_size=3)


def make_maps(batch: int = 2, side: int = 224) -> list[Tensor]:
    return [torch.randn(batch, c, side // s, side // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]


BOXES = torch.tensor(
    [
        [[0.0, 0.0, 40.0, 40.0], [10.0, 20.0, 90.0, 110.0], [5.0, 5.0, 155.0, 125.0]],
        [[0.0, 0.0, 224.0, 224.0], [3.0, 4.0, 51.0, 52.0], [0.0, 0.0, 0.0, 0.0]],
    ]
)


def test_levels_of_known_boxes() -> None:
    assert level_of(BOXES).tolist() == [[0, 1, 2], [3, 0, 0]]
    edges = torch.tensor([48.0, 48.5, 96.0, 96.5, 192.0, 192.5, 1000.0])
    boxes = torch.stack([torch.zeros(7), torch.zeros(7), edges, edges], 1)
    assert level_of(boxes).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert level_of(torch.tensor([[0.0, 0.0, 24.0, 96.0]])).tolist() == [0]  # √(24·96) = 48
    assert level_of(torch.tensor([[9.0, 9.0, 5.0, 5.0]])).tolist() == [0]


def test_regions_are_read_from_their_own_level_as_torchvision_reads_them() -> None:
    path, maps = make_path().eval(), make_maps()
    found = path.region_maps(maps, BOXES)
    pyramid = list(path.pyramid({f"p{i}": m for i, m in enumerate(maps[1:], 2)}).values())
    for row, (image, slot) in enumerate(itertools.product(range(2), range(3))):
        level = int(level_of(BOXES)[image, slot])
        rois = [BOXES[image, slot][None]]
        stride = STRIDES[1 + level]
        exact = torchvision_roi_align(pyramid[level][image : image + 1], rois, 3, 1 / stride, 2, aligned=True)
        torch.testing.assert_close(found[row], exact[0], atol=1e-5, rtol=1e-4)


def test_shape_and_gradient_of_the_default_path() -> None:
    path = FpnPath([8, 16, 32, 64], [4, 8, 16, 32])
    maps = [torch.randn(2, c, 64 // s, 64 // s) for c, s in zip([8, 16, 32, 64], [4, 8, 16, 32], strict=True)]
    boxes = torch.tensor([[[2.0, 3.0, 30.0, 40.0]], [[8.0, 1.0, 60.0, 50.0]]])
    features = path(maps, boxes)
    assert features.shape == (2, 1024)
    assert (features >= 0).all()
    features.sum().backward()
    assert all(p.grad is not None for p in path.parameters()), "DDP waits for every parameter"


def test_the_order_of_images_and_regions_is_that_of_the_rows() -> None:
    path, maps = make_path().eval(), make_maps()
    features = path(maps, BOXES)
    flipped = path([m.flip(0) for m in maps], BOXES.flip(0, 1))
    torch.testing.assert_close(flipped, features.flip(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("strides", [[16], [8, 16, 32], [4, 8, 16, 16]])
def test_a_backbone_without_the_four_strides_is_refused(strides: list[int]) -> None:
    with pytest.raises(InputError, match="strides") as error:
        FpnPath([8] * len(strides), strides)
    assert "region_path" in str(error.value)
