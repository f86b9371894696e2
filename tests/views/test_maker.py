"""The views of a step: pixels, boxes and label maps agree, and each draw depends on its own name alone."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.contracts import Slots, View, ViewSet, map_tensors
from d3ssl.errors import InputError
from d3ssl.seeds import Draws
from d3ssl.views import RegionsSpec, ViewMaker, ViewSpec
from d3ssl.views.masks import union_mask
from d3ssl.views.ops import Alone, ContextCutout, FillHoles, MixBackground, Operation, Photometric, RegionCutout, Shift
from d3ssl.views.ops.shift import shift_boxes, shift_matrices
from tests.views.canvases import BATCH, MEAN, STD, kept, labels_of, make_batch, make_table, make_views, raw, tensors

NAMES = ("x1", "x2", "x2_small", "x1_cut", "x3")


def make_maker(table: dict[str, ViewSpec] | None = None, **options) -> ViewMaker:
    return ViewMaker(table or make_table(), RegionsSpec(**options), MEAN, STD)


# ---- the set as a whole -------------------------------------------------------------------------------------------


def test_sizes_and_slots() -> None:
    batch = make_batch()
    views = make_views(batch)
    assert tuple(views.views) == NAMES
    for name, view in views.views.items():
        side = 40 if name == "x2_small" else 80
        assert view.images.shape == (BATCH, 3, side, side)
        assert view.boxes.shape == (BATCH, 4, 4)
        assert (view.boxes >= 0).all() and (view.boxes <= side).all()
        assert labels_of(view).shape == (BATCH, side, side)
    assert torch.equal(views.slots.index, batch.index)
    torch.testing.assert_close(views.scale, 1 / views.slots.weight.sum())
    torch.testing.assert_close(views.slots.weight.sum(1), views.slots.distinct.sum(1).float())


@pytest.mark.parametrize("labels", [True, False])
def test_same_draws_same_views(labels: bool) -> None:
    batch, maker = make_batch(labels=labels), make_maker()
    first, again = (tensors(maker(batch, Draws(seed=3))) for _ in range(2))
    assert len(first) == len(again) > 15
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (Draws(seed=4), Draws(seed=3, step=1), Draws(seed=3, part=1), Draws(seed=3, rank=1)):
        assert not torch.equal(first[0], tensors(maker(batch, other))[0])


def test_the_global_random_state_has_no_influence_and_keeps_its_value() -> None:
    batch, before = make_batch(), torch.random.get_rng_state()
    first = make_views(batch)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(first.views["x3"].images, make_views(batch).views["x3"].images)


def test_drawn_parameters_can_be_replayed_and_views_made_one_by_one() -> None:
    batch, maker = make_batch(), make_maker(make_table(Photometric()))
    drawn = maker.sample(batch, Draws(seed=0))
    first, second = maker.apply(batch, drawn), maker.apply(batch, drawn)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    table, regions = make_table(Photometric()), RegionsSpec(min_side=0.0, min_visible=0.0)
    every = ViewMaker(table, regions, MEAN, STD)(batch, Draws(seed=0)).views
    for name in ("x1", "x2", "x2_small", "x3"):
        single = ViewMaker(table, regions, MEAN, STD, [name])(batch, Draws(seed=0)).views
        assert list(single) == [name]
        assert torch.equal(single[name].images, every[name].images)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    batch = make_batch()
    batch = dataclasses.replace(batch, canvas=batch.canvas[:, :1].repeat(1, channels, 1, 1))
    maker = ViewMaker(make_table(Photometric()), RegionsSpec(), (0.5,) * channels, (0.25,) * channels)
    assert maker(batch, Draws(seed=0)).views["x3"].images.shape == (BATCH, channels, 80, 80)


def test_views_are_made_on_the_canvas_s_device() -> None:
    """Parameters come from the CPU; nothing else may stay there (PyTorch's meta device stands for a GPU)."""
    table = make_table(Photometric(), shift=Shift(carried_by="mask"))
    every = (MixBackground(carried_by="mask"), RegionCutout(), ContextCutout(), FillHoles(), Alone(size=24))
    table["alone"] = ViewSpec(size=80, source="x2", operations=every)
    batch, maker = make_batch(), make_maker(table)
    drawn = maker.sample(batch, Draws(seed=0))
    made = maker.apply(map_tensors(batch, lambda tensor: tensor.to("meta")), drawn)
    assert {tensor.device.type for tensor in tensors(made)} == {"meta"}


# ---- draws by name ------------------------------------------------------------------------------------------------

OPERATIONS = (MixBackground(), RegionCutout(), ContextCutout(), Shift(), FillHoles())


@settings(max_examples=15, deadline=None)
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), unique=True, min_size=1, max_size=5),
    gone=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_to_add_or_remove_an_operation_changes_no_other_draw(operations: list, gone: int, seed: int) -> None:
    gone %= len(operations)
    fewer = [*operations[:gone], *operations[gone + 1 :]]
    drawn = []
    for own in (operations, fewer):
        table = make_table(Photometric())
        table["x1_cut"] = dataclasses.replace(table["x1_cut"], operations=tuple(own))
        drawn.append(make_maker(table).sample(make_batch(), Draws(seed=seed)))
    with_it, without = drawn
    of_it = with_it.operations["x1_cut"]
    drawn_before = {**with_it.operations, "x1_cut": of_it[:gone] + of_it[gone + 1 :]}
    assert _equal(tensors_of(drawn_before), tensors_of(without.operations))
    assert _equal(tensors(with_it.matrices), tensors(without.matrices))
    assert _equal(tensors(with_it.photometric), tensors(without.photometric))
    assert _equal(tensors(with_it.slots), tensors(without.slots))


