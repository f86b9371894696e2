"""Geometry: what the matrices say is where the pixels are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from d3ssl.seeds import torch_generator
from d3ssl.views.geometry import (
    clip_boxes,
    map_boxes,
    sample_windows,
    warp,
    warp_labels,
    window_matrix,
)

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def random_matrices(batch: int, side: int, out: tuple[int, int], seed: int, area=(0.2, 1.0)) -> torch.Tensor:
    generator = torch_generator("geometry", seed)
    sizes = torch.rand(batch, 2, generator=generator) * 500 + 100
    window = sample_windows(sizes, area, (1 / 2, 2.0), generator)
    return window_matrix(window, torch.rand(batch, generator=generator) < 0.5, side, out)


def test_painted_corners_are_found_where_the_matrix_says():
    """Each corner of a region is painted; the centroid of the paint in the view is the mapped corner."""
    side, radius, checked = 128, 4, 0
    generator = torch_generator("corners")
    corner = torch.randint(radius, side - radius, (400, 2), generator=generator).float()
    canvas = torch.zeros(400, 1, side, side)
    for b, (x, y) in enumerate(corner.int().tolist()):
        canvas[b, :, y - radius : y + radius, x - radius : x + radius] = 1
    boxes = torch.cat([corner, corner], dim=1)[:, None]
    for number, out in enumerate([(56, 56), (112, 112), (224, 224), (90, 130)]):
        part = slice(100 * number, 100 * number + 100)
        matrix = random_matrices(100, side, out, number, area=(0.3, 1.0))
        expected = map_boxes(boxes[part], matrix)[:, 0, :2]
        painted = map_boxes(boxes[part] + torch.tensor([-radius, -radius, radius, radius]), matrix)[:, 0]
        view = warp(canvas[part], matrix, out)[:, 0]
        for b in range(100):
            if _touches_border(painted[b], out, matrix[b]):
                continue  # some of the paint is outside the view: its centroid is not the corner's
            mass, checked = view[b] / view[b].sum(), checked + 1
            x = (mass.sum(0) * (torch.arange(out[1]) + 0.5)).sum()
            y = (mass.sum(1) * (torch.arange(out[0]) + 0.5)).sum()
            assert abs(x - expected[b, 0]) < 0.1
            assert abs(y - expected[b, 1]) < 0.1
    assert checked > 150


def _touches_border(box, size, matrix):
    """Bilinear paint spreads up to a canvas pixel and a view pixel beyond the box; that must be inside the view too."""
    spread_x, spread_y = matrix[0, 0].abs() + 1, matrix[1, 1] + 1
    height, width = size
    x0, y0, x1, y1 = box
    return bool(x0 < spread_x or y0 < spread_y or x1 > width - spread_x or y1 > height - spread_y)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), out=st.sampled_from([(64, 64), (96, 48), (224, 224)]))
def test_box_edges_in_pixels_agree_with_mapped_box(seed, out):
    """The half-height crossings of a painted box lie within 0.5 px of the mapped box's edges."""
    side = 128
    matrix = random_matrices(3, side, out, seed, area=(0.5, 1.0))
    generator = torch_generator("box", seed)
    start = torch.randint(10, 50, (3, 2), generator=generator)
    stop = start + torch.randint(24, 60, (3, 2), generator=generator)
    canvas = torch.zeros(3, 1, side, side)
    for b in range(3):
        canvas[b, :, start[b, 1] : stop[b, 1], start[b, 0] : stop[b, 0]] = 1
    view = warp(canvas, matrix, out)[:, 0]
    boxes, _ = clip_boxes(map_boxes(torch.cat([start, stop], 1).float()[:, None], matrix), out)
    for b in range(3):
        filled = (view[b] >= 0.5).nonzero()
        if len(filled) == 0:
            assert (boxes[b, 0, 2:] - boxes[b, 0, :2]).min() < 1
            continue
        (top, left), (bottom, right) = filled.amin(0).tolist(), (filled.amax(0) + 1).tolist()
        # a threshold on whole pixels adds up to half a pixel of rounding; the slack is for float32
        assert np.allclose([left, top, right, bottom], boxes[b, 0].tolist(), atol=0.5 + 1e-2)


@pytest.mark.parametrize("out", [(112, 112), (50, 90), (37, 128), (300, 200), (128, 128)])
def test_whole_image_equals_antialiased_interpolate(out):
    images = torch.rand(2, 3, 128, 128)
    matrix = window_matrix(WHOLE.expand(2, 4), torch.tensor([False, False]), 128, out)
    expected = functional.interpolate(images, out, mode="bilinear", antialias=True)
    for padding in ("zeros", "border"):
        torch.testing.assert_close(warp(images, matrix, out, padding), expected, atol=2e-5, rtol=0)


