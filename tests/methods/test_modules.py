"""The modules as functions from plan to plan: they commute, and each option has the effect that it names."""

import dataclasses
from typing import Any

import pytest
import torch

from d3ssl.contracts import CanvasBatch, View, ViewSet
from d3ssl.errors import InputError
from d3ssl.methods import DecoupleConfig, DepositionConfig, Plan, decouple, deposition
from d3ssl.methods.hosts import Byol, Soco
from d3ssl.seeds import Draws
from d3ssl.views import RegionsSpec, ViewMaker
from d3ssl.views.masks import union_mask
from d3ssl.views.ops import Photometric
from tests.methods.examples import HOSTS, all_modules
from tests.views.canvases import MEAN, PLAIN, STD, kept, labels_of, make_batch, raw, tensors

HOST = Soco(photometric_x1=PLAIN, photometric_x2=PLAIN)
REPLACED = [name for name in HOSTS if HOSTS[name].plan(64, RegionsSpec()).copies is None]
"""Hosts whose views de-coupling replaces by cut ones."""


def base_plan(host: Any = HOST, **regions: Any) -> Plan:
    return host.plan(80, RegionsSpec(**regions))


def make(batch: CanvasBatch, plan: Plan, seed: int = 0) -> ViewSet:
    plan.check()
    return ViewMaker(plan.views, plan.regions, MEAN, STD)(batch, Draws(seed=seed))


def with_dc(batch: CanvasBatch, **options: Any) -> ViewSet:
    return make(batch, decouple(base_plan(), DecoupleConfig(**options)))


def with_dp(batch: CanvasBatch, plan: Plan | None = None, **options: Any) -> ViewSet:
    return make(batch, deposition(plan or base_plan(), DepositionConfig(**options)))


def inside(view: View, views: ViewSet, grow: float = 0.0) -> torch.Tensor:
    grown = view.boxes + torch.tensor([-grow, -grow, grow, grow])
    return union_mask(grown, views.slots.distinct, (view.images.shape[2], view.images.shape[3]))


def cut_share(view: View, where: torch.Tensor) -> float:
    return float((~kept(view) & where).sum() / where.sum())