def test_to_add_a_view_changes_no_other_view() -> None:
    batch, table = make_batch(), make_table(Photometric())
    more = {**table, "again": dataclasses.replace(table["x1_cut"], source="x2")}
    first, second = make_views(batch, table=table), make_views(batch, table=more)
    for name in NAMES:
        assert _equal(tensors(first.views[name]), tensors(second.views[name]))
    assert not torch.equal(kept(second.views["again"]), kept(second.views["x1_cut"]))


def tensors_of(operations: dict[str, list]) -> list[torch.Tensor]:
    return [tensor for own in operations.values() for drawn in own for tensor in tensors(drawn)]


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---- geometry -----------------------------------------------------------------------------------------------------


def test_a_marker_in_a_region_is_found_at_its_place_in_every_view() -> None:
    """The centre of every region is painted on the canvas; its centroid in a view is where the mapped box puts it."""
    found, radius = dict.fromkeys(NAMES, 0), 4
    table = make_table(x1_area=(0.6, 1.0), x2_area=(0.5, 1.0), shift=Shift(mode="union"))
    table["x3"] = dataclasses.replace(table["x3"], operations=(Shift(mode="union"), FillHoles()))
    table["x1_cut"] = dataclasses.replace(table["x1_cut"], operations=(RegionCutout(ratio=0.1),))
    for seed in range(6):
        batch = make_batch(16, labels=False, seed=seed)
        batch = dataclasses.replace(batch, valid=torch.arange(6).expand(16, 6) == 0)  # one candidate each
        batch.canvas.zero_()
        for b in range(16):
            x, y = ((batch.boxes[b, 0, :2] + batch.boxes[b, 0, 2:]) / 2).int().tolist()
            batch.canvas[b, :, y - radius : y + radius, x - radius : x + radius] = 255
        views = make_views(batch, seed, table, RegionsSpec(regions_per_image=1, min_visible=0.95))
        for name in NAMES:
            for b in views.slots.distinct[:, 0].nonzero()[:, 0].tolist():
                found[name] += _marker_is_in_place(views, name, b)
    assert min(found.values()) > 20, found


def _marker_is_in_place(views: ViewSet, name: str, b: int) -> int:
    """1 where the marker was seen and is in its place, 0 where it lies next to the border or is hidden."""
    view, old, base = views.views[name], views.slots.boxes[b, 0], views.views["x2"]
    centre = torch.cat([((old[:2] + old[2:]) / 2).int().float(), torch.ones(1)])
    if name == "x3":  # where x3's box puts a point of x2: the shift does not mirror
        relative = ((base.matrix[b] @ centre)[:2] - base.boxes[b, 0, :2]) / (
            base.boxes[b, 0, 2:] - base.boxes[b, 0, :2]
        )
        expected = view.boxes[b, 0, :2] + relative * (view.boxes[b, 0, 2:] - view.boxes[b, 0, :2])
    else:
        expected = (view.matrix[b] @ centre)[:2]
    own = raw(view)[b, 0] * (1 if view.keep is None else kept(view)[b, 0])
    is_cut = name == "x1_cut" and bool((~kept(view)[b]).any() and own.sum() < 0.95 * raw(views.views["x1"])[b, 0].sum())
    if is_cut or own.sum() < 255 * 8 or bool(((expected < 8) | (expected > view.images.shape[3] - 8)).any()):
        return 0
    mass, steps = own / own.sum(), torch.arange(own.shape[0]) + 0.5
    position = torch.stack([(mass.sum(0) * steps).sum(), (mass.sum(1) * steps).sum()])
    assert (position - expected).abs().max() < 0.5, name
    return 1


