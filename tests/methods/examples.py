"""Tiny plans and views of random pixels for the tests of methods."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from d3ssl.contracts import Slots, View, ViewSet, map_tensors
from d3ssl.methods import DecoupleConfig, DepositionConfig, Learner, Plan, decouple, deposition
from d3ssl.methods.hosts import Byol, Densecl, Detcon, Ibot, Soco
from d3ssl.models.backbone import create_backbone
from d3ssl.views import RegionsSpec, ViewSpec

HEADS: dict[str, Any] = {"projector_hidden": 16, "projector_out": 8}
HOSTS: dict[str, Any] = {
    "soco": Soco(roi_size=2, **HEADS),
    "byol": Byol(roi_size=2, **HEADS),
    "detcon": Detcon(**HEADS),
    "densecl": Densecl(queue=24, grid=2, level=-2, roi_size=2, **HEADS),
    "ibot": Ibot(prototypes=24, projector_hidden=16, bottleneck=8, dense_hidden=16, roi_size=2),
}
NETWORKS = {"ibot": "test_vit"}
"""Where not test_resnet."""


def tiny_plan(name: str = "soco", modules: str = "", size: int = 64, slots: int = 3, **options: Any) -> Plan:
    """The plan of a host with the modules that are named: ``"DC DP"``."""
    host = dataclasses.replace(HOSTS[name], **options)
    plan = host.plan(size, RegionsSpec(regions_per_image=slots, min_side=2.0, min_visible=0.3))
    plan = decouple(plan) if "DC" in modules else plan
    return deposition(plan) if "DP" in modules else plan


def make_learner(plan: Plan, backbone: str | None = None) -> Learner:
    plan.check()
    torch.manual_seed(0)
    return Learner(plan, create_backbone(backbone or NETWORKS.get(plan.name, "test_resnet"))).train()


def make_slots(batch: int, slots: int, generator: torch.Generator) -> Slots:
    corner = torch.rand(batch, slots, 2, generator=generator) * 30
    number = torch.arange(slots).repeat(batch, 1)
    return Slots(
        distinct=torch.ones(batch, slots, dtype=torch.bool),
        source=number,
        weight=torch.ones(batch, slots),
        boxes=torch.cat([corner, corner + 20], dim=-1),
        index=torch.arange(batch),
    )


def make_views(plan: Plan, batch: int = 4, seed: int = 0, weight: Tensor | None = None) -> ViewSet:
    """Random pixels and boxes for the views of a plan; with ``weight`` (B, K), regions of other weights."""
    generator = torch.Generator().manual_seed(seed)
    count = plan.regions.regions_per_image
    slots = make_slots(batch, count, generator)
    views = {}
    for name in plan.used_views:
        side = plan.views[name].size
        corner = torch.rand(batch, count, 2, generator=generator) * side / 2
        images = torch.randn(batch, 3, side, side, generator=generator)
        boxes = torch.cat([corner, corner + side / 3], dim=-1)
        view = View(images=images, boxes=boxes, matrix=torch.eye(3).repeat(batch, 1, 1))
        views[name] = _hide(view, plan.views[name], generator)
    if weight is not None:
        slots = Slots(distinct=slots.distinct, source=slots.source, weight=weight, boxes=slots.boxes, index=slots.index)
    return ViewSet(views=views, slots=slots, scale=1 / slots.weight.sum())


def _hide(view: View, spec: ViewSpec, generator: torch.Generator) -> View:
    """Half of the patches; in a view of a share the last two images, each with the other's patches."""
    if not spec.hides_patches:
        return view
    side = view.images.shape[2] // 16
    hidden = torch.rand(len(view.images), side, side, generator=generator) < 0.5
    view = dataclasses.replace(view, hidden=hidden)
    if spec.share == 1:
        return view
    last = map_tensors(view, lambda tensor: tensor[-2:])
    return dataclasses.replace(last, partner=torch.tensor([1, 0]))


DECOUPLE_OPTIONS: dict[str, list[Any]] = {
    "cutout": [0.0, 0.3],
    "cutout_where": ["regions", "context", "both"],
    "cutout_fill": ["mean", "mix"],
    "background": ["keep", "outside_boxes", "outside_masks"],
    "teacher": ["whole", "cut"],
}
DEPOSITION_OPTIONS: dict[str, list[Any]] = {
    "weight": [1.0, 0.3],
    "cutout": [0.0, 0.3],
    "shift": ["union", "each", "none"],
    "scale": [(0.6, 1.0), (1.0, 1.0)],
    "carried_by": ["box", "mask"],
    "background": ["mix", "mean"],
    "photometric": ["fresh", "same"],
}


def combinations(options: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of the options."""
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def all_modules() -> tuple[list[DecoupleConfig], list[DepositionConfig]]:
    return (
        [DecoupleConfig(**own) for own in combinations(DECOUPLE_OPTIONS)],
        [DepositionConfig(**own) for own in combinations(DEPOSITION_OPTIONS)],
    )
