"""The teacher as a moving average."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d3ssl.models.ema import make_teacher, momentum_at, update_teacher


class Student(nn.Module):
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), self.norm, nn.Flatten(), nn.Linear(4, 2))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    @property
    def running_mean(self) -> torch.Tensor:
        assert self.norm.running_mean is not None
        return self.norm.running_mean


def make_student() -> Student:
    torch.manual_seed(1)
    return Student()


def train_a_little(student: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    for parameter in student.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator)
    student(torch.randn(5, 3, 3, 3, generator=generator))


def test_a_teacher_is_an_equal_frozen_copy() -> None:
    student = make_student()
    teacher = make_teacher(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    for name, value in student.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)
        assert teacher.state_dict()[name].data_ptr() != value.data_ptr()


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.99, 1.0])
def test_parameters_are_averaged(momentum: float) -> None:
    student = make_student()
    teacher = make_teacher(student)
    train_a_little(student)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    update_teacher(teacher, student, momentum)
    for (name, after), source in zip(teacher.named_parameters(), student.parameters(), strict=True):
        expected = momentum * before[name] + (1 - momentum) * source.detach()
        torch.testing.assert_close(after, expected, atol=1e-6, rtol=1e-5)
        if momentum in (0.0, 1.0):
            assert torch.equal(after, before[name] if momentum else source.detach())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_statistics_of_a_teacher_in_training_mode_stay_its_own() -> None:
    student = make_student()
    teacher = make_teacher(student)
    train_a_little(student)
    own = teacher.running_mean.clone()
    update_teacher(teacher, student, 0.5)
    assert torch.equal(teacher.running_mean, own)
    assert not torch.equal(student.running_mean, own)


def test_statistics_of_a_teacher_in_evaluation_mode_are_averaged() -> None:
    student = make_student()
    teacher = make_teacher(student).eval()
    train_a_little(student)
    own = teacher.running_mean.clone()
    update_teacher(teacher, student, 0.75)
    torch.testing.assert_close(teacher.running_mean, 0.75 * own + 0.25 * student.running_mean)
    assert teacher.norm.num_batches_tracked == student.norm.num_batches_tracked == 1


def test_other_buffers_are_copied_infinities_too() -> None:
    student = make_student()
    teacher = make_teacher(student)
    student.mask[0] = 5.0
    update_teacher(teacher, student, 0.9)
    assert torch.equal(teacher.mask, torch.tensor([5.0, -torch.inf]))


def test_averaging_many_times_equals_the_closed_form() -> None:
    student = nn.Linear(1, 1, bias=False)
    teacher = make_teacher(student)
    with torch.no_grad():
        teacher.weight.fill_(1.0)
        student.weight.fill_(0.0)
    for _ in range(50):
        update_teacher(teacher, student, 0.9)
    assert float(teacher.weight) == pytest.approx(0.9**50, rel=1e-4)


def test_networks_of_different_structure_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        update_teacher(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.9)
    with pytest.raises(ValueError, match="differ"):
        update_teacher(nn.Sequential(nn.ReLU()), nn.Sequential(nn.BatchNorm1d(2, affine=False)), 0.9)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum"):
        update_teacher(nn.Linear(2, 2), nn.Linear(2, 2), momentum)


def test_known_momenta() -> None:
    assert momentum_at(0.0) == pytest.approx(0.99)
    assert momentum_at(0.5) == pytest.approx(0.995)
    assert momentum_at(1.0) == 1.0
    assert momentum_at(0.25, 0.5) == pytest.approx(1 - 0.5 * (math.sqrt(0.5) + 1) / 2)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_momentum_rises_from_base_to_one(one: float, other: float, base: float) -> None:
    low, high = sorted((one, other))
    assert base - 1e-12 <= momentum_at(low, base) <= momentum_at(high, base) + 1e-12 <= 1.0 + 1e-12
