"""Cosine regression."""

import torch

from d3ssl.contracts import Rows
from d3ssl.methods.losses import Regression


def rows(count: int) -> Rows:
    return Rows(image=torch.arange(count), boxes=torch.zeros(count, 4), weight=torch.ones(count))


def test_known_answers() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [4.0, 0.0], [1.0, 0.0]])
    expected = torch.tensor([0.0, 2.0, 4.0, 2 - 2**0.5])
    torch.testing.assert_close(Regression()(student, teacher, rows(4)), expected)


def test_it_equals_the_naive_loop() -> None:
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    found = Regression()(student, teacher, rows(7))
    for i in range(7):
        difference = student[i] / student[i].norm() - teacher[i] / teacher[i].norm()
        torch.testing.assert_close(found[i], difference.square().sum())


def test_the_gradient_goes_to_the_student_alone() -> None:
    student, teacher = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    Regression()(student, teacher, rows(3)).sum().backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


def test_float32_under_autocast_and_for_halves() -> None:
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    exact = Regression()(student, teacher, rows(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Regression()(student, teacher, rows(3)), exact)
    assert Regression()(student.bfloat16(), teacher.bfloat16(), rows(3)).dtype == torch.float32


def test_no_rows() -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    loss = Regression()(student, torch.zeros(0, 5), rows(0))
    assert loss.shape == (0,)
    loss.sum().backward()