def test_without_antialias_equals_plain_interpolate():
    images = torch.rand(2, 3, 96, 96)
    matrix = window_matrix(WHOLE.expand(2, 4), torch.tensor([False, False]), 96, (41, 150))
    expected = functional.interpolate(images, (41, 150), mode="bilinear", antialias=False)
    torch.testing.assert_close(warp(images, matrix, (41, 150), "border", False), expected, atol=1e-5, rtol=0)


def test_warp_equals_slow_oracle_for_random_windows():
    side, out = 40, (17, 23)
    images = torch.rand(3, 2, side, side)
    matrix = random_matrices(3, side, out, seed=3)
    torch.testing.assert_close(warp(images, matrix, out), _slow_warp(images, matrix, out), atol=1e-5, rtol=0)


def _slow_warp(images, matrix, out):
    """Triangle filter in output pixels, written pixel by pixel from the inverse matrix."""
    result = torch.zeros(*images.shape[:2], *out)
    side = images.shape[-1]
    for b, m in enumerate(matrix.double()):
        inverse = torch.linalg.inv(m)
        width_x, width_y = max(1.0, abs(inverse[0, 0].item())), max(1.0, abs(inverse[1, 1].item()))
        for i in range(out[0]):
            for j in range(out[1]):
                x, y, _ = (inverse @ torch.tensor([j + 0.5, i + 0.5, 1.0], dtype=torch.double)).tolist()
                wx = np.array([max(0.0, 1 - abs(c + 0.5 - x) / width_x) for c in range(side)])
                wy = np.array([max(0.0, 1 - abs(r + 0.5 - y) / width_y) for r in range(side)])
                weight = torch.tensor(np.outer(wy / wy.sum(), wx / wx.sum()))
                result[b, :, i, j] = (images[b].double() * weight).sum((1, 2))
    return result


def test_identity_window_is_exact_and_flip_mirrors():
    images = torch.rand(2, 3, 32, 32)
    matrix = window_matrix(WHOLE.expand(2, 4), torch.tensor([False, True]), 32, (32, 32))
    view = warp(images, matrix, (32, 32))
    torch.testing.assert_close(view[0], images[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(view[1], images[1].flip(-1), atol=1e-6, rtol=0)


def test_padding_outside_the_image():
    images = torch.full((1, 1, 8, 8), 0.7)
    matrix = torch.tensor([[[1.0, 0, 4], [0, 1, 0], [0, 0, 1]]])  # moves the image 4 px to the right
    zeros, border = warp(images, matrix, (8, 8), "zeros"), warp(images, matrix, (8, 8), "border")
    assert (zeros[..., :4] == 0).all()
    torch.testing.assert_close(zeros[..., 4:], images[..., 4:])
    torch.testing.assert_close(border, images)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_labels_are_carried_exactly(seed):
    """Every view pixel has the label of the canvas pixel under its centre, found by the inverse matrix."""
    side, out = 48, (31, 57)
    labels = torch.randint(0, 255, (2, side, side), dtype=torch.uint8, generator=torch_generator("labels", seed))
    matrix = random_matrices(2, side, out, seed)
    view = warp_labels(labels, matrix, out)
    assert view.dtype == torch.uint8
    for b in range(2):
        inverse = torch.linalg.inv(matrix[b].double())
        y, x = torch.meshgrid(torch.arange(out[0]) + 0.5, torch.arange(out[1]) + 0.5, indexing="ij")
        x, y, _ = (inverse @ torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1).double()).reshape(3, *out)
        sure = ((x - x.round()).abs() > 1e-4) & ((y - y.round()).abs() > 1e-4)  # float32 may fall on either side
        expected = labels[b][y.floor().long().clamp(0, side - 1), x.floor().long().clamp(0, side - 1)]
        assert torch.equal(view[b][sure], expected[sure])
        assert sure.float().mean() > 0.5  # a round scale puts whole rows of centres on edges


def test_labels_outside_the_image_are_zero():
    labels = torch.full((1, 8, 8), 3, dtype=torch.uint8)
    matrix = torch.tensor([[[1.0, 0, 4], [0, 1, -2], [0, 0, 1]]])
    view = warp_labels(labels, matrix, (8, 8))[0]
    assert (view[:, :4] == 0).all()
    assert (view[6:] == 0).all()
    assert (view[:6, 4:] == 3).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    area=st.tuples(st.floats(0.05, 0.9), st.floats(0, 0.1)).map(lambda p: (p[0], min(1.0, p[0] + p[1]))),
)
def test_windows_keep_area_and_aspect_in_original_pixels(seed, area):
    generator = torch_generator("windows", seed)
    sizes = torch.rand(64, 2, generator=generator) * 100 + 400  # nearly square: the fallback is rare
    outer = torch.tensor([[0.1, 0.0, 0.9, 0.7]]).expand(64, 4)
    window = sample_windows(sizes, area, (3 / 4, 4 / 3), generator, outer)
    assert (window[:, :2] >= outer[:, :2]).all()
    assert (window[:, 2:] <= outer[:, 2:]).all()
    height = (window[:, 3] - window[:, 1]) * sizes[:, 0]
    width = (window[:, 2] - window[:, 0]) * sizes[:, 1]
    assert (width / height >= 3 / 4 - 1e-3).all()
    assert (width / height <= 4 / 3 + 1e-3).all()
    share = width * height / (0.8 * sizes[:, 1] * 0.7 * sizes[:, 0])
    within = (share >= area[0] - 1e-3) & (share <= area[1] + 1e-3)
    assert within.float().mean() > 0.5  # the others are the central fallback


