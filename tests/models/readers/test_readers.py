"""Every reader against a plain loop or torchvision, and rows in the order of images and slots."""

import dataclasses
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from d3ssl.contracts import View
from d3ssl.models.backbone import Backbone, create_backbone
from d3ssl.models.readers import Box, Grid, Image, Mask, Pyramid, ReaderConfig
from tests.views.canvases import make_slots

SOURCE = [[0, 1, 2], [0, 1, 0]]
READERS: list[ReaderConfig] = [
    Box(path="c4", roi_size=2),
    Box(path="c3", roi_size=2),
    Box(path="map", roi_size=3, level=-2),
    Mask(level=-2),
    Pyramid(roi_size=2),
]


def make_view(masks: bool = True, side: int = 64) -> View:
    corner = torch.rand(2, 3, 2) * side / 2
    boxes = torch.cat([corner, corner + side / 3], dim=-1)
    boxes[1, 2] = boxes[1, 0]
    labels = torch.zeros(2, side, side, dtype=torch.uint8)
    for image, slot in ((0, 0), (0, 1), (1, 0)):  # slots 0.2 and 1.1 have no pixel of a mask
        x0, y0, x1, y1 = boxes[image, slot].round().int().tolist()
        labels[image, y0 + 3 : y1 - 2, x0 + 1 : x1] = slot + 1
    matrix = torch.eye(3).repeat(2, 1, 1)
    images = torch.randn(2, 3, side, side)
    return View(images=images, boxes=boxes, matrix=matrix, labels=labels if masks else None)


def read(config: ReaderConfig, view: View, backbone: Backbone, source: list[list[int]] | None = None) -> Tensor:
    reader = config.build(backbone)
    torch.manual_seed(0)
    for module in reader.modules():  # the same weights whenever a reader is made
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    with torch.no_grad():
        features = backbone.features(view.images, [reader.needs])
        rows = reader.eval()(features, view, make_slots(source or SOURCE), backbone)
    assert rows.shape[1] == reader.out_features
    return rows


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return create_backbone("test_resnet", seed=0).eval()


@pytest.mark.parametrize(("path", "level"), [("c4", -1), ("c3", -1), ("map", -1), ("map", -2), ("map", -4)])
def test_a_box_is_what_torchvision_reads(path: Any, level: int, backbone: Backbone) -> None:
    view = make_view()
    found = read(Box(path=path, roi_size=4, level=level), view, backbone)
    with torch.no_grad():
        maps = backbone.maps(view.images)
        chosen, stride = {"c4": (maps[-2], 16), "c3": (maps[-3], 8)}.get(path, (maps[level], backbone.strides[level]))
        cells = torchvision.ops.roi_align(chosen, list(view.boxes), 4, 1 / stride, 2, aligned=True)
        expected = (backbone.tail(cells, path) if path != "map" else cells).mean((2, 3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("level", [-1, -3])
def test_a_mask_is_the_mean_over_its_pixels(level: int, masks: bool, backbone: Backbone) -> None:
    """The naive loop: each pixel of the region counts for the cell it lies in; without a mask, those of the box."""
    view = make_view(masks)
    found = read(Mask(level=level), view, backbone)
    with torch.no_grad():
        chosen, stride = backbone.maps(view.images)[level], backbone.strides[level]
    for row in range(6):
        image, slot = divmod(row, 3)
        number = SOURCE[image][slot] + 1
        own = torch.zeros(64, 64, dtype=torch.bool) if view.labels is None else view.labels[image] == number
        if not own.any():
            x0, y0, x1, y1 = view.boxes[image, slot].tolist()
            centre = torch.arange(64) + 0.5
            own = ((centre >= y0) & (centre < y1))[:, None] & ((centre >= x0) & (centre < x1))
        total = sum(chosen[image, :, y // stride, x // stride] for y, x in own.nonzero().tolist())
        assert isinstance(total, Tensor)
        torch.testing.assert_close(found[row], total / int(own.sum()), atol=1e-4, rtol=1e-4)


def test_an_image_is_the_mean_of_its_last_map(backbone: Backbone) -> None:
    view = make_view()
    with torch.no_grad():
        expected = backbone.maps(view.images)[-1].mean((2, 3))
    torch.testing.assert_close(read(Image(), view, backbone), expected)


@settings(max_examples=6)
@given(permuted=st.permutations(range(3)))
@pytest.mark.parametrize("config", READERS, ids=lambda config: str(config))
def test_permuted_regions_permute_the_rows(config: ReaderConfig, backbone: Backbone, permuted: list[int]) -> None:
    view, order = make_view(), torch.tensor(permuted)
    assert view.labels is not None
    number = torch.cat([torch.zeros(1, dtype=torch.long), order.argsort() + 1])  # old label → new one
    labels = number.to(torch.uint8)[view.labels.long()]
    moved = dataclasses.replace(view, boxes=view.boxes[:, order], labels=labels)
    rows = read(config, view, backbone, [[0, 1, 2]] * 2).unflatten(0, (2, 3))
    found = read(config, moved, backbone, [[0, 1, 2]] * 2).unflatten(0, (2, 3))
    torch.testing.assert_close(found, rows[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", READERS, ids=lambda config: str(config))
def test_a_repeated_slot_gives_the_row_of_the_first(config: ReaderConfig, backbone: Backbone) -> None:
    rows = read(config, make_view(), backbone)
    torch.testing.assert_close(rows[5], rows[3])


@pytest.mark.parametrize("config", [*READERS, Image()], ids=lambda config: str(config))
def test_every_reader_reaches_what_it_trains(config: ReaderConfig, backbone: Backbone) -> None:
    reader = config.build(backbone).train()
    view = make_view()
    reader(backbone.features(view.images, [reader.needs]), view, make_slots(SOURCE), backbone).square().sum().backward()
    assert all(p.grad is not None for p in reader.parameters())
    assert config.needs_masks == isinstance(config, Mask)
    backbone.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("level", "side"), [(-1, 2), (-2, 4), (-2, 3)])
def test_a_grid_averages_the_cells_of_a_map(level: int, side: int, backbone: Backbone) -> None:
    view = make_view()
    with torch.no_grad():
        found = backbone.maps(view.images)[level]
    rows = read(Grid(side=side, level=level), view, backbone)
    assert rows.shape == (2 * side * side, found.shape[1])
    length = found.shape[2]
    for image in range(2):
        for row in range(side):
            for column in range(side):
                top, bottom = row * length // side, -(-(row + 1) * length // side)
                left, right = column * length // side, -(-(column + 1) * length // side)
                expected = found[image, :, top:bottom, left:right].mean((1, 2))
                torch.testing.assert_close(rows[(image * side + row) * side + column], expected)
