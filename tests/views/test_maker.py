"""All views of a step: regions are where the boxes say, and every option has the effect it names."""

import dataclasses

import numpy as np
import pytest
import torch

from d3ssl.contracts import CanvasBatch, View, ViewSet, map_tensors
from d3ssl.errors import InputError
from d3ssl.seeds import torch_generator
from d3ssl.views import D3Views, GeometryConfig, PhotometricConfig, ViewsConfig
from d3ssl.views.choice import choose, slot_labels, survives
from d3ssl.views.masks import union_mask

PLAIN = PhotometricConfig(jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIDE, BATCH = 96, 6
NAMES = ("teacher_x1", "teacher_x2", "student_x1", "student_x2_small", "student_x3")


def config(**options) -> ViewsConfig:
    """Views without photometric changes, so that pixels tell where they come from."""
    return ViewsConfig(**({"size": 80, "photometric_x1": PLAIN, "photometric_x2": PLAIN} | options))


def make_batch(images: int = BATCH, *, labels: bool = True, coloured: bool = False, seed: int = 0) -> CanvasBatch:
    """Noise (or an image of one colour a piece) with six candidates, the last of them padding."""
    generator = torch_generator("canvas", seed)
    canvas = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    if coloured:
        canvas[:] = (torch.arange(images, dtype=torch.uint8) * 30 + 20)[:, None, None, None]
    corner = torch.randint(2, 50, (images, 6, 2), generator=generator)
    extent = torch.randint(22, 42, (images, 6, 2), generator=generator)
    boxes = torch.cat([corner, corner + extent], dim=-1)
    boxes[:, 5] = 0
    label_map = torch.zeros(images, SIDE, SIDE, dtype=torch.uint8)
    for b in range(images):
        for r, (x0, y0, x1, y1) in enumerate(boxes[b, :5].tolist()):
            label_map[b, y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = r + 1
    return CanvasBatch(
        canvas=canvas,
        image_size=torch.tensor([[480.0, 640.0]]).repeat(images, 1),
        boxes=boxes.float(),
        valid=torch.tensor([[True] * 5 + [False]]).repeat(images, 1),
        labels=label_map if labels else None,
        index=torch.arange(images) + 100,
    )


def make(batch: CanvasBatch, seed: int = 0, *, decouple: bool = True, deposition: bool = True, **options) -> ViewSet:
    views = D3Views(config(**options), MEAN, STD, decouple=decouple, deposition=deposition)
    return views(batch, torch_generator("views", seed))


def third(views: ViewSet) -> View:
    assert views.student_x3 is not None
    return views.student_x3


def kept(view: View) -> torch.Tensor:
    assert view.keep is not None
    return view.keep


def context(view: View, valid: torch.Tensor) -> torch.Tensor:
    """Pixels more than one px away from every region."""
    grown = view.boxes + torch.tensor([-1.0, -1.0, 1.0, 1.0])
    return ~union_mask(grown, valid, (view.images.shape[2], view.images.shape[3]))


def raw(view: View) -> torch.Tensor:
    """Pixels back in 0..255."""
    return (view.images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


# ---- the set as a whole -----------------------------------------------------------------------------------------


def test_sizes_and_slots():
    batch = make_batch()
    views = make(batch)
    for name in NAMES:
        view = getattr(views, name)
        side = 40 if name == "student_x2_small" else 80
        assert view.images.shape == (BATCH, 3, side, side)
        assert (view.boxes >= 0).all() and (view.boxes <= side).all()
        assert not view.boxes[~views.valid].any()
        assert view.labels.shape == (BATCH, side, side)
    assert views.valid.sum() > BATCH
    assert torch.equal(views.index, batch.index)
    for b, k in views.valid.nonzero().tolist():
        assert (batch.boxes[b, :5] == views.canvas_boxes[b, k]).all(dim=1).any()
        pairs = (views.canvas_boxes[b, k] == views.canvas_boxes[b]).all(dim=1)
        assert pairs.sum() == 1  # no candidate twice


def test_the_host_alone_sees_whole_views():
    views = make(make_batch(), decouple=False, deposition=False)
    assert views.student_x3 is None
    assert views.teacher_x1.keep is views.student_x1.keep is views.student_x2_small.keep is None
    assert torch.equal(views.teacher_x1.images, views.student_x1.images)


@pytest.mark.parametrize("labels", [True, False])
def test_same_generator_same_views(labels):
    batch = make_batch(labels=labels)
    first, again, other = (tensors(make(batch, seed)) for seed in (3, 3, 4))
    assert len(first) == len(again) > 15
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def tensors(views: ViewSet) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_tensors(views, lambda tensor: (found.append(tensor), tensor)[1])
    return found


def test_modules_and_options_do_not_change_the_base_views():
    """Host and D³SSL are compared on the same crops, colours and regions."""
    batch = make_batch()
    whole = make(batch, decouple=False, deposition=False)
    others = [
        make(batch, decouple=False),
        make(batch, deposition=False),
        make(batch, cutout_where="both", shift_mode="union", x3_photometric="same"),
    ]
    for other in others:
        assert torch.equal(whole.teacher_x1.images, other.teacher_x1.images)
        assert torch.equal(whole.teacher_x2.images, other.teacher_x2.images)
        assert torch.equal(whole.canvas_boxes, other.canvas_boxes)
        assert torch.equal(whole.valid, other.valid)


def test_global_random_state_has_no_influence():
    batch = make_batch()
    first = make(batch)
    torch.rand(7)
    assert torch.equal(third(first).images, third(make(batch)).images)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels):
    batch = make_batch()
    batch = dataclasses.replace(batch, canvas=batch.canvas[:, :1].repeat(1, channels, 1, 1))
    views = D3Views(ViewsConfig(size=64), (0.5,) * channels, (0.25,) * channels, decouple=True, deposition=True)
    assert third(views(batch, torch_generator(0))).images.shape == (BATCH, channels, 64, 64)


# ---- geometry ---------------------------------------------------------------------------------------------------


def test_a_marker_in_a_region_is_found_at_its_place_in_every_view():
    """The centre of every region is painted on the canvas; its centroid in a view is the centre of the mapped box."""
    found, radius = dict.fromkeys(NAMES, 0), 4
    options = {"cutout_ratio": 0.0, "shift_mode": "union", "min_visible": 0.95, "regions_per_image": 1}
    geometry = GeometryConfig(x1_area=(0.6, 1.0), x2_area=(0.5, 1.0))
    for seed in range(6):
        batch = make_batch(16, labels=False, seed=seed)
        batch = dataclasses.replace(batch, valid=torch.arange(6).expand(16, 6) == 0)  # one candidate each
        batch.canvas.zero_()
        for b in range(16):
            x, y = ((batch.boxes[b, 0, :2] + batch.boxes[b, 0, 2:]) / 2).int().tolist()
            batch.canvas[b, :, y - radius : y + radius, x - radius : x + radius] = 255
        views = make(batch, seed, geometry=geometry, **options)
        for name in NAMES:
            view = getattr(views, name)
            for b in views.valid[:, 0].nonzero()[:, 0].tolist():
                old, new = views.canvas_boxes[b, 0], view.boxes[b, 0]
                if name == "student_x3":  # moved by itself: the matrix does not tell, but the box does
                    matrix_box = views.teacher_x2.boxes[b, 0]
                    assert (new[2:] - new[:2] <= matrix_box[2:] - matrix_box[:2] + 1e-3).all()
                centre = ((old[:2] + old[2:]) / 2).int().float()
                expected = place(view, centre, b) if name != "student_x3" else place_moved(views, centre, b)
                own = raw(view)[b, 0] * (1 if view.keep is None else view.keep[b, 0])
                if own.sum() < 255 * 8 or near_border(expected, view):
                    continue
                mass = own / own.sum()
                steps = torch.arange(mass.shape[0]) + 0.5
                position = torch.stack([(mass.sum(0) * steps).sum(), (mass.sum(1) * steps).sum()])
                assert (position - expected).abs().max() < 0.5, name
                found[name] += 1
    assert min(found.values()) > 20, found


def place(view: View, centre: torch.Tensor, b: int) -> torch.Tensor:
    return (view.matrix[b] @ torch.tensor([centre[0], centre[1], 1.0]))[:2]


def place_moved(views: ViewSet, centre: torch.Tensor, b: int) -> torch.Tensor:
    """Where x3's box puts a point of x2: boxes are carried without a mirror from x2 to x3."""
    old, new = views.teacher_x2.boxes[b, 0], third(views).boxes[b, 0]
    relative = (place(views.teacher_x2, centre, b) - old[:2]) / (old[2:] - old[:2])
    return new[:2] + relative * (new[2:] - new[:2])


def near_border(point: torch.Tensor, view: View) -> bool:
    return bool((point < 8).any() or (point > view.images.shape[3] - 8).any())


def test_labels_agree_with_the_boxes_in_every_view():
    batch = make_batch()
    views = make(batch, regions_per_image=2, shift_carries="mask")
    seen = 0
    for name in NAMES:
        view = getattr(views, name)
        size = view.images.shape[2:]
        for k in range(2):
            of_slot = view.labels == k + 1
            box = union_mask(view.boxes[:, k : k + 1], views.valid[:, k : k + 1], tuple(size))[:, 0]
            assert not (of_slot & ~box).any()
            seen += int(of_slot.any(dim=2).any(dim=1).sum())
    assert seen > 40
    of_x3 = third(views).labels
    assert of_x3 is not None and not (kept(third(views))[:, 0] & (of_x3 == 0)).any()  # nothing but the masks is shown


def test_x2_small_is_x2_at_half_size():
    views = make(make_batch(), decouple=False, photometric_x2=PhotometricConfig(jitter_p=1.0, solarize_p=0.5))
    smaller = torch.nn.functional.interpolate(
        views.teacher_x2.images, size=(40, 40), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(views.student_x2_small.images, smaller, atol=1e-4, rtol=0)
    torch.testing.assert_close(views.student_x2_small.boxes, views.teacher_x2.boxes / 2, atol=1e-3, rtol=0)


def test_x2_is_a_crop_of_x1s_window():
    views = make(make_batch(32), geometry=GeometryConfig(x1_area=(0.4, 0.6), x2_area=(0.3, 0.7), flip=0.5))
    windows = []
    for view in (views.teacher_x1, views.teacher_x2):
        corners = torch.tensor([[0.0, 0, 1], [80, 80, 1]]).T
        mapped = (torch.linalg.inv(view.matrix) @ corners)[:, :2]
        windows.append((mapped.amin(dim=2), mapped.amax(dim=2)))
    (low1, high1), (low2, high2) = windows
    assert (low2 >= low1 - 1e-2).all() and (high2 <= high1 + 1e-2).all()
    share = (high2 - low2).prod(1) / (high1 - low1).prod(1)
    assert share.min() > 0.29 and share.max() < 0.71 and share.std() > 0.05
    mirrored = [(view.matrix[:, 0, 0] < 0).float().mean() for view in (views.teacher_x1, views.teacher_x2)]
    assert all(0.2 < share < 0.8 for share in mirrored)


# ---- the choice of regions --------------------------------------------------------------------------------------


def test_regions_survive_in_every_view():
    geometry = GeometryConfig(x1_area=(0.3, 0.5), x2_area=(0.3, 0.6))
    for min_visible, min_side in ((0.3, 4.0), (0.9, 4.0), (0.3, 18.0)):
        batch = make_batch(64)
        views = make(batch, geometry=geometry, min_visible=min_visible, min_side=min_side)
        assert 0 < views.valid.float().mean() < 1
        for view in (views.teacher_x1, views.teacher_x2, views.student_x2_small):
            sides = (view.boxes[..., 2:] - view.boxes[..., :2])[views.valid]
            assert sides.min() >= min_side - 0.01
            whole = (views.canvas_boxes[..., 2:] - views.canvas_boxes[..., :2]).prod(-1)
            scale = (view.matrix[:, 0, 0] * view.matrix[:, 1, 1]).abs()[:, None]
            assert (sides.prod(-1) / (whole * scale)[views.valid]).min() >= min_visible - 0.01


def test_choice_is_uniform_among_those_alive_and_fills_the_first_slots():
    alive = torch.tensor([[True, False, True, True, False, True]]).repeat(6000, 1)
    chosen, valid = choose(alive, 2, torch_generator(0))
    assert valid.all()
    assert (chosen[:, 0] != chosen[:, 1]).all()
    for slot in range(2):
        counts = chosen[:, slot].bincount(minlength=6)
        assert counts[1] == counts[4] == 0
        assert (counts[[0, 2, 3, 5]] - 1500).abs().max() < 5 * 34
    chosen, valid = choose(alive[:3], 5, torch_generator(0))
    assert valid.tolist() == [[True] * 4 + [False]] * 3
    assert (chosen[:, 4] == 0).all()
    chosen, valid = choose(torch.zeros(2, 0, dtype=torch.bool), 3, torch_generator(0))
    assert chosen.shape == (2, 3) and not valid.any()


def test_limits_of_survival():
    boxes = torch.tensor(
        [[[0.0, 0.0, 20.0, 20.0], [-10.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 30.0], [1.0, 1.0, 1.0, 1.0]]]
    )
    view = [(torch.eye(3)[None], (32, 32))]
    assert survives(boxes, view, 0.5, 6.0).tolist() == [[True, True, False, False]]
    assert survives(boxes, view, 0.6, 5.0).tolist() == [[True, False, True, False]]
    assert survives(boxes, view, 0.0, 0.0).tolist() == [[True, True, True, False]]


def test_labels_of_candidates_become_those_of_slots():
    labels = torch.tensor([[[0, 1, 2], [3, 4, 200]]], dtype=torch.uint8)
    chosen, valid = torch.tensor([[3, 1, 0]]), torch.tensor([[True, True, False]])
    assert slot_labels(labels, chosen, valid).tolist() == [[[0, 0, 2], [0, 1, 0]]]


def test_images_without_candidates_have_no_valid_slot():
    batch = make_batch(labels=False)
    empty = dataclasses.replace(batch, boxes=batch.boxes[:, :0], valid=batch.valid[:, :0])
    views = make(empty)
    assert views.valid.shape == (BATCH, 4) and not views.valid.any() and not kept(third(views)).any()


# ---- de-coupling ------------------------------------------------------------------------------------------------


def test_the_student_sees_cut_regions_and_the_teacher_whole_ones():
    views = make(make_batch(64))
    for student, teacher in ((views.student_x1, views.teacher_x1), (views.student_x2_small, None)):
        assert (student.images * ~kept(student)).abs().max() == 0  # the mean colour
        size = (student.images.shape[2], student.images.shape[3])
        regions = union_mask(student.boxes, views.valid, size)
        assert kept(student)[~regions].all()
        share = (~kept(student) & regions).sum() / regions.sum()
        assert 0.15 < share < 0.4
        if teacher is not None:
            assert teacher.keep is None
            assert torch.equal(torch.where(kept(student), teacher.images, 0.0), student.images)


def cut_share(view: View, where: torch.Tensor) -> float:
    return float((~kept(view) & where).sum() / where.sum())


@pytest.mark.parametrize(("where", "regions", "surroundings"), [("regions", 1, 0), ("context", 0, 1), ("both", 1, 1)])
def test_cutout_where(where, regions, surroundings):
    views = make(make_batch(32), cutout_where=where)
    for view in (views.student_x1, views.student_x2_small):
        outside = context(view, views.valid)
        inside = union_mask(view.boxes, views.valid, (view.images.shape[2], view.images.shape[3]))
        assert (cut_share(view, inside) > 0.1) == bool(regions)
        assert (cut_share(view, outside) > 0.1) == bool(surroundings)


def test_cutout_ratio():
    shares = []
    for ratio in (0.0, 0.2, 0.5):
        views = make(make_batch(32), cutout_ratio=ratio)
        shares.append(cut_share(views.student_x1, union_mask(views.student_x1.boxes, views.valid, (80, 80))))
    assert shares[0] == 0 and 0.1 < shares[1] < shares[2] - 0.1


def test_cutout_fill_mix_shows_another_image():
    batch = make_batch(coloured=True)
    views = make(batch, cutout_fill="mix")
    for view in (views.student_x1, views.student_x2_small):
        own = (raw(view)[:, :1] - batch.canvas[:, :1, :1, :1]).abs() < 1
        assert torch.equal(own, kept(view))


@pytest.mark.parametrize("fill", ["mean", "mix"])
@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 1, 1)])
def test_dc_background(fill, probability, low, high):
    batch = make_batch(60, coloured=True)
    batch.canvas[:] = (torch.arange(60, dtype=torch.uint8) * 4 + 3)[:, None, None, None]
    views = make(batch, dc_background="mix", dc_mix_p=probability, cutout_fill=fill)
    for view in (views.student_x1, views.student_x2_small):
        outside = context(view, views.valid)
        own = (raw(view)[:, :1] - batch.canvas[:, :1, :1, :1]).abs() < 1
        has_context = outside.flatten(1).any(1)
        mixed = torch.tensor([not own[b][outside[b]].any() for b in range(60)])[has_context]
        assert low <= mixed.float().mean() <= high
        assert not (own & ~kept(view)).any()
        assert (own | ~kept(view)).all()
        if fill == "mean":
            inside = union_mask(view.boxes, views.valid, (view.images.shape[2], view.images.shape[3]))
            assert (view.images * (inside & ~kept(view))).abs().max() == 0


