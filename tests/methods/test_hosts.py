"""Every host on a ResNet, a ConvNeXt and a ViT: a step has a finite loss and a gradient for all that is trained."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightly.models.utils import select_most_similar

from d3ssl.errors import InputError
from d3ssl.methods import Learner, Plan
from d3ssl.methods.losses.queue import Queue
from d3ssl.methods.rows import most_similar, origin_of
from d3ssl.models.backbone import create_backbone
from tests.methods.examples import make_learner, make_views, tiny_plan

NETWORKS = ("test_resnet", "test_convnext", "test_vit")
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("soco", "test_vit"): {"region_path": "map"},
    ("densecl", "test_vit"): {"level": -1},  # a ViT has one map
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("modules", ["", "DC DP"])
@pytest.mark.parametrize("host", ["soco", "byol", "detcon", "densecl"])
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


# ---- DenseCL ------------------------------------------------------------------------------------------------------


def queue_of(learner: Learner, name: str) -> Queue:
    queue = learner.memories[name]
    assert isinstance(queue, Queue)
    return queue


def test_a_cell_belongs_to_the_most_similar_cell_of_the_same_image() -> None:
    """By hand, and as lightly has it."""
    query, key = torch.randn(2, 4, 6, 5)
    found = most_similar(query.flatten(0, 1), key.flatten(0, 1), 4)
    expected = []
    for image in range(4):
        for cell in query[image]:
            cosine = [float(torch.cosine_similarity(cell, other, dim=0)) for other in key[image]]
            expected.append(6 * image + max(range(6), key=cosine.__getitem__))
    assert found.tolist() == expected
    values = torch.randn(4, 6, 3)
    torch.testing.assert_close(values.flatten(0, 1)[found], select_most_similar(query, key, values).flatten(0, 1))


def test_the_loss_of_densecl_written_out() -> None:
    plan = tiny_plan("densecl", dense=0.3)
    learner, views = make_learner(plan).eval(), make_views(plan)
    with torch.no_grad():
        output = learner(views, 0.0)
        total = 0.0
        for name, weight in (("image", 0.7), ("cell", 0.3)):
            read = []
            for network, view in ((learner.student, "x1"), (learner.teacher, "x2")):
                maps = network.backbone.features(views.views[view].images, ["map"])
                rows = network.reader(name)(maps, views.views[view], views.slots, network.backbone)
                read.append((rows, network.projectors[name](rows)))
            (features, student), (others, teacher) = read
            if name == "cell":
                assert student.shape == (16, 8)
                teacher = teacher[most_similar(features, others, 4)]
            keys = queue_of(learner, name).keys
            logits = torch.cat([F.cosine_similarity(student, teacher)[:, None], F.normalize(student) @ keys.T], 1) / 0.2
            total += weight * float((logits.logsumexp(1) - logits[:, 0]).mean())
    assert float(output.loss) == pytest.approx(total, abs=1e-4)


def test_the_queues_take_the_teacher_s_keys_and_are_part_of_the_state() -> None:
    plan = tiny_plan("densecl", "DC DP")
    learner, views = make_learner(plan), make_views(plan)
    output = learner(views, 0.0)
    before = {name: queue_of(learner, name).keys.clone() for name in learner.memories}
    learner.after_step(0.0, [output.carry, output.carry])
    for name, old in before.items():
        keys = queue_of(learner, name).keys
        torch.testing.assert_close(keys[:8], output.carry[f"memory.{name}"].repeat(2, 1))
        assert torch.equal(keys[8:], old[8:])
    assert {"memories.image.keys", "memories.cell.place"} <= learner.state_dict().keys()
    assert set(before) == {"image", "cell"}  # x3's regions are compared within the batch


def test_a_cell_counts_by_what_it_shows_of_its_own_image() -> None:
    plan = tiny_plan("densecl", "DC")
    learner, views = make_learner(plan).eval(), make_views(plan)
    cut = views.views["x1_cut"]
    keep = torch.ones(4, 1, 64, 64, dtype=torch.bool)
    keep[:, :, :32] = False  # the upper cells of the grid of 2 × 2
    keep[:, :, 32:, :16] = False
    half = dataclasses.replace(cut, keep=keep)
    weights = learner.student.reader("cell").weigh(half)
    assert weights is not None and weights.tolist() == [0.0, 0.0, 0.5, 1.0] * 4
    assert learner.student.reader("cell").weigh(cut) is None
    nothing = dataclasses.replace(cut, keep=torch.zeros_like(keep))
    with torch.no_grad():
        parts = learner(dataclasses.replace(views, views={**views.views, "x1_cut": nothing}), 0.0).parts
    assert float(parts["loss_cell"]) == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dense": 1.5}, r"host\.dense is 1\.5"),
        ({"queue": 0}, "queue holds 0 keys"),
        ({"grid": 0}, "0 cells per side"),
    ],
)
def test_impossible_options_of_densecl(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_plan("densecl", **options)


def test_a_view_with_fewer_cells_than_the_grid() -> None:
    plan = tiny_plan("densecl", grid=7, level=-1)
    plan.check()
    with pytest.raises(InputError, match=r"64 px has 2 cells of 32 px per side, not 7(.|\n)*host\.level"):
        plan.check_backbone(create_backbone("test_resnet"))
