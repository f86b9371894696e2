"""Each region by itself: its own pixels, in the middle, and nothing else."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.seeds import torch_generator
from d3ssl.views import RegionsSpec, ViewSpec
from d3ssl.views.ops import Alone, RegionCutout, Shift
from tests.views.canvases import kept, labels_of, make_batch, make_slots, make_table, make_views

SIZE = 48


def make_view(boxes: Tensor, labels: Tensor | None = None, seed: int = 0) -> View:
    images = torch.randn(len(boxes), 3, SIZE, SIZE, generator=torch_generator("alone", seed))
    return View(images=images, boxes=boxes, matrix=torch.eye(3).repeat(len(boxes), 1, 1), labels=labels)


def alone(view: View, slots: Slots, **options) -> View:
    return Alone(**options).apply(view, slots, None, view.images)


def pixels_of_box(box: list[float]) -> Tensor:
    centre = torch.arange(SIZE) + 0.5
    x0, y0, x1, y1 = box
    return ((centre >= y0) & (centre < y1))[:, None] & ((centre >= x0) & (centre < x1))


boxes_strategy = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0, 30), st.floats(2, 18), st.floats(2, 18)), min_size=1, max_size=3
)


@settings(max_examples=40, deadline=None)
@given(boxes=boxes_strategy, size=st.sampled_from([None, 18, 25, 64]), carried_by=st.sampled_from(["box", "mask"]))
def test_the_pixels_are_moved_bit_for_bit_and_nothing_else_is_shown(boxes: list, size: int | None, carried_by) -> None:  # type: ignore[no-untyped-def]
    """Without a label map a region is its box. Whole pixels: what is shown is the region's own block, unresampled."""
    corners = torch.tensor([[[x, y, x + w, y + h] for x, y, w, h in boxes]], dtype=torch.float32)
    view, slots = make_view(corners), make_slots([list(range(len(boxes)))])
    found = alone(view, slots, size=size, carried_by=carried_by)
    side = size or SIZE
    assert found.images.shape == (len(boxes), 3, side, side)
    for k, box in enumerate(corners[0].tolist()):
        inside = pixels_of_box(box)
        keep = kept(found)[k, 0]
        assert torch.equal(found.images[k] * ~keep, torch.zeros_like(found.images[k]))
        assert torch.equal(found.images[k][:, keep], view.images[0][:, inside])  # in order, so moved as a block
        assert int(keep.sum()) == int(inside.sum())
        assert torch.equal(labels_of(found)[k] > 0, keep)
        x0, y0, x1, y1 = found.boxes[k, 0].tolist()
        assert abs((x0 + x1) / 2 - side / 2) <= 0.5 + 1e-4 and abs((y0 + y1) / 2 - side / 2) <= 0.5 + 1e-4
        steps = torch.arange(side) + 0.5  # the box lies around the pixels that are shown
        block = ((steps >= y0 - 1e-3) & (steps < y1 + 1e-3))[:, None] & ((steps >= x0 - 1e-3) & (steps < x1 + 1e-3))
        assert not (keep & ~block).any()
        moved = found.matrix[k] @ torch.tensor([box[0], box[1], 1.0])  # a box as large as the image is clipped
        torch.testing.assert_close(moved[:2].clamp(0, side), found.boxes[k, 0, :2], atol=1e-3, rtol=0)


def test_a_region_as_large_as_the_image_at_half_pixels_loses_no_pixel() -> None:
    for start in torch.arange(0, 20, 0.5).tolist():
        view = make_view(torch.tensor([[[start, start, start + 16, start + 16]]]))
        own = view.images[0][:, pixels_of_box([start, start, start + 16, start + 16])]
        assert torch.equal(alone(view, make_slots([[0]]), size=16).images[0], own.view(3, 16, 16))


def test_masks_carry_their_own_pixels_and_a_region_without_any_its_box() -> None:
    boxes = torch.tensor([[[4.0, 6.0, 24.0, 20.0], [10.0, 8.0, 30.0, 28.0]]])
    labels = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    labels[0, 8:18, 6:20] = 1
    labels[0, 10:12, 8:10] = 0  # a hole in it
    view, slots = make_view(boxes, labels), make_slots([[0, 1, 0]])
    view = dataclasses.replace(view, boxes=boxes[:, [0, 1, 0]])
    found = alone(view, slots, size=32)
    first = labels[0] == 1
    assert torch.equal(found.images[0][:, kept(found)[0, 0]], view.images[0][:, first])
    assert int(kept(found)[1].sum()) == 20 * 20  # slot 1 shows no pixel of a mask
    assert torch.equal(found.images[2], found.images[0])  # a repeated slot
    assert torch.equal(found.boxes[2], found.boxes[0])
    boxed = alone(view, slots, size=32, carried_by="box")
    assert int(kept(boxed)[0].sum()) == 20 * 14


def test_a_larger_region_is_made_smaller_to_fit() -> None:
    view = make_view(torch.tensor([[[2.0, 5.0, 42.0, 25.0]]]))
    view = dataclasses.replace(view, images=torch.ones_like(view.images))
    found = alone(view, make_slots([[0]]), size=20)
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([0.0, 5.0, 20.0, 15.0]), atol=1e-4, rtol=0)
    assert torch.equal(kept(found)[0, 0], ((torch.arange(20) >= 5) & (torch.arange(20) < 15))[:, None].expand(20, 20))
    torch.testing.assert_close(found.images[0, :, 7:13, 1:19], torch.ones(3, 6, 18))


def test_as_a_view_of_a_table_after_other_operations() -> None:
    """A slot that repeats a region shows the same small image, wherever operations before have moved the region."""
    batch = dataclasses.replace(make_batch(), valid=torch.arange(6).expand(6, 6) < 2)
    for operations in ((), (RegionCutout(),), (Shift(scale=(1.0, 1.0)),)):
        table = {**make_table(), "alone": ViewSpec(size=80, source="x2", operations=(*operations, Alone(size=48)))}
        views = make_views(batch, table=table, regions=RegionsSpec(regions_per_image=4, min_visible=0.2))
        view, slots = views.views["alone"], views.slots
        assert view.images.shape == (6 * 4, 3, 48, 48) and view.boxes.shape == (6 * 4, 1, 4)
        for b in range(6):
            for k, source in enumerate(slots.source[b].tolist()):
                assert torch.equal(view.images[4 * b + k], view.images[4 * b + source])
                assert torch.equal(view.boxes[4 * b + k], view.boxes[4 * b + source])


@pytest.mark.parametrize(("carried_by", "needs"), [("mask", True), ("box", False)])
def test_it_says_whether_it_needs_masks(carried_by, needs: bool) -> None:  # type: ignore[no-untyped-def]
    assert Alone(carried_by=carried_by).needs_masks == needs