def test_teacher_sees_cut_views_with_draws_of_its_own():
    views = make(make_batch(), teacher_sees="cut")
    assert not kept(views.teacher_x1).all() and not kept(views.teacher_x2).all()
    assert not torch.equal(kept(views.teacher_x1), kept(views.student_x1))
    assert make(make_batch(), teacher_sees="cut", decouple=False).teacher_x1.keep is None


# ---- de-positioning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["union", "each"])
@pytest.mark.parametrize("carries", ["box", "mask"])
def test_outside_the_moved_regions_no_pixel_of_the_image_remains(mode, carries):
    """Images of one colour each: own pixels are where ``keep`` says, and inside the boxes only."""
    batch = make_batch(coloured=True)
    views = make(batch, shift_mode=mode, shift_carries=carries)
    view = third(views)
    own = (raw(view)[:, :1] - batch.canvas[:, :1, :1, :1]).abs() < 1
    assert torch.equal(own, kept(view))
    assert not (own & ~union_mask(view.boxes, views.valid, (80, 80))).any()
    assert 0.05 < own.float().mean() < 0.95
    for b in range(BATCH):
        assert len(raw(view)[b][:, ~kept(view)[b, 0]].round().unique()) == 1  # one other image


@pytest.mark.parametrize("mode", ["union", "each"])
def test_all_valid_regions_stay_inside_x3(mode):
    for seed in range(5):
        views = make(make_batch(16, seed=seed), seed, shift_mode=mode, shift_scale=(0.5, 1.2))
        sides = third(views).boxes[..., 2:] - third(views).boxes[..., :2]
        before = views.teacher_x2.boxes[..., 2:] - views.teacher_x2.boxes[..., :2]
        assert (sides[views.valid] >= 0.49 * before[views.valid]).all()  # inside and not clipped away
        assert (third(views).boxes >= 0).all() and (third(views).boxes <= 80).all()