# ---- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPLACED)
def test_the_modules_commute_with_every_combination_of_options(name: str) -> None:
    plan = HOSTS[name].plan(64, RegionsSpec())
    dcs, dps = all_modules()  # each with several of the other's
    for number in range(3 * len(dps)):
        dc, dp = dcs[number % len(dcs)], dps[number % len(dps) - number // len(dps)]
        one, other = deposition(decouple(plan, dc), dp), decouple(deposition(plan, dp), dc)
        assert one == other
    one.check()


@pytest.mark.parametrize("name", HOSTS)
def test_a_plan_is_not_changed_and_names_its_modules(name: str) -> None:
    plan = HOSTS[name].plan(64, RegionsSpec())
    before = dataclasses.replace(plan, views=dict(plan.views), objectives=dict(plan.objectives))
    both = decouple(deposition(plan))
    assert plan == before
    assert both.title == f"{name} + DC + DP"
    assert both.moved == plan.moved and both.cut == plan.cut


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("teacher", ["whole", "cut"])
def test_who_sees_cut_views(name: str, teacher: str) -> None:
    plan = HOSTS[name].plan(64, RegionsSpec())
    both = deposition(decouple(plan, DecoupleConfig(teacher=teacher)), DepositionConfig(weight=0.5))  # type: ignore[arg-type]
    host = next(iter(both.objectives))
    for pair, old in zip(both.objectives[host].pairs, plan.objectives[host].pairs, strict=True):
        assert pair.student == f"{old.student}_cut"
        assert pair.teacher == (f"{old.teacher}_cut_teacher" if teacher == "cut" else old.teacher)
        assert pair.weight == old.weight
    pairs = both.objectives["deposition"].pairs
    assert {pair.teacher for pair in pairs} == {pair.teacher for pair in both.objectives[host].pairs}
    assert {pair.student for pair in pairs} == {"x3"}
    assert sum(pair.weight for pair in pairs) == pytest.approx(0.5)
    assert both.objectives["deposition"].reader.rows == "region"


def test_a_host_that_reads_regions_shares_its_heads_with_x3() -> None:
    assert deposition(base_plan()).objectives["deposition"].shares == "region"
    assert deposition(base_plan(Byol())).objectives["deposition"].shares is None


def test_what_a_module_needs_of_a_plan() -> None:
    plan = base_plan()
    with pytest.raises(InputError, match=r"no views that de-coupling may cut(.|\n)*method\.decouple false"):
        decouple(dataclasses.replace(plan, cut=()))
    with pytest.raises(InputError, match=r"no view whose foreground may be moved(.|\n)*method\.deposition false"):
        deposition(dataclasses.replace(plan, moved=None))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("DC", {"cutout": 1.2}, r"dc\.cutout is 1\.2"),
        ("DP", {"cutout": -0.1}, r"dp\.cutout is -0\.1"),
        ("DP", {"scale": (0.9, 0.5)}, r"dp\.scale"),
        ("DP", {"weight": -1.0}, r"dp\.weight is -1\.0"),
    ],
)
def test_impossible_options_are_one_clear_error(module: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decouple(base_plan(), DecoupleConfig(**options)) if module == "DC" else deposition(
            base_plan(), DepositionConfig(**options)
        )


@pytest.mark.parametrize("host", [Soco(), Byol()])
def test_modules_do_not_change_the_views_of_the_host(host: Any) -> None:
    """A host and D³SSL are compared on the same crops, colours and regions."""
    batch, plan = make_batch(), base_plan(host)
    alone = make(batch, plan)
    for other in (decouple(plan), deposition(plan), deposition(decouple(plan, DecoupleConfig(cutout_where="both")))):
        views = make(batch, other)
        for name in plan.views:
            assert all(
                torch.equal(a, b) for a, b in zip(tensors(alone.views[name]), tensors(views.views[name]), strict=True)
            )
        assert torch.equal(alone.slots.boxes, views.slots.boxes)


# ---- de-coupling --------------------------------------------------------------------------------------------------


def test_the_student_sees_cut_regions_and_the_teacher_whole_ones() -> None:
    views = with_dc(make_batch(32))
    for name in ("x1", "x2_small"):
        cut, whole = views.views[f"{name}_cut"], views.views[name]
        assert whole.keep is None
        assert torch.equal(torch.where(kept(cut), whole.images, 0.0), cut.images)
        assert kept(cut)[~inside(cut, views)].all()
        assert 0.15 < cut_share(cut, inside(cut, views)) < 0.4


@pytest.mark.parametrize(("where", "regions", "surroundings"), [("regions", 1, 0), ("context", 0, 1), ("both", 1, 1)])
def test_cutout_where(where: str, regions: int, surroundings: int) -> None:
    views = with_dc(make_batch(32), cutout_where=where)
    for view in (views.views["x1_cut"], views.views["x2_small_cut"]):
        assert (cut_share(view, inside(view, views)) > 0.1) == bool(regions)
        assert (cut_share(view, ~inside(view, views, 1.0)) > 0.1) == bool(surroundings)


def test_cutout_fill_mix_shows_another_image() -> None:
    batch = make_batch(coloured=True)
    for name in ("x1_cut", "x2_small_cut"):
        view = with_dc(batch, cutout_fill="mix").views[name]
        own = (raw(view)[:, :1] - batch.canvas[:, :1, :1, :1]).abs() < 1
        assert torch.equal(own, kept(view))


@pytest.mark.parametrize("background", ["outside_boxes", "outside_masks"])
def test_another_image_is_shown_outside_the_regions_never_the_image_itself(background: str) -> None:
    """Also where the same image of the data set is twice in the batch."""
    batch = make_batch(16, coloured=True)
    batch.canvas[1], batch.index[1] = batch.canvas[0], batch.index[0]
    views = with_dc(batch, background=background, cutout=0.0)
    for name in ("x1_cut", "x2_small_cut"):
        view = views.views[name]
        own = (raw(view)[:, :1] - batch.canvas[:, :1, :1, :1]).abs() < 1
        assert torch.equal(own, kept(view))
        shown = inside(view, views) if background == "outside_boxes" else (labels_of(view) > 0)[:, None]
        assert torch.equal(kept(view), shown)
        for b in range(16):
            assert len(raw(view)[b][:, ~kept(view)[b, 0]].round().unique()) <= 1  # one other image


def test_a_region_without_a_mask_among_others_with_one_counts_by_its_box() -> None:
    batch = make_batch(8, coloured=True)
    assert batch.labels is not None
    batch.labels[batch.labels == 2] = 0
    views = with_dc(batch, background="outside_masks", cutout=0.0)
    view, found = views.views["x1_cut"], 0
    for b in range(8):
        for k in views.slots.distinct[b].nonzero()[:, 0].tolist():
            if not (labels_of(view)[b] == k + 1).any():
                box = union_mask(view.boxes[b : b + 1, k : k + 1], torch.ones(1, 1, dtype=torch.bool), (80, 80))
                assert kept(view)[b][box[0]].all()
                found += 1
    assert found > 3


# ---- de-positioning -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["union", "each"])
@pytest.mark.parametrize("carries", ["box", "mask"])
def test_outside_the_moved_regions_no_pixel_of_the_image_remains(mode: str, carries: str) -> None:
    """Images of one colour each: own pixels are where ``keep`` says, and inside the boxes only."""
    batch = make_batch(coloured=True)
    views = with_dp(batch, shift=mode, carried_by=carries)
    view = views.views["x3"]
    own = (raw(view)[:, :1] - batch.canvas[:, :1, :1, :1]).abs() < 1
    assert torch.equal(own, kept(view))
    assert not (own & ~inside(view, views)).any()
    assert 0.05 < own.float().mean() < 0.95
    for b in range(len(own)):
        assert len(raw(view)[b][:, ~kept(view)[b, 0]].round().unique()) == 1  # one other image


def test_a_region_without_a_mask_is_moved_with_its_box() -> None:
    batch = make_batch(8, coloured=True)
    assert batch.labels is not None
    batch.labels.zero_()
    by_mask, by_box = (with_dp(batch, carried_by=own, cutout=0.0).views["x3"] for own in ("mask", "box"))
    assert torch.equal(by_mask.images, by_box.images)
    assert torch.equal(kept(by_mask), kept(by_box))


def test_shift_and_scale() -> None:
    batch = make_batch(32)
    moved = {}
    for mode in ("union", "each"):
        views = with_dp(batch, shift=mode, scale=(1.0, 1.0))
        offset = (views.views["x3"].boxes - views.views["x2"].boxes)[..., :2]
        pair = views.slots.distinct[:, :2].all(dim=1)
        moved[mode] = (offset[pair, 0] - offset[pair, 1]).norm(dim=1).median()
    assert moved["union"] < 1e-3 and moved["each"] > 3
    views = with_dp(batch, scale=(0.5, 0.5))
    half, new = (views.views[name].boxes[views.slots.distinct] for name in ("x2", "x3"))
    torch.testing.assert_close(new[:, 2:] - new[:, :2], (half[:, 2:] - half[:, :2]) / 2, atol=1e-3, rtol=0)


def test_a_foreground_that_is_not_moved_stays_where_x2_has_it() -> None:
    views = with_dp(make_batch(16, labels=False), shift="none", cutout=0.0, photometric="same")
    x2, x3 = views.views["x2"], views.views["x3"]
    assert torch.equal(x3.boxes, x2.boxes)
    assert torch.equal(kept(x3), inside(x3, views))
    difference = (x3.images - x2.images).abs().amax(dim=1, keepdim=True)
    assert difference[kept(x3)].max() < 1e-5 and difference[~kept(x3)].median() > 0.1


def test_x3_on_the_mean_colour_needs_no_other_image() -> None:
    view = with_dp(make_batch(coloured=True), background="mean").views["x3"]
    assert torch.equal((view.images == 0).all(dim=1, keepdim=True), ~kept(view))
    assert with_dp(make_batch(1), background="mean").views["x3"].images.shape == (1, 3, 80, 80)


def test_the_cutout_of_x3() -> None:
    batch = make_batch(32, labels=False)
    for ratio, low, high in ((0.3, 0.6, 0.8), (0.0, 0.99, 1.0)):
        plan = base_plan(regions_per_image=1)
        views = with_dp(batch, plan, cutout=ratio, scale=(1.0, 1.0))
        assert low <= 1 - cut_share(views.views["x3"], inside(views.views["x3"], views)) <= high


def test_the_photometric_draw_of_x3() -> None:
    options: dict[str, Any] = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey_p": 0.0, "blur_p": 0.0}
    jitter = Photometric(jitter_p=1.0, brightness=0.8, **options)
    batch = make_batch(16, coloured=True)
    for choice in ("fresh", "same"):
        plan = base_plan(dataclasses.replace(HOST, photometric_x2=jitter))
        views = with_dp(batch, plan, photometric=choice).views
        of_x2 = raw(views["x2"])[:, 0, 0, 0]
        same = ((raw(views["x3"])[:, :1] - of_x2[:, None, None, None]).abs() < 1) & kept(views["x3"])
        assert (same.sum() == kept(views["x3"]).sum()) == (choice == "same")
