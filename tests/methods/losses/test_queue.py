"""InfoNCE against a queue: the loss of a row, and what the queue holds after a step."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import Tensor

from d3ssl.contracts import Rows
from d3ssl.errors import InputError
from d3ssl.methods.losses import InfoNce, QueueInfoNce, Regression

ROWS = Rows(image=torch.arange(4), boxes=torch.zeros(4, 4), weight=torch.ones(4))  # which a queue does not look at


def naive(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """The loop of the docstring, in float64."""

    def similarity(one: Tensor, other: Tensor) -> Tensor:
        return (torch.cosine_similarity(one.double(), other.double(), dim=0) / temperature).exp()

    losses = []
    for i in range(len(student)):
        positive = similarity(student[i], teacher[i])
        others = sum((similarity(student[i], key) for key in queue), torch.zeros((), dtype=torch.float64))
        losses.append(-torch.log(positive / (positive + others)))
    return torch.stack(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_it_equals_the_naive_loop_with_its_gradient(temperature: float) -> None:
    memory = QueueInfoNce(temperature=temperature, size=6).remember(5)
    student, teacher = torch.randn(2, 4, 5)
    one, other = student.clone().requires_grad_(), student.clone().requires_grad_()
    losses = memory(one, teacher.requires_grad_(), ROWS, 0.0)
    expected = naive(other, teacher.detach(), memory.keys, temperature)
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
    assert teacher.grad is None


@pytest.mark.parametrize("cells", [1, 9])
def test_lightly_finds_the_same(cells: int) -> None:
    """Whole images, and the cells of DenseCL with keys pooled per image."""
    memory = QueueInfoNce(size=7).remember(5)
    oracle = NTXentLoss(temperature=0.2, memory_bank_size=(7, 5))
    oracle.memory_bank.bank = memory.keys.clone()
    oracle.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    student, teacher = torch.randn(2, 3 * cells, 5)
    found = memory(student, teacher, ROWS, 0.0)
    torch.testing.assert_close(found.mean(), oracle(student, teacher), atol=1e-5, rtol=0)


def test_the_queue_holds_one_key_of_each_image_and_the_oldest_leave_it() -> None:
    memory = QueueInfoNce(size=5).remember(3)
    start, rows = memory.keys.clone(), torch.randn(4, 2, 6, 3)  # four steps of two images with six cells each
    torch.testing.assert_close(start.norm(dim=1), torch.ones(5))
    for step in rows:
        memory.update([memory.carry(step[:1].flatten(0, 1), 1), memory.carry(step[1:].flatten(0, 1), 1)])
    keys = F.normalize(rows.mean(2), dim=2).flatten(0, 1)
    torch.testing.assert_close(memory.keys, torch.stack([keys[5], keys[6], keys[7], keys[3], keys[4]]))
    assert int(memory.place) == 3


def test_a_known_answer() -> None:
    memory = QueueInfoNce(temperature=0.5, size=2).remember(3)
    memory.keys.copy_(torch.eye(3)[1:])
    losses = memory(torch.eye(3)[:1] * 7, torch.eye(3)[:1] * 3, ROWS, 0.0)
    assert float(losses) == pytest.approx(math.log(math.exp(2) + 2) - 2, abs=1e-6)


def test_float32_under_autocast() -> None:
    memory, (student, teacher) = QueueInfoNce(size=4).remember(5), torch.randn(2, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(memory(student, teacher, ROWS, 0.0), memory(student, teacher, ROWS, 0.0))
        assert memory(student.bfloat16(), teacher.bfloat16(), ROWS, 0.0).dtype == torch.float32


def test_impossible_queues() -> None:
    with pytest.raises(InputError, match="queue holds 0"):
        QueueInfoNce(size=0)
    with pytest.raises(InputError, match="temperature is 0"):
        QueueInfoNce(temperature=0.0)
    with pytest.raises(InputError, match=r"a step has 8 keys, but the queue holds 7(.|\n)*--host\.queue"):
        QueueInfoNce(size=7).check_batch(8)
    QueueInfoNce(size=8).check_batch(8)


def test_other_losses_remember_nothing() -> None:
    for loss in (InfoNce(), Regression()):
        assert loss.remember(3) is None
        loss.check_batch(1)