def test_shift_mode_and_scale():
    batch = make_batch(32)
    moved = {}
    for mode in ("union", "each"):
        views = make(batch, shift_mode=mode, shift_scale=(1.0, 1.0))
        offset = (third(views).boxes - views.teacher_x2.boxes)[..., :2]
        pair = views.valid[:, :2].all(dim=1)
        moved[mode] = (offset[pair, 0] - offset[pair, 1]).norm(dim=1).median()
    assert moved["union"] < 1e-3 and moved["each"] > 3
    views = make(batch, shift_scale=(0.5, 0.5))
    half = views.teacher_x2.boxes[views.valid] / 2
    new = third(views).boxes[views.valid]
    torch.testing.assert_close(new[:, 2:] - new[:, :2], half[:, 2:] - half[:, :2], atol=1e-3, rtol=0)


def test_a_foreground_that_is_not_moved_stays_where_x2_has_it():
    batch = make_batch(16, labels=False)
    views = make(batch, shift_mode="none", x3_cutout=False, x3_photometric="same")
    assert torch.equal(third(views).boxes, views.teacher_x2.boxes)
    inside = union_mask(third(views).boxes, views.valid, (80, 80))
    assert torch.equal(kept(third(views)), inside)
    difference = (third(views).images - views.teacher_x2.images).abs().amax(dim=1, keepdim=True)
    assert difference[inside].max() < 1e-5 and difference[~inside].median() > 0.1


