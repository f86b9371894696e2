"""The picture of a view set shows the pixels and boxes that are trained on."""

import dataclasses

import numpy as np
import pytest
import torch

from d3ssl.contracts import CanvasBatch, View, ViewSet
from d3ssl.errors import InputError
from d3ssl.views.draw import draw_view_set, slot_colour
from tests.views.canvases import make_slots

GAP = 12
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
INSIDE = (0.25, 0.5, 0.75)


def example(channels: int = 3, third: bool = False) -> tuple[CanvasBatch, ViewSet]:
    """A canvas 64 px with two candidates of a 100×200 px image; views of one colour with slot 0 valid, slot 1 not."""
    boxes = torch.tensor([[[8.0, 16.0, 32.0, 48.0], [40.0, 8.0, 60.0, 60.0], [0.0, 0.0, 0.0, 0.0]]]).repeat(2, 1, 1)
    batch = CanvasBatch(
        canvas=torch.full((2, channels, 64, 64), 10, dtype=torch.uint8),
        image_size=torch.tensor([[100.0, 200.0]]).repeat(2, 1),
        boxes=boxes,
        valid=torch.tensor([[True, True, False]]).repeat(2, 1),
        labels=None,
        index=torch.tensor([5, 6]),
    )

    def view(side: int) -> View:
        colour = (torch.tensor(INSIDE) - torch.tensor(MEAN)) / torch.tensor(STD)
        images = colour[:channels, None, None].expand(2, channels, side, side).clone()
        slots = torch.tensor([[[0.25, 0.25, 0.5, 0.75], [0.5, 0.0, 1.0, 1.0]]]).repeat(2, 1, 1) * side
        return View(images=images, boxes=slots, matrix=torch.eye(3).repeat(2, 1, 1))

    cut = dataclasses.replace(view(56), keep=torch.arange(56 * 56).view(1, 1, 56, 56).repeat(2, 1, 1, 1) % 4 > 0)
    names = {"x1": view(112), "x2": view(112), "x1_cut": view(112), "x2_small_cut": cut}
    return batch, ViewSet(
        views=names | ({"x3": view(112)} if third else {}),
        slots=make_slots([[0, 0], [0, 1]], boxes[:, :2]),
        scale=torch.tensor(1 / 3),
    )


def test_boxes_and_pixels_are_where_they_should_be():
    batch, views = example()
    picture = np.asarray(draw_view_set(batch, views, MEAN, STD, image=0, panel=112))
    canvas = picture[GAP : GAP + 112, GAP : GAP + 224]  # the image's true aspect: twice as wide as high
    # candidate 0 is chosen (slot 0): canvas px × (224/64, 112/64), upper left corner of its outline
    assert tuple(canvas[28, 28]) == slot_colour(0)
    assert tuple(canvas[83, 111]) == slot_colour(0)  # its last pixel
    assert tuple(canvas[84, 112]) == (10, 10, 10)
    assert tuple(canvas[14, 140]) == (200, 200, 200)  # candidate 1 is not
    first = picture[GAP : GAP + 112, 2 * GAP + 224 : 2 * GAP + 224 + 112]
    assert tuple(first[28, 28]) == slot_colour(0)
    assert tuple(first[40, 40]) == tuple(round(255 * value) for value in INSIDE)
    assert not (first == slot_colour(1)).all(-1).any()  # slot 1 repeats slot 0


def test_valid_slots_have_their_own_colours_and_small_views_are_magnified():
    batch, views = example()
    picture = np.asarray(draw_view_set(batch, views, MEAN, STD, image=1, panel=112))
    left = GAP + 224 + 3 * (GAP + 112) + GAP
    small = picture[GAP : GAP + 112, left : left + 112]
    assert tuple(small[28, 28]) == slot_colour(0)
    assert tuple(small[0, 56]) == slot_colour(1)
    assert tuple(small[111, 111]) == slot_colour(1)


def test_third_view_makes_the_picture_wider():
    narrow, wide = (draw_view_set(*example(third=third), MEAN, STD, image=0, panel=112) for third in (False, True))
    assert wide.width == narrow.width + 112 + GAP
    assert wide.height == narrow.height


@pytest.mark.parametrize("channels", [1, 2])
def test_other_numbers_of_channels(channels):
    picture = draw_view_set(*example(channels), MEAN[:channels], STD[:channels], image=0, panel=112)
    first = np.asarray(picture)[GAP : GAP + 112, 2 * GAP + 224 : 2 * GAP + 224 + 112]
    assert tuple(first[40, 40]) == (round(255 * INSIDE[0]),) * 3


def test_no_such_image():
    with pytest.raises(InputError, match="no image 2"):
        draw_view_set(*example(), MEAN, STD, image=2)


def test_a_view_of_single_regions_has_a_panel_for_each_slot():
    batch, views = example()
    small = View(
        images=torch.zeros(4, 3, 28, 28),
        boxes=torch.tensor([[[7.0, 7.0, 21.0, 21.0]]]).repeat(4, 1, 1),
        matrix=torch.eye(3).repeat(4, 1, 1),
    )
    alone = dataclasses.replace(views, views={"x1": views.views["x1"], "alone": small})
    picture = np.asarray(draw_view_set(batch, alone, MEAN, STD, image=1, panel=112))
    assert picture.shape[1] == 5 * GAP + 224 + 3 * 112  # the canvas, x1, two slots
    for slot in range(2):
        left = 3 * GAP + 224 + 112 + slot * (GAP + 112)
        assert tuple(picture[GAP + 28, left + 28]) == slot_colour(slot)


def test_hidden_patches_and_a_view_of_the_last_image_only():
    batch, views = example()
    x1 = views.views["x1"]
    hidden = torch.zeros(2, 2, 2, dtype=torch.bool)
    hidden[:, 0, 1] = True  # the upper right quarter
    dark = dataclasses.replace(x1, hidden=hidden)
    other = x1.images.clone()
    other[0] = 1.0
    mixed = dataclasses.replace(x1, images=other, hidden=hidden, partner=torch.tensor([1, 0]))
    last = dataclasses.replace(x1, images=x1.images[1:], boxes=x1.boxes[1:], matrix=x1.matrix[1:])
    seen = dataclasses.replace(views, views={"dark": dark, "mixed": mixed, "last": last})
    one, two = (np.asarray(draw_view_set(batch, seen, MEAN, STD, image=i, panel=112)) for i in range(2))
    assert (one.shape[1], two.shape[1]) == (4 * GAP + 224 + 2 * 112, 5 * GAP + 224 + 3 * 112)
    left = 2 * GAP + 224
    assert two[GAP + 20, left + 90].tolist() == [round(255 * value) for value in MEAN]
    assert two[GAP + 100, left + 20].tolist() == [round(255 * value) for value in INSIDE]
    left += GAP + 112
    shown = [255 * min(m + s, 1.0) for m, s in zip(MEAN, STD, strict=True)]
    np.testing.assert_allclose(two[GAP + 20, left + 90], shown, atol=0.6)
    assert two[GAP + 100, left + 20].tolist() == [round(255 * value) for value in INSIDE]
