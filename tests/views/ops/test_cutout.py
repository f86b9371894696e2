"""Region Collaborative Cutout against the procedure written out for one image, and its counterpart for contexts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator, torch_generator
from d3ssl.views.masks import union_mask
from d3ssl.views.ops.context_cutout import context_cutout
from d3ssl.views.ops.cutout import region_collaborative_cutout

SIZE = (30, 36)
NESTED = ((0, 0, 30, 24), (4, 3, 22, 21), (6, 10, 16, 18), (8, 11, 14, 16))
CROSSING = ((2.3, 1.8, 25.2, 14.6), (14.7, 6.1, 35.9, 29.9), (10, 4, 20, 26), (20.4, 0.2, 33.3, 12.9))
APART = ((0, 0, 12, 12), (14, 2, 34, 12), (3, 15, 13, 29), (20, 14, 29, 30))


def naive_cutout(boxes, size, ratio, rng, *, restore=True, largest_first=True) -> np.ndarray:
    """Design section 2, one image, one pixel block after the other, with NumPy's own randomness."""
    keep = np.ones(size, dtype=bool)
    blocks = []
    for x0, y0, x1, y1 in boxes:
        inside_x = [j for j in range(size[1]) if x0 <= j + 0.5 < x1]
        inside_y = [i for i in range(size[0]) if y0 <= i + 0.5 < y1]
        blocks.append((inside_y[0], inside_y[-1] + 1, inside_x[0], inside_x[-1] + 1))
    for top, bottom, left, right in sorted(blocks, key=lambda b: (b[1] - b[0]) * (b[3] - b[2]), reverse=largest_first):
        height, width = bottom - top, right - left
        region = keep[top:bottom, left:right]
        share = (height * width - int(region.sum())) / (height * width)
        if share > ratio:
            if not restore:
                continue
            region[:] = True
            share = 0.0
        h, w = (round(math.sqrt(ratio - share) * side) for side in (height, width))
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        region[y : y + h, x : x + w] = False
    return keep


def p_value(one: np.ndarray, other: np.ndarray) -> float:
    """Of the two-sample Kolmogorov-Smirnov test; low: not the same distribution."""
    return float(ks_2samp(one, other, method="asymp")[1])  # pyright: ignore[reportArgumentType]


def naive_shares(boxes, ratio, draws, **variant) -> np.ndarray:
    rng = numpy_generator("naive", draws)
    return cut_shares(np.stack([naive_cutout(boxes, SIZE, ratio, rng, **variant) for _ in range(draws)]), boxes)


