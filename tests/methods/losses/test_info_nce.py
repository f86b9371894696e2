"""InfoNCE over the regions of all processes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from d3ssl.contracts import Rows
from d3ssl.errors import InputError
from d3ssl.methods.losses.info_nce import InfoNce, overlaps


def make_rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Rows]:
    """Several regions per image, of which some overlap, some touch, some are degenerate, and of several weights."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 5, (count, 2), generator=generator) * 10.0
    size = torch.randint(0, 3, (count, 2), generator=generator) * 10.0
    boxes = torch.cat([corner, corner + size], 1)
    student, teacher = torch.randn(2, count, 6, generator=generator)
    weight = torch.tensor([1.0, 0.5, 0.0, 0.25])[torch.randint(0, 4, (count,), generator=generator)]
    return student, teacher, Rows(image=torch.arange(count) // 4, boxes=boxes, weight=weight)


def naive(student: Tensor, teacher: Tensor, rows: Rows, temperature: float, max_iou: float) -> list[Tensor]:
    """The loop of the docstring, in float64."""

    def similarity(i: int, j: int) -> Tensor:
        return torch.cosine_similarity(student[i].double(), teacher[j].double(), dim=0) / temperature

    losses = []
    for i in range(len(student)):
        positive, others = similarity(i, i).exp(), torch.zeros((), dtype=torch.float64)
        for j in range(len(student)):
            iou = box_iou(rows.boxes[i : i + 1].double(), rows.boxes[j : j + 1].double()).nan_to_num(0.0)
            if i == j or (rows.image[i] == rows.image[j] and iou > max_iou):
                continue
            others = others + rows.weight[j] * similarity(i, j).exp()
        losses.append(-torch.log(positive / (positive + others)))
    return losses


@pytest.mark.parametrize("max_iou", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_it_equals_the_naive_loop_with_its_gradient(temperature: float, max_iou: float) -> None:
    student, teacher, rows = make_rows(14)
    one, other = student.clone().requires_grad_(), student.clone().requires_grad_()
    losses = InfoNce(temperature=temperature, max_iou=max_iou)(one, teacher, rows)
    expected = torch.stack(naive(other, teacher, rows, temperature, max_iou))
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)
    weight = torch.linspace(0.5, 2.0, 14)
    (losses * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


def test_known_answers() -> None:
    eye = torch.eye(3)
    boxes = torch.tensor([0.0, 0.0, 9.0, 9.0]).repeat(3, 1)
    apart = Rows(image=torch.tensor([0, 1, 2]), boxes=boxes, weight=torch.ones(3))
    expected = -math.log(math.exp(5) / (math.exp(5) + 2))
    torch.testing.assert_close(InfoNce()(eye, eye, apart), torch.full((3,), expected))
    equal = torch.ones(3, 2)
    torch.testing.assert_close(InfoNce()(equal, equal, apart), torch.full((3,), math.log(3)))


def test_overlapping_regions_of_one_image_are_no_negatives() -> None:
    student, teacher = torch.randn(2, 3, 4)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 15.0, 15.0], [10.0, 0.0, 20.0, 5.0]])
    one_image = Rows(image=torch.zeros(3, dtype=torch.int64), boxes=boxes, weight=torch.ones(3))
    losses = InfoNce()(student, teacher, one_image)  # 0 and 1 overlap, the other pairs only touch
    pairs = {0: [2], 1: [2], 2: [0, 1]}
    for i, negatives in pairs.items():
        logits = torch.cosine_similarity(student[i], teacher[[i, *negatives]]) / 0.2
        torch.testing.assert_close(losses[i], logits.logsumexp(0) - logits[0])
    other_images = Rows(image=torch.arange(3), boxes=boxes, weight=torch.ones(3))
    apart = InfoNce()(student, teacher, other_images)
    assert (apart[:2] > losses[:2]).all()
    assert apart[2] == losses[2]


def test_the_gradient_goes_to_the_student_alone() -> None:
    student, teacher, rows = make_rows(5)
    student.requires_grad_()
    teacher.requires_grad_()
    InfoNce()(student, teacher, rows).sum().backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


def test_a_row_without_negatives_has_no_loss_and_no_gradient() -> None:
    student, teacher, rows = make_rows(1)
    student.requires_grad_()
    loss = InfoNce()(student, teacher, rows)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert student.grad is not None
    assert not student.grad.any()


def test_float32_under_autocast_and_for_halves() -> None:
    student, teacher, rows = make_rows(9)
    exact = InfoNce()(student, teacher, rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(InfoNce()(student, teacher, rows), exact)
        losses = InfoNce()(student.bfloat16(), teacher.bfloat16(), rows)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, InfoNce()(student.bfloat16().float(), teacher.bfloat16().float(), rows))


boxes_strategy = st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=1, max_size=8)


@settings(deadline=None)
@given(boxes_strategy, boxes_strategy, st.sampled_from([0.0, 0.2, 0.5]))
def test_overlap_agrees_with_counting_cells(one: list, other: list, max_iou: float) -> None:
    def cells(box: tuple[int, ...]) -> set[tuple[int, int]]:
        x0, y0, width, height = box
        return {(x, y) for x in range(x0, x0 + width) for y in range(y0, y0 + height)}

    def tensor(boxes: list) -> Tensor:
        return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=torch.float64)

    found = overlaps(tensor(one), tensor(other), max_iou)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            shared, union = len(cells(a) & cells(b)), len(cells(a) | cells(b))
            assert bool(found[i, j]) == (shared > max_iou * union)


def part_of(rows: Rows, own: slice) -> Rows:
    return Rows(image=rows.image, boxes=rows.boxes, weight=rows.weight, start=own.start)


def test_the_rows_of_one_process_among_those_of_all() -> None:
    """Two halves give the losses of the whole, and the gradient of their sum is that of the whole."""
    student, teacher, rows = make_rows(12)
    whole, halves = student.clone().requires_grad_(), student.clone().requires_grad_()
    losses = InfoNce()(whole, teacher, rows)
    parts = [InfoNce()(halves[own], teacher, part_of(rows, own)) for own in (slice(0, 6), slice(6, 12))]
    torch.testing.assert_close(torch.cat(parts), losses, atol=1e-6, rtol=1e-5)
    losses.sum().backward()
    torch.cat(parts).sum().backward()
    torch.testing.assert_close(whole.grad, halves.grad, atol=1e-6, rtol=1e-5)


def test_a_region_that_fills_several_slots_counts_once_as_a_negative() -> None:
    student, teacher = torch.randn(2, 3, 6)
    one = Rows(image=torch.arange(3), boxes=torch.ones(3, 4).cumsum(1), weight=torch.ones(3))
    repeated = torch.tensor([0, 0, 1, 2, 2, 2])
    weight = torch.tensor([0.5, 0.5, 1.0, 1 / 3, 1 / 3, 1 / 3])
    many = Rows(image=one.image[repeated], boxes=one.boxes[repeated], weight=weight)
    losses = InfoNce()(student[repeated], teacher[repeated], many)
    torch.testing.assert_close(losses, InfoNce()(student, teacher, one)[repeated], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        InfoNce(temperature=temperature)