def test_x3_on_the_mean_colour_needs_no_other_image():
    for mode in ("union", "each"):
        views = make(make_batch(coloured=True), x3_background="mean", shift_mode=mode)
        blank = (third(views).images == 0).all(dim=1, keepdim=True)
        assert torch.equal(blank, ~kept(third(views)))
    alone = make(make_batch(1), x3_background="mean")
    assert third(alone).images.shape == (1, 3, 80, 80)


def test_dc_by_masks_keeps_the_masks_only():
    batch = make_batch(16, coloured=True)
    views = make(batch, dc_background="mix", dc_carries="mask", cutout_ratio=0.0)
    view = views.student_x1
    assert view.labels is not None
    assert torch.equal(kept(view), (view.labels > 0)[:, None])
    whole = make(batch, dc_background="mix", cutout_ratio=0.0).student_x1
    assert (kept(whole) & ~kept(view)).any() and not (kept(view) & ~kept(whole)).any()
    for b in range(16):
        assert len(raw(view)[b][:, ~kept(view)[b, 0]].round().unique()) == 1  # one other image


def test_x3_cutout():
    batch, options = make_batch(32, labels=False), {"regions_per_image": 1, "shift_scale": (1.0, 1.0)}
    for switch, low, high in ((True, 0.6, 0.8), (False, 0.99, 1.0)):
        views = make(batch, x3_cutout=switch, **options)
        inside = union_mask(third(views).boxes, views.valid, (80, 80))
        assert low <= float((kept(third(views)) & inside).sum() / inside.sum()) <= high