def cut_shares(keep: np.ndarray, boxes) -> np.ndarray:
    """Share cut of every region, of masks (n, H, W): (n, K)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    masks = [(x >= x0) & (x < x1) & (y >= y0) & (y < y1) for x0, y0, x1, y1 in boxes]
    return np.stack([1 - keep[:, mask].mean(axis=1) for mask in masks], axis=1)


def batched_shares(boxes, ratio, draws, seed=0) -> np.ndarray:
    repeated = torch.tensor(boxes).float().expand(draws, -1, 4)
    valid = torch.ones(draws, len(boxes), dtype=torch.bool)
    keep = region_collaborative_cutout(repeated, valid, SIZE, ratio, torch_generator("rcc", seed))
    assert keep.shape == (draws, 1, *SIZE) and keep.dtype == torch.bool
    return cut_shares(keep[:, 0].numpy(), boxes)


@pytest.mark.parametrize("boxes", [NESTED, CROSSING, APART], ids=["nested", "crossing", "apart"])
@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.5])
def test_cut_shares_are_distributed_as_in_the_naive_procedure(boxes, ratio):
    """Two-sample test a region: 10,000 batched draws against 10,000 of the loop."""
    ours, theirs = batched_shares(boxes, ratio, 10_000), naive_shares(boxes, ratio, 10_000)
    for region in range(len(boxes)):
        assert p_value(ours[:, region], theirs[:, region]) > 1e-3
    for one in range(len(boxes)):  # and jointly: what one region loses tells of another
        for other in range(one):
            assert p_value(ours[:, one] - ours[:, other], theirs[:, one] - theirs[:, other]) > 1e-3


@pytest.mark.parametrize("variant", [{"restore": False}, {"largest_first": False}], ids=["no restoring", "small first"])
def test_the_two_sample_test_tells_other_procedures_apart(variant):
    ours, theirs = batched_shares(NESTED, 0.3, 3000), naive_shares(NESTED, 0.3, 3000, **variant)
    assert min(p_value(ours[:, region], theirs[:, region]) for region in range(4)) < 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), ratio=st.floats(0, 1), slots=st.integers(1, 5))
def test_the_region_processed_last_never_loses_more_than_the_ratio_and_rounding(seed, ratio, slots):
    generator = torch_generator("bound", seed)
    corner = torch.rand(16, slots, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 3 + torch.rand(16, slots, 2, generator=generator) * 20], dim=2)
    valid = torch.ones(16, slots, dtype=torch.bool)
    keep = region_collaborative_cutout(boxes, valid, SIZE, ratio, generator)
    for image in range(16):
        blocks = [union_mask(boxes[image, k][None, None], valid[:1, :1], SIZE)[0, 0] for k in range(slots)]
        last = blocks[min(range(slots), key=lambda k: (int(blocks[k].sum()), -k))]
        height, width = int(last.any(1).sum()), int(last.any(0).sum())
        lost = int((~keep[image, 0] & last).sum())
        rounding = (height + width) / 2 * math.sqrt(ratio) + 0.25  # each side of the rectangle by half a pixel
        assert lost <= ratio * height * width + rounding + 1e-6


def test_a_single_region_loses_one_rectangle_of_its_aspect():
    boxes = torch.tensor([[[10.0, 4.0, 30.0, 14.0]]]).expand(2000, 1, 4)
    keep = region_collaborative_cutout(boxes, torch.ones(2000, 1, dtype=torch.bool), (20, 40), 0.36, torch_generator(0))
    cut = ~keep[:, 0]
    assert (cut.sum(dim=(1, 2)) == 12 * 6).all()  # 0.6 of 20 × 10
    assert (cut.any(dim=1).sum(dim=1) == 12).all() and (cut.any(dim=2).sum(dim=1) == 6).all()
    assert not cut[:, :4].any() and not cut[:, 14:].any() and not cut[:, :, :10].any() and not cut[:, :, 30:].any()
    left, counts = cut.any(dim=1).int().argmax(dim=1).unique(return_counts=True)
    assert left.tolist() == list(range(10, 19))  # every place occurs, about equally often
    assert (counts - 2000 / 9).abs().max() < 5 * (2000 / 9) ** 0.5


def test_invalid_regions_are_left_alone_and_empty_ones_do_no_harm():
    boxes = torch.tensor(
        [[[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 0.0, 0.0], [5.2, 5.0, 5.3, 30.0], [-50.0, -9.0, -5.0, 2.0]]]
    )
    valid = torch.tensor([[False, True, True, True]])
    assert region_collaborative_cutout(boxes, valid, SIZE, 0.3, torch_generator(0)).all()


@pytest.mark.parametrize("where", [region_collaborative_cutout, context_cutout])
def test_ratio_zero_cuts_nothing_and_each_image_has_its_own_ratio(where):
    boxes = torch.tensor([APART]).float().expand(3, 4, 4)
    valid = torch.ones(3, 4, dtype=torch.bool)
    keep = where(boxes, valid, SIZE, torch.tensor([0.0, 0.2, 0.6]), torch_generator(1))
    cut = (~keep).sum(dim=(1, 2, 3))
    assert cut[0] == 0 and 0 < 2 * cut[1] < cut[2]
    assert where(boxes, valid, SIZE, 0, torch_generator(1)).all()


@pytest.mark.parametrize("where", [region_collaborative_cutout, context_cutout])
def test_same_generator_same_cut(where):
    boxes, valid = torch.tensor([CROSSING]).expand(8, 4, 4), torch.ones(8, 4, dtype=torch.bool)
    first, again, other = (where(boxes, valid, SIZE, 0.3, torch_generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("where", [region_collaborative_cutout, context_cutout])
@pytest.mark.parametrize("ratio", [-0.1, 1.5, torch.tensor([0.3, 1.2])])
def test_impossible_ratio_is_a_clear_error(where, ratio):
    with pytest.raises(InputError, match="ratio"):
        where(torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool), SIZE, ratio)


def test_context_cutout_spares_the_regions_and_takes_about_the_ratio_elsewhere():
    size, draws = (56, 64), 3000
    boxes = torch.tensor([[[5.0, 5.0, 30.0, 30.0], [40.0, 30.0, 60.0, 50.0]]]).expand(draws, 2, 4)
    valid = torch.ones(draws, 2, dtype=torch.bool)
    context = ~union_mask(boxes, valid, size)
    for ratio in (0.1, 0.3, 0.5):
        keep = context_cutout(boxes, valid, size, ratio, torch_generator(0))
        assert keep[~context].all()
        share = (~keep & context).sum(dim=(1, 2, 3)) / context.sum(dim=(1, 2, 3))
        assert share.max() < ratio + 0.03
        assert 0.6 * ratio < share.mean() <= ratio
        assert (~keep).float().mean(dim=0)[context[0]].min() > 0  # no place is spared always