def test_windows_follow_torchvisions_distribution():
    """Same mean and spread of side and place as torchvision's RandomResizedCrop on a 480×640 image."""
    from torchvision.transforms import v2

    image = torch.zeros(3, 480, 640, dtype=torch.uint8)
    reference = v2.RandomResizedCrop(224, (0.3, 1.0), (3 / 4, 4 / 3))
    theirs = [reference.make_params([image]) for _ in range(2000)]
    theirs = torch.tensor([[p["left"], p["top"], p["width"], p["height"]] for p in theirs]).float()
    window = sample_windows(
        torch.tensor([[480.0, 640.0]]).expand(2000, 2), (0.3, 1.0), (3 / 4, 4 / 3), torch_generator(0)
    )
    ours = torch.stack(
        [
            window[:, 0] * 640,
            window[:, 1] * 480,
            (window[:, 2] - window[:, 0]) * 640,
            (window[:, 3] - window[:, 1]) * 480,
        ],
        dim=1,
    )
    standard_error = (ours.std(0) ** 2 + theirs.std(0) ** 2).sqrt() / 2000**0.5
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * standard_error + 0.5).all()  # 0.5: torchvision rounds to pixels
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.08, atol=0)


def test_window_that_never_fits_is_the_central_one():
    window = sample_windows(
        torch.tensor([[100.0, 1000.0], [900.0, 90.0]]), (0.9, 1.0), (3 / 4, 4 / 3), torch_generator(1)
    )
    expected = [[0.5 - 4 / 60, 0, 0.5 + 4 / 60, 1], [0, 0.5 - 4 / 60, 1, 0.5 + 4 / 60]]
    torch.testing.assert_close(window, torch.tensor(expected), atol=1e-5, rtol=0)


def test_whole_area_is_the_outer_window_and_draws_are_deterministic():
    sizes = torch.tensor([[100.0, 1000.0], [300.0, 200.0]])
    outer = torch.tensor([[0.2, 0.1, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0]])
    assert torch.equal(sample_windows(sizes, (1.0, 1.0), (3 / 4, 4 / 3), torch_generator(0), outer), outer)
    first, again, other = (sample_windows(sizes, (0.2, 0.8), (0.5, 2.0), torch_generator(s)) for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_map_and_clip_known_boxes():
    matrix = window_matrix(torch.tensor([[0.25, 0.0, 0.75, 1.0]]), torch.tensor([True]), 100, (200, 100))
    boxes = torch.tensor([[[30.0, 10.0, 50.0, 20.0], [0.0, 0.0, 50.0, 100.0], [80.0, 5.0, 99.0, 9.0], [0.0, 0, 0, 0]]])
    mapped = map_boxes(boxes, matrix)
    torch.testing.assert_close(mapped[0, 0], torch.tensor([50.0, 20.0, 90.0, 40.0]))
    clipped, share = clip_boxes(mapped, (200, 100))
    torch.testing.assert_close(clipped[0, 1], torch.tensor([50.0, 0.0, 100.0, 200.0]))
    torch.testing.assert_close(share[0], torch.tensor([1.0, 0.5, 0.0, 0.0]))


def test_rotation_is_refused():
    matrix = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 8.0], [0.0, 0.0, 1.0]]])
    with pytest.raises(ValueError, match="axis-aligned"):
        warp(torch.zeros(1, 1, 8, 8), matrix, (8, 8))