def test_x3_background_cutout():
    """The background is another image with its own regions cut: the mean colour shows outside the foreground."""
    for switch in (False, True):
        views = make(make_batch(coloured=True), x3_background_cutout=switch)
        blank = (third(views).images == 0).all(dim=1, keepdim=True)
        assert bool(blank.any()) == switch
        assert not (blank & kept(third(views))).any()


def test_x3_photometric():
    jitter = PhotometricConfig(
        jitter_p=1.0, brightness=0.8, contrast=0.0, saturation=0.0, hue=0.0, grey_p=0.0, blur_p=0.0
    )
    batch = make_batch(16, coloured=True)
    for choice in ("fresh", "same"):
        views = make(batch, photometric_x2=jitter, x3_photometric=choice)
        of_x2 = raw(views.teacher_x2)[:, 0, 0, 0]
        same = ((raw(third(views))[:, :1] - of_x2[:, None, None, None]).abs() < 1) & kept(third(views))
        assert (same.sum() == kept(third(views)).sum()) == (choice == "same")


def test_x3_needs_no_decoupling():
    views = make(make_batch(), decouple=False)
    assert third(views).keep is not None and views.student_x1.keep is None


# ---- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"deposition": False, "cutout_fill": "mix"}, {"deposition": False, "dc_background": "mix"}]
)
def test_one_image_cannot_be_mixed(options):
    with pytest.raises(InputError, match="other images"):
        make(make_batch(1), **options)


