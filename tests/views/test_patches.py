"""Which patches are hidden, against plain loops over one image, and what is shown in their place."""

import math

import pytest
import torch

from d3ssl.contracts import View
from d3ssl.errors import InputError
from d3ssl.seeds import Draws
from d3ssl.views import RegionsSpec, ViewMaker, ViewSpec
from d3ssl.views.ops import Crop, HidePatches, MixPatches
from d3ssl.views.ops.cutout import region_collaborative_cutout
from d3ssl.views.ops.patches import PatchDraws, cut_regions, put_blocks
from tests.views.canvases import MEAN, PLAIN, STD, make_batch, make_slots, make_views


def draw(count: int, **options: float) -> PatchDraws:
    operation = HidePatches(patch=4, probability=1.0, **options)  # type: ignore[arg-type]
    return operation.sample(make_batch(count), 2, torch.Generator().manual_seed(1))


def naive_blocks(drawn: PatchDraws, image: int, height: int, width: int) -> torch.Tensor:
    hidden = torch.zeros(height, width, dtype=torch.bool)
    target = float((drawn.ratio * height * width)[image])
    for area, aspect, x, y in drawn.shapes[image]:
        left = target - int(hidden.sum())
        least = (min(height, width) // 3) ** 2
        size = max(least + (left - least) * float(area), 0.0)
        ratio = 0.3 * (1 / 0.3 / 0.3) ** float(aspect)
        tall, wide = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if tall >= height or wide >= width:
            continue
        top, first = int(float(y) * (height - tall + 1)), int(float(x) * (width - wide + 1))
        block = torch.zeros_like(hidden)
        block[top : top + tall, first : first + wide] = True
        if int((block & ~hidden).sum()) <= left:
            hidden |= block
    return hidden


def test_blocks_equal_the_loop_and_nearly_fill_their_ratio() -> None:
    drawn = draw(40)
    found = put_blocks(drawn, (14, 12))
    for image in range(40):
        assert torch.equal(found[image], naive_blocks(drawn, image, 14, 12))
    share = found.float().mean((1, 2))
    assert (share <= drawn.ratio + 1e-6).all()
    assert (drawn.ratio - share).mean() < 0.05
    assert 0.1 <= drawn.ratio.min() < 0.2 and 0.4 < drawn.ratio.max() <= 0.5


def test_rcc_cuts_regions_of_a_grid_by_the_ratio() -> None:
    drawn = draw(30, ratio=0.4, spread=0.0)
    drawn = PatchDraws(ratio=drawn.ratio, shapes=drawn.shapes[:, :9], places=drawn.places[:, :9])
    found = cut_regions(drawn, (14, 14))
    for image in range(4):  # the boxes by a loop
        boxes = torch.zeros(1, 9, 4)
        for cell, (area, aspect, x, y) in enumerate(drawn.shapes[image].tolist()):
            size, ratio = 0.12 + 0.18 * area, 0.5 * 4**aspect
            wide, tall = math.sqrt(size * ratio), math.sqrt(size / ratio)
            middle = (cell % 3 + 0.25 + x / 2) / 3, (cell // 3 + 0.25 + y / 2) / 3
            corners = [middle[0] - wide / 2, middle[1] - tall / 2, middle[0] + wide / 2, middle[1] + tall / 2]
            boxes[0, cell] = torch.tensor([14 * min(max(value, 0.0), 1.0) for value in corners])

        class Places:
            device = "cpu"

        keep = region_collaborative_cutout(boxes, torch.ones(1, 9, dtype=torch.bool), (14, 14), 0.4)
        assert keep.shape == (1, 1, 14, 14)
        inside = torch.zeros(14, 14, dtype=torch.bool)
        for x0, y0, x1, y1 in boxes[0].round().int().tolist():
            inside[y0:y1, x0:x1] = True
        assert not (found[image] & ~inside).any()
    assert 0.15 < found.float().mean() < 0.5
    nothing = PatchDraws(ratio=torch.zeros(30), shapes=drawn.shapes, places=drawn.places)
    assert not cut_regions(nothing, (14, 14)).any()


def test_half_of_the_images_are_hidden_at_all() -> None:
    ratio = HidePatches(patch=4).sample(make_batch(200), 2, torch.Generator().manual_seed(0)).ratio
    assert 0.4 < float((ratio > 0).float().mean()) < 0.6


def view_of(images: int) -> View:
    return View(
        images=torch.zeros(images, 3, 56, 56), boxes=torch.zeros(images, 1, 4), matrix=torch.eye(3).repeat(images, 1, 1)
    )


def test_every_second_image_shows_the_complement_and_none_its_own_patches() -> None:
    operation, slots = MixPatches(patch=4), make_slots([[0]] * 8)
    drawn = operation.sample(make_batch(8), 1, torch.Generator().manual_seed(0))
    mixed = operation.apply(view_of(8), slots, drawn, torch.zeros(8, 3, 56, 56))
    plain = HidePatches(patch=4, shape="rcc").apply(view_of(8), slots, drawn, torch.zeros(8, 3, 56, 56))
    assert mixed.hidden is not None and plain.hidden is not None and mixed.partner is not None
    assert torch.equal(mixed.hidden[::2], plain.hidden[::2])
    assert torch.equal(mixed.hidden[1::2], ~plain.hidden[1::2])
    assert sorted(mixed.partner.tolist()) == list(range(8))
    assert (mixed.partner != torch.arange(8)).all()
    assert plain.partner is None


def test_a_view_of_a_share_shows_the_last_images_in_the_same_window_with_other_colours() -> None:
    batch = make_batch(8)
    crop = Crop(area=(0.5, 1.0))
    table = {
        "x1": ViewSpec(size=56, crop=crop, photometric=PLAIN),
        "copy": ViewSpec(size=56, source="x1", photometric=PLAIN, operations=(MixPatches(patch=4),), share=0.25),
    }
    views = ViewMaker(table, RegionsSpec(), MEAN, STD)(batch, Draws(seed=0)).views
    assert torch.equal(views["copy"].images, views["x1"].images[-2:])
    hidden = views["copy"].hidden
    assert hidden is not None and hidden.shape == (2, 14, 14)
    assert ViewMaker(table, RegionsSpec(), MEAN, STD)(make_batch(3), Draws(seed=0)).views["copy"].images.shape[0] == 2


def test_a_view_without_regions_does_not_decide_which_are_chosen() -> None:
    small = ViewSpec(size=16, crop=Crop(area=(0.01, 0.02)), photometric=PLAIN, shows_regions=False)
    alone = {"x1": ViewSpec(size=80, crop=Crop(area=(1.0, 1.0)), photometric=PLAIN)}
    with_small = make_views(make_batch(), table={**alone, "small": small})
    without = make_views(make_batch(), table=alone)
    assert torch.equal(with_small.slots.boxes, without.slots.boxes)
    assert with_small.slots.weight.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "a patch is 0 px"),
        ({"ratio": 0.9}, r"ratio of hidden patches is 0\.9 ± 0\.2"),
        ({"probability": 2.0}, "probability of hidden patches"),
    ],
)
def test_impossible_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HidePatches(**options)  # type: ignore[arg-type]
