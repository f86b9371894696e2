"""The loss of a step against the formula written out with loops, and what each switch does."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from d3ssl.contracts import View, ViewSet
from d3ssl.errors import D3sslError
from d3ssl.methods import D3ssl, MethodConfig
from d3ssl.models.network import ModelConfig

MODEL = ModelConfig(backbone="test_resnet", roi_size=2, projector_hidden=16, projector_out=8)


def make_views(batch: int = 4, slots: int = 3, size: int = 64, x3: bool = True, seed: int = 0) -> ViewSet:
    generator = torch.Generator().manual_seed(seed)

    def view(side: int) -> View:
        corner = torch.rand(batch, slots, 2, generator=generator) * side / 2
        boxes = torch.cat([corner, corner + side / 3], dim=-1)
        images = torch.randn(batch, 3, side, side, generator=generator)
        return View(images=images, boxes=boxes, matrix=torch.eye(3).expand(batch, 3, 3))

    valid = torch.ones(batch, slots, dtype=torch.bool)
    valid[0, 1] = False
    corner = torch.rand(batch, slots, 2, generator=generator) * 30
    return ViewSet(
        teacher_x1=view(size),
        teacher_x2=view(size),
        student_x1=view(size),
        student_x2_small=view(size // 2),
        student_x3=view(size) if x3 else None,
        valid=valid,
        canvas_boxes=torch.cat([corner, corner + 20], dim=-1),
        index=torch.arange(batch),
    )


def naive_loss(method: D3ssl, views: ViewSet, weight: float) -> float:
    """2 − 2·cosine of every pair, row by row."""

    def rows(network, view, head):
        return head(network(view.images, view.boxes, views.valid))

    def mean(student, teacher):
        total = 0.0
        for s, t in zip(student, teacher, strict=True):
            total += float(2 - 2 * (s @ t) / (s.norm() * t.norm()))
        return total / len(student)

    same = torch.nn.Identity()
    t1, t2 = rows(method.teacher, views.teacher_x1, same), rows(method.teacher, views.teacher_x2, same)
    s1 = rows(method.student, views.student_x1, method.predictor)
    s2 = rows(method.student, views.student_x2_small, method.predictor)
    base = 0.5 * (mean(s1, t2) + mean(s2, t1))
    if views.student_x3 is None:
        return base
    s3 = rows(method.student, views.student_x3, method.predictor)
    return base + weight * 0.5 * (mean(s3, t1) + mean(s3, t2))


@pytest.mark.parametrize(("x3", "weight"), [(False, 1.0), (True, 1.0), (True, 0.3)])
def test_loss_is_the_formula(x3: bool, weight: float) -> None:
    method = D3ssl(MethodConfig(deposition_weight=weight), MODEL).train()
    views = make_views(x3=x3)
    with torch.no_grad():
        output = method(views)
        expected = naive_loss(method, views, weight)
    assert float(output.loss) == pytest.approx(expected, abs=1e-4)
    assert ("loss_deposition" in output.parts) == x3
    assert output.embeddings.shape == (11, 8)  # 4 × 3 slots, one of them not valid


def test_gradient_reaches_the_student_only() -> None:
    method = D3ssl(MethodConfig(objective="info_nce"), MODEL).train()
    method(make_views()).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    trained = {name: p.grad for name, p in method.student.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []
    # timm starts residual branches at zero, so some gradients are zero at the first step; the way through is not.
    for name in ("backbone.net.conv1.0.weight", "backbone.net.layer4.0.downsample.1.weight", "projector.0.weight"):
        gradient = trained[name]
        assert gradient is not None
        assert gradient.abs().sum() > 0, name


def test_teacher_follows_by_momentum() -> None:
    method = D3ssl(MethodConfig(), MODEL)
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
    method.update_teacher(0.9)
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1, atol=1e-5, rtol=1e-5)


def test_invalid_regions_have_no_influence() -> None:
    method = D3ssl(MethodConfig(objective="info_nce"), MODEL).train()
    views = make_views()
    moved = views.student_x1.boxes.clone()
    moved[0, 1] += 7.0
    other = dataclasses.replace(views, student_x1=dataclasses.replace(views.student_x1, boxes=moved))
    with torch.no_grad():
        assert torch.equal(method(views).loss, method(other).loss)


def test_no_surviving_region_is_an_error_with_a_remedy() -> None:
    views = make_views()
    empty = dataclasses.replace(views, valid=torch.zeros_like(views.valid))
    with pytest.raises(D3sslError, match="min_visible"):
        D3ssl(MethodConfig(), MODEL)(empty)


def test_regression_without_predictor_is_refused() -> None:
    with pytest.raises(D3sslError, match="collapses"):
        D3ssl(MethodConfig(predictor=False), MODEL)


def test_overfits_one_tiny_batch() -> None:
    """The machinery learns: InfoNCE on one batch falls far below its value at chance, log(number of rows)."""
    method = D3ssl(MethodConfig(objective="info_nce"), MODEL).train()
    views = make_views(batch=4, slots=2)
    optimizer = torch.optim.AdamW([*method.student.parameters(), *method.predictor.parameters()], lr=3e-3)
    losses = []
    for _ in range(30):
        loss = method(views).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.update_teacher(0.9)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert F.softplus(torch.tensor(losses[-1])) > 0  # finite
