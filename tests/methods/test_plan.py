"""A plan that cannot be carried out is refused with one clear error, before any image is read."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.methods import MethodConfig, Objective, Pair, Plan, find_host, make_plan
from d3ssl.methods.hosts import HOSTS, Host
from d3ssl.methods.losses import InfoNce
from d3ssl.methods.modules import DecoupleConfig, DepositionConfig
from d3ssl.models.backbone import create_backbone
from d3ssl.models.readers import Box, Mask
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import read_regions
from d3ssl.train.config import CanvasConfig, RunConfig
from d3ssl.train.loader import CanvasDataset
from d3ssl.views import RegionsSpec
from d3ssl.views.ops import Alone
from tests.methods.examples import NETWORKS, make_learner, make_views, tiny_plan


def changed(plan: Plan, **objective: Any) -> Plan:
    """The plan with another first objective."""
    first, own = next(iter(plan.objectives.items()))
    return dataclasses.replace(plan, objectives={**plan.objectives, first: dataclasses.replace(own, **objective)})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (changed(tiny_plan(), pairs=(Pair(student="x1", teacher="x2_smal"),)),
         r"objective 'region' names a view 'x2_smal' that does not exist(.|\n)*did you mean 'x2_small'"),
        (changed(tiny_plan(), pairs=(Pair(student="y1", teacher="x2"),)), "names a view 'y1'"),
        (changed(tiny_plan(), pairs=(Pair(student="x1", teacher="x2", weight=-0.5),)), r"'region' weighs -0\.5"),
        (changed(tiny_plan(), pairs=()), "'soco' compares nothing"),
        (dataclasses.replace(tiny_plan(), momentum=1.5), "momentum is 1.5"),
        (dataclasses.replace(tiny_plan(), views=dict(reversed(tiny_plan().views.items()))), "made from a later view"),
        (tiny_plan(size=14), r"'x2_small' is 7 px"),
        (changed(tiny_plan("soco", "DP"), shares="regions"), r"which does not exist(.|\n)*did you mean 'region'"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_carried_out(plan: Plan, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan.check()
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("plan", "backbone", "message"),
    [
        (tiny_plan(region_path="c4"), "test_vit", r"region path c4(.|\n)*region_path map"),
        (tiny_plan(region_path="c3"), "test_vit", r"region path c3(.|\n)*region_path map"),
        (tiny_plan(region_path="fpn"), "test_vit", r"strides(.|\n)*region_path map"),
        (changed(tiny_plan(), reader=Box(path="map", level=-9)), "test_resnet", r"none is number -9(.|\n)*from −5 to"),
        (changed(tiny_plan(), reader=Box(path="map", level=0)), "test_resnet", "none is number 0"),
        (changed(tiny_plan(), reader=Mask(level=-2)), "test_vit", "has 1 maps, so none is number -2"),
        (tiny_plan("byol"), "mixer_s32_224", "takes only images of 224 × 224 px, not 64 × 64"),
    ],
)
def test_backbones_that_do_not_offer_what_is_read(plan: Plan, backbone: str, message: str) -> None:
    plan.check()
    with pytest.raises(InputError, match=message) as caught:
        plan.check_backbone(create_backbone(backbone))
    assert caught.value.remedy


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_gives_a_plan_that_can_be_carried_out(name: str) -> None:
    host = HOSTS[name]()
    assert isinstance(host, Host)
    for decouple, deposition in ((False, False), (True, False), (False, True), (True, True)):
        method = MethodConfig(host=name, decouple=decouple, deposition=deposition)
        plan = make_plan(method, host, DecoupleConfig(), DepositionConfig(), 224, RegionsSpec())
        plan.check_backbone(create_backbone(NETWORKS.get(name, "test_resnet")))
        assert plan.modules == {name for name, is_on in (("DC", decouple), ("DP", deposition)) if is_on}
        assert plan.name == name
        assert plan.needs_masks == (name in ("posttrain", "detcon"))  # see masks alone; pool masks
        table = plan.table()
        assert all(f"view {view} " in table for view in plan.views)
        assert all(f"{pair.student} → {pair.teacher}" in table for pair in plan.pairs())


def test_an_unknown_host_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no host 'soko'(.|\n)*did you mean 'soco'"):
        find_host("soko")
    with pytest.raises(InputError, match="no host 'bayol'"):
        RunConfig(data="x", out="y", method=MethodConfig(host="bayol"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictor": False}, r"without a predictor collapses(.|\n)*host\.predictor true"),
        ({"small_ratio": 0.0}, r"host\.small_ratio is 0\.0"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"projector_out": 1}, "1 outputs"),
        ({"roi_size": 0}, "roi_size is 0"),
        ({"loss": "info_nce", "temperature": 0.0}, "temperature is 0.0"),
        ({"x2_area": (0.9, 0.5)}, "area of a crop"),
    ],
)
def test_impossible_options_of_a_host(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_plan(**options).check()
    assert tiny_plan(predictor=False, loss="info_nce").objectives["region"].predictor is None


def test_masks_that_the_regions_file_does_not_have(tmp_path: Path) -> None:
    plan = changed(tiny_plan(), reader=Mask())
    assert plan.needs_masks
    alone = dataclasses.replace(tiny_plan().views["x2_small"], operations=(Alone(),))
    assert dataclasses.replace(tiny_plan(), views={**tiny_plan().views, "alone": alone}).needs_masks
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    images = open_images(str(folder))
    compute_regions(images, RegionsConfig(method="grid", label_maps=False, workers=1), tmp_path / "regions.parquet")
    regions, canvas = read_regions(tmp_path / "regions.parquet"), CanvasConfig(size=40)
    CanvasDataset(images, regions, canvas, 0, masks=tiny_plan().needs_masks)
    with pytest.raises(InputError, match=r"needs masks, but the regions are boxes only(.|\n)*--proposals\.method"):
        CanvasDataset(images, regions, canvas, 0, masks=plan.needs_masks)


def test_a_plan_of_somebody_else_without_heads_or_predictor_is_trained() -> None:
    plan = tiny_plan()
    objective = Objective(reader=Mask(), loss=InfoNce(temperature=0.1), pairs=(Pair(student="x2_small", teacher="x2"),))
    own = dataclasses.replace(plan, name="mine", objectives={"pixels": objective})
    learner = make_learner(own)
    output = learner(make_views(own), 0.0)
    output.loss.backward()
    assert output.watched.shape == (12, 96)  # the last map's channels
    assert list(learner.predictors.parameters()) == []
    assert learner.backbone.region_path == "map"
