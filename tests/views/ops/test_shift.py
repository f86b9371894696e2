"""Foreground shift: pixels are where the moved boxes say, all regions stay inside, nothing else is shown."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.errors import InputError
from d3ssl.seeds import torch_generator
from d3ssl.views.geometry import map_boxes
from d3ssl.views.masks import union_mask
from d3ssl.views.ops.shift import apply_shift, sample_shift, shift_boxes, shift_foreground, shift_matrices

SIZE = (80, 96)
MODES = ("union", "each")


def random_boxes(batch: int, slots: int, seed: int, side=(8.0, 40.0), size=SIZE) -> torch.Tensor:
    generator = torch_generator("shift boxes", seed)
    extent = side[0] + (side[1] - side[0]) * torch.rand(batch, slots, 2, generator=generator)
    corner = torch.rand(batch, slots, 2, generator=generator) * (torch.tensor([size[1], size[0]]) - extent)
    return torch.cat([corner, corner + extent], dim=-1)


def everything(batch: int, size=SIZE) -> torch.Tensor:
    return torch.ones(batch, 1, *size, dtype=torch.bool)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.6, 1.0), (0.8, 1.3)])
def test_a_painted_marker_is_found_at_the_mapped_place(mode, scale):
    """A marker is painted somewhere in one region; its centroid after the shift is where the moved box puts it."""
    batch, radius, checked = 120, 3, 0
    boxes = random_boxes(batch, 3, 0, side=(14, 34)).round()
    valid = torch.ones(batch, 3, dtype=torch.bool)
    for slot in range(3):
        generator = torch_generator("marker", slot)
        room = boxes[:, slot, 2:] - boxes[:, slot, :2] - 2 * radius
        centre = (boxes[:, slot, :2] + radius + torch.rand(batch, 2, generator=generator) * room).round()
        images = torch.zeros(batch, 1, *SIZE)
        for b, (x, y) in enumerate(centre.int().tolist()):
            images[b, 0, y - radius : y + radius, x - radius : x + radius] = 1
        moved, _, new = shift_foreground(images, everything(batch), boxes, valid, generator, mode=mode, scale=scale)
        for b in range(batch):
            if mode == "each" and (paint_of(moved, new, b, slot) is None or overlaps(boxes, new, b, slot)):
                continue  # another region lies on top, or carries the same marker
            old_box, new_box = boxes[b, slot], new[b, slot]
            factor = (new_box[2:] - new_box[:2]) / (old_box[2:] - old_box[:2])
            expected = new_box[:2] + (centre[b] - old_box[:2]) * factor
            found = paint_of(moved, new, b, slot)
            assert found is not None
            assert (found - expected).abs().max() < 0.5
            checked += 1
    assert checked >= 40


def paint_of(moved, new, b, slot):
    """Centroid of the paint inside the moved box."""
    inside = union_mask(new[b, slot][None, None], torch.ones(1, 1, dtype=torch.bool), SIZE)[0, 0]
    mass = moved[b, 0] * inside
    if mass.sum() < 4:
        return None
    mass = mass / mass.sum()
    x = (mass.sum(0) * (torch.arange(SIZE[1]) + 0.5)).sum()
    y = (mass.sum(1) * (torch.arange(SIZE[0]) + 0.5)).sum()
    return torch.stack([x, y])


def overlaps(boxes, new, b, slot) -> bool:
    """Whether the slot's old or new box touches another's."""
    for frame in (boxes, new):
        for other in range(frame.shape[1]):
            low = torch.maximum(frame[b, slot, :2], frame[b, other, :2])
            high = torch.minimum(frame[b, slot, 2:], frame[b, other, 2:])
            if other != slot and bool((high > low).all()):
                return True
    return False


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    mode=st.sampled_from(MODES),
    low=st.floats(0.2, 1.5),
    spread=st.floats(0, 1),
    slots=st.integers(1, 5),
)
def test_all_valid_regions_stay_inside_and_keep_their_aspect(seed, mode, low, spread, slots):
    boxes = random_boxes(8, slots, seed, side=(2.0, 80.0))
    valid = torch.rand(8, slots, generator=torch_generator("valid", seed)) < 0.7
    draws = sample_shift(8, slots, torch_generator("inside", seed))
    matrices = shift_matrices(boxes, valid, SIZE, draws, mode=mode, scale=(low, low + spread))
    raw = map_boxes(boxes.reshape(-1, 1, 4), matrices.expand(8, slots, 3, 3).reshape(-1, 3, 3)).view_as(boxes)
    limit = torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
    assert (raw[valid] >= -1e-3).all() and (raw[valid] <= limit + 1e-3).all()  # before anything is clipped
    new = shift_boxes(boxes, valid, matrices, SIZE)
    assert (new >= 0).all() and (new <= limit).all()
    factor = (new[..., 2:] - new[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    torch.testing.assert_close(factor[..., 0][valid], factor[..., 1][valid], rtol=2e-3, atol=1e-3)
    assert (factor[valid] < low + spread + 1e-3).all()
    assert torch.equal(new[~valid], boxes[~valid])


@pytest.mark.parametrize("mode", MODES)
def test_only_moved_regions_are_shown_and_holes_move_with_them(mode):
    """Pixels carry the number of their image region: 1 in the region's kept part, 9 elsewhere and in the hole."""
    boxes = torch.tensor([[[10.0, 10.0, 40.0, 50.0]]]).expand(30, 1, 4)
    valid = torch.ones(30, 1, dtype=torch.bool)
    images = torch.full((30, 3, *SIZE), 9.0)
    images[:, :, 10:50, 10:40] = 1
    images[:, :, 20:30, 15:30] = 9
    keep = everything(30)
    keep[:, :, 20:30, 15:30] = False
    moved, shown, new = shift_foreground(images, keep, boxes, valid, torch_generator(0), mode=mode, scale=(1.0, 1.0))
    inside = union_mask(new, valid, SIZE)
    assert not (shown & ~inside).any()
    assert (moved[~shown.expand_as(moved)] == 0).all()
    assert ((30 * 40 - 15 * 10 - shown.sum(dim=(1, 2, 3))).abs() <= 15 + 10).all()  # the hole to half a pixel a side
    for b in range(30):
        x, y = new[b, 0, :2]
        hole = torch.tensor([[[15.0 + x - 10, 20.0 + y - 10, 30.0 + x - 10, 30.0 + y - 10]]])
        assert not (shown[b : b + 1] & union_mask(hole, valid[:1], SIZE)).any()


