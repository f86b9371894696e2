"""RoIAlign against torchvision's, against readings by hand, and where boxes are odd."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3ssl.models.roi_align import roi_align, roi_weights


def make_boxes(batch: int, count: int, side: float, seed: int = 0) -> Tensor:
    """Boxes of all sizes, some reaching outside the view, some empty."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(batch, count, 2, generator=generator) * side * 1.2 - 0.15 * side
    size = torch.rand(batch, count, 2, generator=generator) ** 2 * side
    boxes = torch.cat([corner, corner + size], dim=-1)
    boxes[0, 0] = 0.0  # a padding row
    return boxes


def oracle(features: Tensor, boxes: Tensor, scale: float, out: int, sampling: int) -> Tensor:
    batch, count = boxes.shape[:2]
    image = torch.arange(batch).repeat_interleave(count)[:, None].to(features)
    rois = torch.cat([image, boxes.reshape(-1, 4).to(features)], dim=1)
    cells = torchvision.ops.roi_align(features, rois, out, scale, sampling, aligned=True)
    return cells.unflatten(0, (batch, count))


@pytest.mark.parametrize(
    ("batch", "channels", "size", "stride", "count", "out", "sampling"),
    [
        (2, 8, (14, 14), 16, 4, 7, 2),
        (3, 5, (6, 9), 16, 3, 7, 2),
        (1, 3, (1, 1), 32, 2, 3, 2),
        (2, 4, (4, 4), 16, 1, 4, 1),
        (2, 4, (23, 17), 4, 5, 14, 3),
    ],
)
def test_equals_torchvision_with_gradient(
    batch: int, channels: int, size: tuple[int, int], stride: int, count: int, out: int, sampling: int
) -> None:
    features = torch.randn(batch, channels, *size)
    boxes = make_boxes(batch, count, max(size) * stride)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    result = roi_align(ours, boxes, 1 / stride, out, sampling)
    expected = oracle(theirs, boxes, 1 / stride, out, sampling)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    weight = torch.randn(expected.shape)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    corner=st.tuples(st.floats(-200, 300), st.floats(-200, 300)),
    size=st.tuples(st.floats(0, 300), st.floats(0, 300)),
)
def test_equals_torchvision_for_any_box(corner: tuple[float, float], size: tuple[float, float]) -> None:
    """In double precision, where a place on the edge of the outside falls on the same side for both."""
    features = torch.arange(1.0, 2 * 5 * 7 + 1).reshape(1, 2, 5, 7).double().sin()
    boxes = torch.tensor([[[*corner, corner[0] + size[0], corner[1] + size[1]]]], dtype=torch.float32)
    torch.testing.assert_close(
        roi_align(features.float(), boxes, 1 / 16, 3), oracle(features.float(), boxes, 1 / 16, 3, 2), atol=1e-5, rtol=0
    )


def test_reads_a_ramp_exactly() -> None:
    """On a map whose value is its own coordinate, each cell is the coordinate of the cell's centre."""
    ramp = torch.arange(16.0)
    features = torch.stack([ramp.expand(16, 16), ramp[:, None].expand(16, 16)])[None]
    boxes = torch.tensor([[[8.0, 20.0, 40.0, 44.0]]])
    cells = roi_align(features, boxes, 1 / 4, 4)[0, 0]
    x = (torch.arange(4) + 0.5) * 2 + 2 - 0.5  # box x: 2..10 map px, pixel centres at + 0.5
    y = (torch.arange(4) + 0.5) * 1.5 + 5 - 0.5
    torch.testing.assert_close(cells[0], x.expand(4, 4))
    torch.testing.assert_close(cells[1], y[:, None].expand(4, 4))


def test_weights_sum_to_one_inside_and_zero_outside() -> None:
    rows, columns = roi_weights(torch.tensor([[[16.0, 32.0, 96.0, 96.0]]]), 1 / 16, 5, 2, (8, 8))
    torch.testing.assert_close(rows.sum(-1), torch.ones(1, 1, 5))
    torch.testing.assert_close(columns.sum(-1), torch.ones(1, 1, 5))
    rows, columns = roi_weights(torch.tensor([[[400.0, -300.0, 500.0, -200.0]]]), 1 / 16, 5, 2, (8, 8))
    assert rows.sum() == 0
    assert columns.sum() == 0


def test_cells_lie_in_channels_last_memory() -> None:
    features = torch.randn(2, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    cells = roi_align(features, make_boxes(2, 3, 80), 1 / 16, 4)
    assert cells.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_no_boxes() -> None:
    assert roi_align(torch.randn(2, 6, 5, 5), torch.zeros(2, 0, 4), 1 / 16, 4).shape == (2, 0, 6, 4, 4)
