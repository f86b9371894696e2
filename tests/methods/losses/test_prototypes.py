"""Cross-entropy over centred prototypes: the loss of a row, and the centre after a step."""

import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss
from torch import Tensor

from d3ssl.contracts import Rows
from d3ssl.errors import InputError
from d3ssl.methods.losses import PrototypeCrossEntropy
from d3ssl.methods.losses.prototypes import PrototypeCentre
from d3ssl.models.heads import MOST_PROTOTYPES, PrototypeHead

ROWS = Rows(image=torch.arange(4), boxes=torch.zeros(4, 4), weight=torch.ones(4))  # which are not looked at


def make(centre: Tensor, **options: float) -> PrototypeCentre:
    memory = PrototypeCrossEntropy(**options).remember(len(centre))
    memory.centre.copy_(centre)
    return memory


def naive(student: Tensor, teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """The loop of the docstring, in float64."""
    losses = []
    for i in range(len(student)):
        target = torch.softmax((teacher[i].double() - centre.double()) / temperature, 0)
        losses.append(-(target * torch.log(torch.softmax(student[i].double() / 0.1, 0))).sum())
    return torch.stack(losses)


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.05, 0.055), (0.1, 0.07), (0.9, 0.07)])
def test_it_equals_the_naive_loop_with_its_gradient(progress: float, temperature: float) -> None:
    centre = torch.rand(7) / 10
    student, teacher = torch.rand(2, 5, 7) / 3
    one, other = student.clone().requires_grad_(), student.clone().requires_grad_()
    losses = make(centre)(one, teacher.requires_grad_(), ROWS, progress)
    expected = naive(other, teacher.detach(), centre, temperature)
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
    assert teacher.grad is None


def test_lightly_finds_the_same_for_class_tokens() -> None:
    """DINO's loss over the crossed pairs of two global and two local crops, and its centre afterwards."""
    oracle = DINOLoss(output_dim=7, teacher_temp=0.07)
    centre = torch.rand(7) / 10
    oracle.center.copy_(centre)
    students, teachers = torch.rand(4, 5, 7), torch.rand(2, 5, 7)
    memory = make(centre)
    found = [memory(students[s], teachers[t], ROWS, 1.0).mean() for t in range(2) for s in range(4) if s != t]
    expected = oracle(list(teachers), list(students))
    torch.testing.assert_close(torch.stack(found).mean(), expected, atol=1e-5, rtol=0)
    memory.update([memory.carry(teachers.flatten(0, 1), 10)])
    torch.testing.assert_close(memory.centre, oracle.center.flatten(), atol=1e-6, rtol=0)


def test_lightly_finds_the_same_for_patches() -> None:
    """iBOT's patch loss: the mean over an image's hidden patches, then over the images."""
    mask = torch.rand(3, 2, 4) < 0.5
    mask[0] = False
    oracle = IBOTPatchLoss(output_dim=7, teacher_temp=0.07)
    centre = torch.rand(7) / 10
    oracle.center.center = centre[None].clone()
    student, teacher = torch.rand(2, 24, 7)
    expected = oracle(teacher[mask.flatten()], student[mask.flatten()], mask)
    losses = make(centre)(student, teacher, ROWS, 1.0)
    weight = mask / mask.float().mean((1, 2), keepdim=True).clamp(min=1 / 8)  # as the reader of patches weighs
    torch.testing.assert_close((losses * weight.flatten()).mean(), expected, atol=1e-5, rtol=0)


def test_the_centre_moves_by_the_step_s_mean_over_all_parts() -> None:
    memory, rows = make(torch.ones(3), centre_momentum=0.75), torch.randn(2, 4, 3)
    memory.update([memory.carry(part, 4) for part in rows])
    torch.testing.assert_close(memory.centre, 0.75 + 0.25 * rows.mean((0, 1)))


def test_float32_under_autocast() -> None:
    memory, (student, teacher) = make(torch.zeros(5)), torch.randn(2, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert memory(student.bfloat16(), teacher.bfloat16(), ROWS, 0.0).dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [{"student_temperature": 0.0}, {"teacher_temperature": -1.0}, {"warmup_share": 2.0}, {"centre_momentum": 1.0}],
)
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        PrototypeCrossEntropy(**options)


def test_more_prototypes_than_make_sense() -> None:
    PrototypeHead(out=MOST_PROTOTYPES)
    for count in (1, MOST_PROTOTYPES + 1):
        with pytest.raises(InputError, match=rf"the head has {count} prototypes(.|\n)*iBOT: 8192"):
            PrototypeHead(out=count)


def test_logits_are_cosines_where_prototypes_keep_unit_length() -> None:
    head = PrototypeHead(hidden=8, bottleneck=4, out=6, fixed_length=True).build(5)
    with torch.no_grad():
        head.prototypes.mul_(torch.arange(1.0, 7.0)[:, None])
        found = head(torch.randn(3, 5))
        assert found.abs().max() <= 1 + 1e-6
        head.fixed_length = False
        assert not torch.equal(head(torch.randn(3, 5)).abs().clamp(max=1), found.abs())