def test_union_keeps_the_arrangement_and_each_does_not():
    boxes, valid = random_boxes(50, 3, 3, side=(8, 20)), torch.ones(50, 3, dtype=torch.bool)
    images = torch.zeros(50, 1, *SIZE)
    shifts = {}
    for mode in MODES:
        _, _, new = shift_foreground(
            images, everything(50), boxes, valid, torch_generator(1), mode=mode, scale=(1.0, 1.0)
        )
        shifts[mode] = (new - boxes)[..., :2]
    assert (shifts["union"] - shifts["union"][:, :1]).abs().max() < 1e-3
    assert (shifts["each"][:, 0] - shifts["each"][:, 1]).norm(dim=1).median() > 10
    assert shifts["union"][:, 0].norm(dim=1).median() > 1


@pytest.mark.parametrize("mode", MODES)
def test_places_are_uniform_over_the_room_and_scales_over_their_range(mode):
    boxes = torch.tensor([[[30.0, 20.0, 54.0, 40.0]]]).expand(4000, 1, 4)
    valid = torch.ones(4000, 1, dtype=torch.bool)
    draws = sample_shift(4000, 1, torch_generator(5))
    matrices = shift_matrices(boxes, valid, SIZE, draws, mode=mode, scale=(0.5, 1.0))
    new = shift_boxes(boxes, valid, matrices, SIZE)[:, 0]
    width, height = new[:, 2] - new[:, 0], new[:, 3] - new[:, 1]
    for value in ((width / 24 - 0.5) / 0.5, new[:, 0] / (SIZE[1] - width), new[:, 1] / (SIZE[0] - height)):
        assert -1e-4 < value.min() < 0.01 and 0.99 < value.max() < 1 + 1e-4
        deciles = torch.histc(value, 10, 0, 1)
        assert (deciles - 400).abs().max() < 5 * 19