def test_one_image_is_enough_where_nothing_is_mixed():
    assert make(make_batch(1), deposition=False).student_x1.keep is not None


def test_masks_need_label_maps():
    with pytest.raises(InputError, match="label maps"):
        make(make_batch(labels=False), shift_carries="mask")
    with pytest.raises(InputError, match=r"views\.dc_carries is mask"):
        make(make_batch(labels=False), dc_background="mix", dc_carries="mask", deposition=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cutout_ratio", 1.2),
        ("min_visible", -0.1),
        ("min_side", -1.0),
        ("small_ratio", 0.0),
        ("small_ratio", 0.05),
        ("regions_per_image", 0),
        ("shift_scale", (0.9, 0.5)),
        ("dc_mix_p", 0.5),
        ("dc_carries", "mask"),
    ],
)
def test_impossible_configuration_is_a_clear_error(name, value):
    with pytest.raises(InputError, match=name):
        config(**{name: value})


def test_a_cut_background_that_is_not_shown_is_an_error():
    with pytest.raises(InputError, match="x3_background_cutout has no effect"):
        config(x3_background="mean", x3_background_cutout=True)


def test_tensors_of_parameters_are_drawn_on_the_cpu_and_can_be_replayed():
    batch = make_batch()
    views = D3Views(ViewsConfig(size=80), MEAN, STD, decouple=True, deposition=True)
    drawn = views.sample(batch, torch_generator(0))
    first, second = views.apply(batch, drawn), views.apply(batch, drawn)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert np.isfinite(third(first).images.numpy()).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cutout_where": "both", "dc_background": "mix", "cutout_fill": "mix", "teacher_sees": "cut"},
        {"shift_mode": "union", "shift_carries": "mask", "x3_background_cutout": True, "x3_photometric": "same"},
    ],
)
def test_views_are_made_on_the_canvas_s_device(options):
    """Parameters come from the CPU; nothing else may stay there (PyTorch's meta device stands for a GPU)."""
    batch = make_batch()
    views = D3Views(ViewsConfig(size=80, **options), MEAN, STD, decouple=True, deposition=True)
    made = views.apply(map_tensors(batch, lambda tensor: tensor.to("meta")), views.sample(batch, torch_generator(0)))
    assert {tensor.device.type for tensor in tensors(made)} == {"meta"}