def test_labels_agree_with_the_boxes_in_every_view() -> None:
    table = make_table(shift=Shift(carried_by="mask"))
    views = make_views(make_batch(), table=table, regions=RegionsSpec(regions_per_image=2))
    seen = 0
    for view in views.views.values():
        size = (view.images.shape[2], view.images.shape[3])
        for k in range(2):
            of_slot = labels_of(view) == k + 1
            box = union_mask(view.boxes[:, k : k + 1], views.slots.distinct[:, k : k + 1], size)[:, 0]
            assert not (of_slot & ~box).any()
            seen += int(of_slot.any(dim=2).any(dim=1).sum())
    assert seen > 40
    x3 = views.views["x3"]
    assert not (kept(x3)[:, 0] & (labels_of(x3) == 0)).any()  # nothing but the masks is shown


def test_x2_small_is_x2_at_half_size() -> None:
    views = make_views(make_batch(), table=make_table(Photometric(jitter_p=1.0, solarize_p=0.5))).views
    smaller = torch.nn.functional.interpolate(
        views["x2"].images, size=(40, 40), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(views["x2_small"].images, smaller, atol=1e-4, rtol=0)
    torch.testing.assert_close(views["x2_small"].boxes, views["x2"].boxes / 2, atol=1e-3, rtol=0)


def test_x2_is_a_crop_of_x1s_window() -> None:
    views = make_views(make_batch(32), table=make_table(x1_area=(0.4, 0.6), x2_area=(0.3, 0.7))).views
    windows = []
    for view in (views["x1"], views["x2"]):
        mapped = (torch.linalg.inv(view.matrix) @ torch.tensor([[0.0, 0, 1], [80, 80, 1]]).T)[:, :2]
        windows.append((mapped.amin(dim=2), mapped.amax(dim=2)))
    (low1, high1), (low2, high2) = windows
    assert (low2 >= low1 - 1e-2).all() and (high2 <= high1 + 1e-2).all()
    share = (high2 - low2).prod(1) / (high1 - low1).prod(1)
    assert share.min() > 0.29 and share.max() < 0.71 and share.std() > 0.05
    mirrored = [float((views[name].matrix[:, 0, 0] < 0).float().mean()) for name in ("x1", "x2")]
    assert all(0.2 < share < 0.8 for share in mirrored)


def test_a_cut_copy_is_its_source_where_it_is_kept_and_the_mean_colour_elsewhere() -> None:
    views = make_views(make_batch(), table=make_table(Photometric())).views
    keep = kept(views["x1_cut"])
    assert 0 < keep.float().mean() < 1
    assert torch.equal(views["x1_cut"].images, torch.where(keep, views["x1"].images, 0.0))
    assert torch.equal(views["x1_cut"].boxes, views["x1"].boxes)
    assert views["x1"].keep is None


@pytest.mark.parametrize("mode", ["union", "each", "none"])
def test_the_boxes_of_x3_follow_the_shift_and_so_do_repeated_slots(mode) -> None:  # type: ignore[no-untyped-def]
    shift = Shift(mode=mode)
    batch = dataclasses.replace(make_batch(), valid=torch.arange(6).expand(BATCH, 6) < 2)
    maker = make_maker(make_table(shift=shift))
    drawn = maker.sample(batch, Draws(seed=5))
    views = maker.apply(batch, drawn)
    slots, before = views.slots, views.views["x2"].boxes
    matrices = shift_matrices(before, slots.distinct, (80, 80), drawn.operations["x3"][1], mode=mode, scale=shift.scale)
    expected = shift_boxes(before, slots.distinct, matrices, (80, 80))
    expected = expected.gather(1, slots.source[..., None].expand_as(expected))
    torch.testing.assert_close(views.views["x3"].boxes, expected)
    assert torch.equal(views.views["x3"].boxes, before) == (mode == "none")
    for view in views.views.values():  # whatever was done to a view
        assert torch.equal(view.boxes, view.boxes.gather(1, slots.source[..., None].expand_as(view.boxes)))


def test_one_image_cannot_be_mixed_but_is_enough_where_nothing_is() -> None:
    with pytest.raises(InputError, match="another image"):
        make_views(make_batch(1))
    table = make_table()
    table["x3"] = dataclasses.replace(table["x3"], operations=(RegionCutout(), Shift()))
    assert make_views(make_batch(1), table=table).views["x3"].images.shape == (1, 3, 80, 80)


def test_an_operation_of_somebody_else_needs_no_more_than_its_own_file() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Darken(Operation):
        name = "darken"

        def sample(self, batch, slots: int, generator: torch.Generator) -> torch.Tensor:
            return torch.rand(len(batch.canvas), generator=generator)

        def apply(self, view: View, slots: Slots, drawn: torch.Tensor, whole: torch.Tensor) -> View:
            return dataclasses.replace(view, images=view.images * drawn[:, None, None, None])

    table = {**make_table(), "dark": ViewSpec(size=80, source="x1", operations=(Darken(),))}
    views = make_views(make_batch(), table=table).views
    factor = views["dark"].images[:, 0, 0, 0] / views["x1"].images[:, 0, 0, 0]
    torch.testing.assert_close(views["dark"].images, views["x1"].images * factor[:, None, None, None])
