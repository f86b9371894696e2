"""Which regions are trained on: those that every view shows, drawn at random, in slots that are all filled."""

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.contracts import map_tensors
from d3ssl.seeds import torch_generator
from d3ssl.views import RegionsSpec
from d3ssl.views.choice import choose, slot_labels, survives
from tests.views.canvases import make_batch, make_table, make_views

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def test_limits_of_survival() -> None:
    boxes = torch.tensor(
        [[[0.0, 0.0, 20.0, 20.0], [-10.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 30.0], [1.0, 1.0, 1.0, 1.0]]]
    )
    view = [(torch.eye(3)[None], (32, 32))]
    assert survives(boxes, view, 0.5, 6.0).tolist() == [[True, True, False, False]]
    assert survives(boxes, view, 0.6, 5.0).tolist() == [[True, False, True, False]]
    assert survives(boxes, view, 0.0, 0.0).tolist() == [[True, True, True, False]]


def test_regions_survive_in_every_view() -> None:
    for min_visible, min_side in ((0.3, 4.0), (0.9, 4.0), (0.3, 18.0)):
        batch, regions = make_batch(64), RegionsSpec(min_visible=min_visible, min_side=min_side)
        views = make_views(batch, table=make_table(x1_area=(0.3, 0.5), x2_area=(0.3, 0.6)), regions=regions)
        distinct = views.slots.distinct
        assert 0 < distinct.float().mean() < 1
        for name in ("x1", "x2", "x2_small"):
            view = views.views[name]
            sides = (view.boxes[..., 2:] - view.boxes[..., :2])[distinct]
            assert sides.min() >= min_side - 0.01
            whole = (views.slots.boxes[..., 2:] - views.slots.boxes[..., :2]).prod(-1)
            scale = (view.matrix[:, 0, 0] * view.matrix[:, 1, 1]).abs()[:, None]
            assert (sides.prod(-1) / (whole * scale)[distinct]).min() >= min_visible - 0.01


def test_the_choice_is_uniform_among_those_alive() -> None:
    many = map_tensors(make_batch(1), lambda tensor: tensor.expand(6000, *tensor.shape[1:]))
    alive = torch.tensor([[True, False, True, True, False, True]]).repeat(6000, 1)
    chosen, slots = choose(many, alive, 2, [WHOLE.expand(6000, 4)], torch_generator(0))
    assert slots.distinct.all()
    assert (chosen[:, 0] != chosen[:, 1]).all()
    for slot in range(2):
        counts = chosen[:, slot].bincount(minlength=6)
        assert counts[1] == counts[4] == 0
        assert (counts[[0, 2, 3, 5]] - 1500).abs().max() < 5 * 34


@settings(max_examples=40, deadline=None)
@given(alive=st.lists(st.booleans(), min_size=6, max_size=6), slots=st.integers(1, 9), seed=st.integers(0, 999))
def test_every_slot_is_filled_and_a_region_weighs_one(alive: list[bool], slots: int, seed: int) -> None:
    """Fewer regions than slots repeat in turn with 1 / times each; without any, the window with weight 0."""
    batch, count = make_batch(1), min(sum(alive), slots)
    windows = [torch.tensor([[0.1, 0.2, 0.8, 1.0]]), torch.tensor([[0.3, 0.0, 1.0, 0.9]])]
    chosen, found = choose(batch, torch.tensor([alive]), slots, windows, torch_generator(seed))
    assert found.distinct.tolist() == [[slot < count for slot in range(slots)]]
    if count == 0:
        assert not found.weight.any()
        shared = torch.tensor([0.3, 0.2, 0.8, 0.9]) * batch.canvas.shape[-1]
        torch.testing.assert_close(found.boxes, shared.expand(1, slots, 4))
        assert found.source.tolist() == [list(range(slots))]
        return
    source = [slot % count for slot in range(slots)]
    assert found.source.tolist() == [source]
    torch.testing.assert_close(found.weight[0], torch.tensor([1 / source.count(s) for s in source]))
    assert len(set(chosen[0, :count].tolist())) == count
    assert all(alive[number] for number in chosen[0].tolist())
    assert torch.equal(found.boxes[0], batch.boxes[0, chosen[0]])
    assert torch.equal(chosen[0], chosen[0, source])


def test_images_without_candidates_take_what_all_views_share() -> None:
    """Their rows are the window that every view shows, with weight 0; nothing of them is foreground."""
    batch = make_batch()
    empty = dataclasses.replace(batch, boxes=batch.boxes[:, :0], valid=batch.valid[:, :0])
    views = make_views(empty, table=make_table(x1_area=(0.4, 0.7), x2_area=(0.5, 0.8)))
    assert not views.slots.weight.any() and not views.slots.distinct.any()
    assert float(views.scale) > 0  # finite
    for name in ("x2", "x2_small", "x1_cut"):
        view, side = views.views[name], views.views[name].images.shape[-1]
        if name == "x1_cut":  # x2's window lies inside x1's
            assert (view.boxes >= 0).all() and (view.boxes <= side).all()
            assert view.keep is not None and view.keep.all()
        else:
            whole = torch.tensor([0.0, 0.0, side, side]).expand_as(view.boxes)
            torch.testing.assert_close(view.boxes, whole, atol=1e-3, rtol=0)
    keep = views.views["x3"].keep
    assert keep is not None and not keep.any()


def test_windows_that_share_nothing_give_the_whole_image() -> None:
    windows = [torch.tensor([[0.0, 0.0, 0.3, 1.0]]), torch.tensor([[0.6, 0.0, 1.0, 1.0]])]
    _, slots = choose(make_batch(1), torch.zeros(1, 6, dtype=torch.bool), 2, windows, torch_generator(0))
    assert slots.boxes.tolist() == [[[0.0, 0.0, 96.0, 96.0]] * 2]


def test_labels_of_candidates_become_those_of_slots() -> None:
    labels = torch.tensor([[[0, 1, 2], [3, 4, 200]]], dtype=torch.uint8)
    chosen, distinct = torch.tensor([[3, 1, 3]]), torch.tensor([[True, True, False]])
    assert slot_labels(labels, chosen, distinct).tolist() == [[[0, 0, 2], [0, 1, 0]]]
    chosen, distinct = torch.tensor([[0, 0, 0]]), torch.tensor([[True, False, False]])
    assert slot_labels(labels, chosen, distinct).tolist() == [[[0, 1, 0], [0, 0, 0]]]
    assert not slot_labels(labels, chosen, torch.zeros_like(distinct)).any()