def test_smaller_regions_lie_on_top():
    boxes = torch.tensor([[[0.0, 0.0, 30.0, 30.0], [40.0, 0.0, 90.0, 70.0]]]).expand(40, 2, 4)
    images = torch.full((40, 1, *SIZE), 2.0)
    images[:, :, :30, :30] = 1
    valid = torch.ones(40, 2, dtype=torch.bool)
    moved, _, new = shift_foreground(images, everything(40), boxes, valid, torch_generator(2), scale=(1.0, 1.0))
    inner = torch.cat([new[:, :1, :2] + 1, new[:, :1, 2:] - 1], dim=-1)  # less the seam that resampling mixes
    small = union_mask(inner, valid[:, :1], SIZE)
    assert (moved[small] - 1).abs().max() < 1e-4
    assert overlaps(new, new, 0, 0) or any(overlaps(new, new, b, 0) for b in range(40))


def test_labels_restrict_what_a_slot_carries_and_are_carried():
    labels = torch.zeros(20, *SIZE, dtype=torch.uint8)
    labels[:, 10:30, 10:20] = 1  # the left half of box 0; the right half belongs to slot 1, the rest of box 1 to none
    labels[:, 10:30, 20:30] = 2
    boxes = torch.tensor([[[10.0, 10.0, 30.0, 30.0], [20.0, 10.0, 60.0, 30.0]]]).expand(20, 2, 4)
    valid = torch.ones(20, 2, dtype=torch.bool)
    valid[10:, 1] = False
    images = labels[:, None].float()
    for mode in MODES:
        draws = sample_shift(20, 2, torch_generator("labels"))
        matrices = shift_matrices(boxes, valid, SIZE, draws, mode=mode, scale=(1.0, 1.0))
        _, shown, moved_labels = apply_shift(images, everything(20), boxes, valid, matrices, labels, masked=valid)
        assert moved_labels is not None
        assert torch.equal(shown[:, 0], moved_labels > 0)
        assert not (moved_labels[10:] == 2).any()
        area = (moved_labels == 2).flatten(1).sum(1)[:10]
        assert ((area - 200).abs() <= 30).all()  # slot 1 lies on slot 0 or beside it in union mode; half a pixel a side
        _, whole, boxed_labels = apply_shift(images, everything(20), boxes, valid, matrices, labels)
        assert (whole.sum() > 1.3 * shown.sum()) and boxed_labels is not None
        _, public, _ = shift_foreground(
            images, everything(20), boxes, valid, torch_generator("labels"), mode=mode, scale=(1.0, 1.0), labels=labels
        )
        assert torch.equal(public, shown)


@pytest.mark.parametrize("mode", MODES)
def test_images_without_regions_show_nothing(mode):
    boxes, valid = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    moved, shown, new = shift_foreground(torch.rand(2, 3, *SIZE), everything(2), boxes, valid, mode=mode)
    assert not shown.any() and not moved.any() and torch.equal(new, boxes)


@pytest.mark.parametrize("mode", MODES)
def test_same_generator_same_shift(mode):
    boxes, valid, images = random_boxes(4, 3, 7), torch.ones(4, 3, dtype=torch.bool), torch.rand(4, 3, *SIZE)
    first, again, other = (
        shift_foreground(images, everything(4), boxes, valid, torch_generator(s), mode=mode) for s in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[2], other[2])


def test_impossible_scale_is_a_clear_error():
    boxes, valid = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="scale"):
        shift_foreground(torch.rand(2, 3, *SIZE), everything(2), boxes, valid, scale=(1.0, 0.5))
