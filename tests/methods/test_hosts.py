"""Every host on a ResNet, a ConvNeXt and a ViT: a step has a finite loss and a gradient for all that is trained."""

import dataclasses
from typing import Any

import pytest
import torch

from d3ssl.methods import Plan
from d3ssl.methods.rows import origin_of
from d3ssl.models.backbone import create_backbone
from tests.methods.examples import make_learner, make_views, tiny_plan

NETWORKS = ("test_resnet", "test_convnext", "test_vit")
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {("soco", "test_vit"): {"region_path": "map"}}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("modules", ["", "DC DP"])
@pytest.mark.parametrize("host", ["soco", "byol", "detcon"])
def test_a_step_on_every_kind_of_network(host: str, modules: str, network: str) -> None:
    plan = tiny_plan(host, modules, **OPTIONS.get((host, network), {}))
    plan.check_backbone(create_backbone(network))
    learner = make_learner(plan, network)
    output = learner(make_views(plan), 0.3)
    output.loss.backward()
    assert output.loss.isfinite()
    gradients = [p.grad for p in learner.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    before = [p.clone() for p in learner.teacher.parameters()]
    with torch.no_grad():
        for p in learner.student.parameters():
            p.add_(0.01)
    learner.after_step(0.3, [output.carry])
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.teacher.parameters(), strict=True))


# ---- DetCon -------------------------------------------------------------------------------------------------------


def test_all_other_segments_of_an_image_are_negatives_and_the_same_one_is_not() -> None:
    """Their boxes overlap, as those of a partition do; slots 0 and 2 of the first image show the same segment."""
    plan: Plan = tiny_plan("detcon", slots=3)
    views = make_views(plan, batch=2)
    whole = torch.tensor([0.0, 0.0, 60.0, 60.0])
    boxes = torch.stack([whole, whole - torch.tensor([0.0, 0.0, 9.0, 0.0]), whole]).repeat(2, 1, 1)
    slots = dataclasses.replace(views.slots, boxes=boxes)
    loss = plan.objectives["segment"].loss
    rows = torch.eye(6)
    found = loss(rows, rows, origin_of(slots, "region"))
    expected = torch.tensor([10.0, *[0.0] * 4]).logsumexp(0) - 10  # itself, the other segment, three of the other image
    torch.testing.assert_close(found[[0, 2]], expected.expand(2))
    every = torch.tensor([10.0, *[0.0] * 5]).logsumexp(0) - 10
    torch.testing.assert_close(found[1], every)
