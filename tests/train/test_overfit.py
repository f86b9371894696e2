"""Every host learns 64 photographs by heart, with none, one or both of the modules, and does not collapse.

The views are drawn once. After the training, the row that the student reads is nearest to the teacher's row of the same
region (of the same image, for BYOL) among those of all 64 images.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d3ssl.contracts import CanvasBatch, ViewSet, map_tensors
from d3ssl.data.sources import open_images
from d3ssl.methods import HOSTS, Learner, decouple, deposition
from d3ssl.methods.losses import PrototypeCrossEntropy
from d3ssl.models.backbone import create_backbone
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import read_regions
from d3ssl.seeds import Draws
from d3ssl.train.collapse import CollapseWatch, embedding_spread
from d3ssl.train.config import CanvasConfig
from d3ssl.train.loader import CanvasDataset, collate
from d3ssl.train.optimizer import OptimizerConfig, make_optimizer, scale_rates
from d3ssl.views import RegionsSpec, ViewMaker
from tests.train.photographs import COUNT, write_photographs

RATES = {"soco": 3e-3, "byol": 3e-3, "detcon": 3e-3, "densecl": 2e-3}
HEADS: dict[str, Any] = {"projector_hidden": 256, "projector_out": 64, "momentum": 0.9}
HOST_OPTIONS: dict[str, dict[str, Any]] = {
    "soco": {"loss": "info_nce", "region_path": "c3", "roi_size": 4},
    "byol": {"loss": "info_nce", "area": (0.5, 1.0), "roi_size": 2},
    "detcon": {"area": (0.6, 1.0)},
    "densecl": {"area": (0.7, 1.0), "queue": 48, "grid": 2, "roi_size": 2},
}
SETTINGS: dict[str, tuple[str, int, int, int, int]] = {
    "soco": ("test_resnet", 64, 1, 1, 44),
    "byol": ("test_resnet", 64, 1, 1, 44),
    "detcon": ("test_resnet", 64, 2, 1, 38),
    "densecl": ("test_resnet", 64, 1, 4, 40),  # the queue holds the other three parts
}
"""Network, side of the views in px, regions per image, parts that the photographs are seen in, rounds."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> CanvasBatch:
    """All of them in one batch, with four regions each."""
    folder = tmp_path_factory.mktemp("data")
    images = open_images(str(write_photographs(folder / "photographs")))
    grid = RegionsConfig(method="grid", grid_rows=2, grid_columns=2, workers=1)
    compute_regions(images, grid, folder / "regions.parquet")
    regions = read_regions(folder / "regions.parquet")
    dataset = CanvasDataset(images, regions, CanvasConfig(size=64, max_candidates=4), 0, masks=True)
    loaded = collate([dataset[number] for number in range(COUNT)])
    assert hasattr(loaded, "batch")
    return loaded.batch  # type: ignore[union-attr]


@torch.no_grad()
def retrieved(learner: Learner, parts: list[ViewSet]) -> float:
    """Share of the student's rows whose nearest row of the teacher, among those of all parts, is their own."""
    pair, head = next(learner.plan.pairs()), next(iter(learner.plan.objectives))
    students, teachers = [], []
    for views in parts:
        counted = learner(views, 1.0).counted
        student = learner.predictors[head](learner.student(views.views[pair.student], views.slots, [head])[head])
        teacher = learner.teacher(views.views[pair.teacher], views.slots, [head])[head]
        students.append(F.normalize(student[counted], dim=1))
        teachers.append(F.normalize(teacher[counted], dim=1))
    nearest = (torch.cat(students) @ torch.cat(teachers).T).argmax(1)
    return float((nearest == torch.arange(len(nearest))).float().mean())


def part_of(views: ViewSet, part: int, parts: int) -> ViewSet:
    """Every ``parts``-th image."""

    def own(tensor: Tensor) -> Tensor:
        return tensor[part::parts]

    slots = map_tensors(views.slots, own)
    return ViewSet(views=map_tensors(views.views, own), slots=slots, scale=1 / slots.weight.sum())


