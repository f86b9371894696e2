"""The loss of a step against the formula written out with loops, and what each part of a plan does."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3ssl.contracts import Rows, View, ViewSet
from d3ssl.methods import Learner
from d3ssl.methods.rows import origin_of
from tests.methods.examples import make_learner, make_views, tiny_plan
from tests.views.canvases import make_slots

PLANS = [("soco", ""), ("soco", "DC DP"), ("byol", ""), ("byol", "DC DP")]


def naive_loss(learner: Learner, views: ViewSet) -> float:
    """Every objective, pair and row by itself."""
    rows = {kind: origin_of(views.slots, kind) for kind in ("image", "region")}

    def read(network: Any, view: str, head: str) -> Tensor:
        own = views.views[view]
        features = network.backbone.features(own.images, {network.readers[head].needs})
        return network.projectors[head](network.readers[head](features, own, views.slots, network.backbone))

    total = 0.0
    for name, objective in learner.plan.objectives.items():
        head, weight = objective.shares or name, rows[objective.reader.rows].weight
        for pair in objective.pairs:
            student = learner.predictors[head](read(learner.student, pair.student, head))
            teacher = read(learner.teacher, pair.teacher, head)
            losses = objective.loss(student, teacher, rows[objective.reader.rows])
            total += pair.weight * float(sum(w * x for w, x in zip(weight, losses, strict=True)) / weight.sum())
    return total


@pytest.mark.parametrize(("host", "modules"), PLANS)
@pytest.mark.parametrize("loss", ["regression", "info_nce"])
def test_the_loss_is_the_formula(host: str, modules: str, loss: str) -> None:
    plan = tiny_plan(host, modules, loss=loss)
    learner = make_learner(plan)
    weight = torch.ones(4, 3)
    weight[0, 1], weight[2] = 0.0, 0.5
    views = make_views(plan, weight=weight)
    with torch.no_grad():
        output = learner(views, 0.0)
        expected = naive_loss(learner, views)
    assert float(output.loss) == pytest.approx(expected, abs=1e-4)
    assert set(output.parts) == {f"loss_{name}" for name in plan.objectives}
    assert float(sum(output.parts.values())) == pytest.approx(float(output.loss), abs=1e-5)
    assert output.watched.shape == ((12, 8) if host == "soco" else (4, 8))
    assert output.counted.shape == output.watched.shape[:1]


@pytest.mark.parametrize(("host", "modules"), PLANS)
def test_the_gradient_reaches_all_that_is_trained_and_nothing_else(host: str, modules: str) -> None:
    learner = make_learner(tiny_plan(host, modules, loss="info_nce"))
    learner(make_views(learner.plan), 0.0).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in learner.teacher.parameters())
    trained = {name: p.grad for name, p in learner.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []  # DDP waits for every parameter
    # timm starts residual branches at zero, so some gradients are zero at the first step; the way through is not
    for name in ("student.backbone.net.conv1.0.weight", "student.backbone.net.layer4.0.downsample.1.weight"):
        gradient = trained[name]
        assert gradient is not None and gradient.abs().sum() > 0, name


def test_layers_behind_the_last_map_are_not_trained() -> None:
    learner = make_learner(tiny_plan(region_path="map"), "efficientnet_lite0")
    frozen = [name for name, p in learner.student.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.net.conv_head.weight", "backbone.net.bn2.weight", "backbone.net.bn2.bias"]


def test_the_teacher_follows_by_the_plan_s_momentum() -> None:
    learner = make_learner(tiny_plan(momentum=0.9))
    before = [p.clone() for p in learner.teacher.parameters()]
    with torch.no_grad():
        for p in learner.student.parameters():
            p.add_(1.0)
    assert learner.after_step(0.0, []) == {"teacher_momentum": pytest.approx(0.9)}
    for old, new in zip(before, learner.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1, atol=1e-5, rtol=1e-5)
    assert learner.after_step(1.0, []) == {"teacher_momentum": 1.0}


@pytest.mark.parametrize("loss", ["regression", "info_nce"])
def test_rows_without_weight_have_no_influence_on_others(loss: str) -> None:
    """Without batch norms, whose statistics every row enters."""
    plan, weight = tiny_plan("soco", "DP", loss=loss), torch.ones(4, 3)
    weight[0] = 0.0
    learner, views = make_learner(plan).eval(), make_views(plan, weight=weight)
    x1 = views.views["x1"]
    moved = x1.boxes.clone()
    moved[0] += 7.0
    other = dataclasses.replace(views, views={**views.views, "x1": dataclasses.replace(x1, boxes=moved)})
    with torch.no_grad():
        torch.testing.assert_close(learner(views, 0.0).loss, learner(other, 0.0).loss)


@st.composite
def repetitions(draw: st.DrawFn) -> list[list[int]]:
    """For each of three images the region in every slot: both of two, then any of them."""
    more = draw(st.integers(0, 3))
    one = st.lists(st.integers(0, 1), min_size=more, max_size=more).map(lambda own: [0, 1, *own])
    return draw(st.lists(one, min_size=3, max_size=3))


@settings(max_examples=5)
@given(repeated=repetitions())
@pytest.mark.parametrize("loss", ["regression", "info_nce"])
@pytest.mark.parametrize("host", ["soco", "byol"])
def test_a_region_in_several_slots_weighs_what_one_does(host: str, loss: str, repeated: list[list[int]]) -> None:
    """The same regions in 2 slots and repeated in more: the same loss and gradient, in evaluation mode."""
    found = []
    for source in ([[0, 1]] * 3, repeated):
        plan = tiny_plan(host, "DC DP", slots=len(source[0]), loss=loss)
        learner = make_learner(plan).eval()
        few = make_views(tiny_plan(host, "DC DP", slots=2, loss=loss), batch=3)
        number = torch.tensor(source)[..., None].expand(-1, -1, 4)

        def repeat(view: View, number: Tensor = number) -> View:
            return dataclasses.replace(view, boxes=view.boxes.gather(1, number))

        slots = make_slots(source, few.slots.boxes.gather(1, number))
        views = {name: repeat(view) for name, view in few.views.items()}
        output = learner(ViewSet(views=views, slots=slots, scale=1 / slots.weight.sum()), 0.0)
        output.loss.backward()
        gradients = [p.grad for p in learner.parameters() if p.grad is not None]
        found.append((output.loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
        kind = "region" if host == "soco" else "image"
        assert int(output.counted.sum()) == (6 if kind == "region" else 3)  # watched once each
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_an_image_twice_in_the_batch_is_one_image() -> None:
    slots = dataclasses.replace(make_slots([[0], [0], [0]]), index=torch.tensor([4, 9, 4]))
    for kind in ("region", "image"):
        rows: Rows = origin_of(slots, kind)
        assert rows.image.tolist() == [4, 9, 4]
        assert rows.start == 0


def test_a_view_is_run_once_per_network_however_many_pairs_name_it() -> None:
    plan = tiny_plan("byol", "DP")
    learner, runs = make_learner(plan), []
    for network in (learner.student, learner.teacher):
        network.backbone.net.get_submodule("conv1").register_forward_hook(lambda module, *_: runs.append(module))
    learner(make_views(plan), 0.0)
    assert len(runs) == 3 + 2  # the student sees x1, x2 and x3; the teacher x1 and x2


@pytest.mark.parametrize(("path", "kept"), [("c3", "c3"), ("c4", "c4"), ("map", "map"), ("fpn", "map")])
def test_the_backbone_remembers_how_regions_were_read(path: str, kept: str) -> None:
    backbone = make_learner(tiny_plan(region_path=path)).backbone
    assert backbone.region_path == kept
    assert backbone.roi_size == (7 if path == "fpn" else 2)


def test_all_is_channels_last() -> None:
    learner, seen = make_learner(tiny_plan()), []
    weights = [p for p in learner.teacher.parameters() if p.ndim == 4 and p.shape[2] > 1 and p.shape[1] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    stage = learner.backbone.net.get_submodule("layer4")
    stage.register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))
    learner(make_views(learner.plan), 0.0)
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen)
    assert seen[0].shape == (12, 192, 2, 2)


def test_it_overfits_one_tiny_batch() -> None:
    """The machinery learns: InfoNCE on one batch falls far below its value at the start."""
    learner = make_learner(tiny_plan("soco", "DC DP", slots=2, loss="info_nce"))
    views, losses = make_views(learner.plan), []
    optimizer = torch.optim.AdamW([p for m in learner.trainable() for p in m.parameters()], lr=3e-3)
    for _ in range(30):
        output = learner(views, 0.0)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        learner.after_step(0.0, [output.carry])
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