@pytest.mark.slow
@pytest.mark.parametrize("modules", ["", "DC", "DP", "DC DP"])
@pytest.mark.parametrize("host", HOST_OPTIONS)
def test_it_learns_the_photographs_by_heart(host: str, modules: str, photographs: CanvasBatch) -> None:
    network, size, slots, parts, rounds = SETTINGS[host]
    plan = HOSTS[host](**HEADS, **HOST_OPTIONS[host]).plan(size, RegionsSpec(regions_per_image=slots, min_side=4.0))
    plan = decouple(plan) if "DC" in modules else plan
    plan = deposition(plan) if "DP" in modules else plan
    torch.manual_seed(0)
    learner = Learner(plan, create_backbone(network)).train()
    maker = ViewMaker(plan.views, plan.regions, learner.backbone.mean, learner.backbone.std, plan.used_views)
    whole, watch = maker(photographs, Draws(seed=0)), CollapseWatch()
    views = [part_of(whole, part, parts) for part in range(parts)]
    optimizer = torch.optim.AdamW([p for module in learner.trainable() for p in module.parameters()], lr=RATES[host])
    for step in range(rounds * parts):
        output = learner(views[step % parts], step / rounds / parts)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        learner.after_step(step / rounds / parts, [output.carry])
        assert watch.check(embedding_spread(output.watched[output.counted]), step) is None
    assert retrieved(learner, views) >= 0.9


PROTOTYPES: dict[str, Any] = {
    "prototypes": 32,
    "projector_hidden": 256,
    "bottleneck": 64,
    "momentum": 0.998,
    "area": (0.8, 1.0),
    "dense_hidden": 64,
    "roi_size": 2,
    "loss": PrototypeCrossEntropy(first_temperature=0.01, teacher_temperature=0.01, centre_momentum=0.5),
}


@torch.no_grad()
def chosen_alike(learner: Learner, views: ViewSet) -> tuple[float, int]:
    """Share of the images for which the student's likeliest prototype is the teacher's; how many the teacher uses."""
    pair, head = next(learner.plan.pairs()), next(iter(learner.plan.objectives))
    student = learner.student(views.views[pair.student], views.slots, [head])[head].argmax(1)
    teacher = learner.teacher(views.views[pair.teacher], views.slots, [head])[head]
    teacher = (teacher - learner.memories[head].get_buffer("centre")).argmax(1)
    return float((student == teacher).float().mean()), len(teacher.unique())


@pytest.mark.slow
@pytest.mark.parametrize("modules", ["", "DC", "DP", "DC DP"])
def test_it_learns_the_prototypes_of_the_photographs_by_heart(modules: str, photographs: CanvasBatch) -> None:
    plan = HOSTS["ibot"](**PROTOTYPES).plan(48, RegionsSpec(regions_per_image=1, min_side=4.0))
    plan = decouple(plan) if "DC" in modules else plan
    plan = deposition(plan) if "DP" in modules else plan
    torch.manual_seed(0)
    learner = Learner(plan, create_backbone("test_vit")).train()
    maker = ViewMaker(plan.views, plan.regions, learner.backbone.mean, learner.backbone.std, plan.used_views)
    views, watch = maker(photographs, Draws(seed=0)), CollapseWatch()
    optimizer = make_optimizer(learner.trainable(), OptimizerConfig(name="adamw", lr=3e-3, weight_decay=0.01), 64)
    for step in range(140):
        scale_rates(optimizer, min(1, (step + 1) / 8) * (1 - step / 140))
        output = learner(views, step / 140)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        learner.after_step(step / 140, [output.carry])
        assert watch.check(embedding_spread(output.watched[output.counted]), step) is None
    share, used = chosen_alike(learner, views)
    assert share >= 0.9 and used >= 3
