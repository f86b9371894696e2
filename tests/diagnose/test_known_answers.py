"""Networks whose answers are known: padding, receptive fields, position embeddings, the order of things."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from d3ssl.console import progress
from d3ssl.data.image_set import ImageSet
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.diagnose import DiagnoseConfig, Probe, ProbeSet, build_probes, diagnose, sensitivity
from d3ssl.diagnose.config import PaddingMode
from d3ssl.diagnose.features import REGION, Way, probed, read_probe
from d3ssl.diagnose.padding import with_padding
from d3ssl.diagnose.receptive import inside_boxes, outside_share, receptive_leakage
from d3ssl.errors import InputError
from d3ssl.models import Backbone, load_backbone
from d3ssl.seeds import torch_generator

SIZE = 48
CONFIG = DiagnoseConfig(size=SIZE, objects=12, neighbour_classes=2, other_sides=())
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("known") / "scenes"
    make_scenes(folder, ScenesConfig(images=24, val_images=1, size=64, num_classes=4, themes=2, workers=1))
    return open_images(folder / "train")


@pytest.fixture(scope="module")
def probes(scenes: ImageSet) -> ProbeSet:
    return build_probes(scenes, CONFIG, 0)


class Net(nn.Module):
    """Convolutions with stride 1: one map, of the images' own size."""

    def __init__(self, kernels: tuple[int, ...], mode: PaddingMode = "zeros") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, kernel in enumerate(kernels):
            inner = 3 if number == 0 else 8
            layers += [nn.Conv2d(inner, 8, kernel, padding=kernel // 2, padding_mode=mode), nn.Tanh()]
        self.first, self.last = nn.Sequential(*layers), nn.Identity()
        self.feature_info = [{"module": "last", "num_chs": 8, "reduction": 1}]

    def forward_features(self, images: Tensor) -> Tensor:
        return self.last(self.first(images))

    def forward_intermediates(self, images: Tensor, **options: Any) -> list[Tensor]:
        return [self.forward_features(images)]


def network(*kernels: int, mode: PaddingMode = "zeros") -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Backbone(Net(kernels, mode), "net").eval()


def features(backbone: Backbone, probe: Probe, way: Way = REGION) -> Tensor:
    with probed(backbone, CPU), progress("", 1) as ticker:
        return read_probe(backbone, probe, 50, ticker, 4)[way]


def periodic(mode: PaddingMode) -> float:
    """Position sensitivity of features of boxes in periodic images that are translated around the border, read by
    masks, and far enough from the border for RoIAlign."""
    generator = torch_generator("periodic")
    texture = torch.rand(6, 3, 8, 8, generator=generator).repeat(1, 1, 4, 4)
    images, boxes = [], []
    for y in (3, 9, 15):
        for x in (3, 9, 15):
            images.append(torch.roll(texture, (y, x), dims=(2, 3)))
            boxes.append([x, y, x + 14, y + 14])
    shown = (torch.stack(images, dim=1).permute(0, 1, 3, 4, 2) * 255).to(torch.uint8).numpy()
    places = np.tile(np.array(boxes, dtype=np.float32), (6, 1, 1))
    return sensitivity(features(network(5, 5, 5, mode=mode), Probe(images=shown, boxes=places)))


def test_on_a_translated_periodic_image_only_the_padding_with_zeros_knows_the_place() -> None:
    assert periodic("circular") == pytest.approx(0, abs=1e-6)
    assert periodic("zeros") > 1e-3


def test_padding_shows_the_place_of_objects_on_grey(probes: ProbeSet) -> None:
    """Grey is not zero after normalisation, so zeros draw a frame around the image."""
    found = diagnose(network(5, 5, 5), probes, draws=100, gradient_objects=0, padding=("circular", "zeros"))
    zeros, circular = (found.by_padding[mode] for mode in ("zeros", "circular"))
    assert zeros.position_sensitivity is not None and circular.position_sensitivity is not None
    assert zeros.position_sensitivity.value == pytest.approx(found.position_sensitivity.value, rel=1e-5)
    assert circular.position_sensitivity.value < 0.2 * zeros.position_sensitivity.value
    by_mask = features(with_padding(network(5, 5, 5), "circular"), probes.position, Way("mask", "last"))
    assert sensitivity(by_mask) == pytest.approx(0, abs=1e-5)


def test_padding_is_changed_in_a_copy_and_only_where_it_can_be() -> None:
    backbone = network(3)
    changed = with_padding(backbone, "reflect")
    assert changed is not backbone
    modes = [[m.padding_mode for m in b.modules() if isinstance(m, nn.Conv2d)] for b in (backbone, changed)]
    assert modes == [["zeros"], ["reflect"]]
    for name in ("test_vit", "tf_efficientnet_lite0"):
        with pytest.raises(InputError, match="padding cannot be changed"):
            with_padding(load_backbone(f"timm:{name}"), "circular")


def test_a_receptive_field_smaller_than_the_margin_leaks_exactly_nothing(probes: ProbeSet) -> None:
    """Two 3×3 convolutions see 2 px beyond what is read, RoIAlign reads up to 1 px beyond the box."""
    backbone = network(3, 3)
    centres = {way: features(backbone, probes.context, way).flatten(0, 1).mean(dim=0) for way in (REGION, MASK)}
    for margin, exact in ((0.0, False), (1.0, False), (3.0, True), (20.0, True)):
        with probed(backbone, CPU), progress("", 12) as ticker:
            found = receptive_leakage(backbone, probes.context, centres, ticker, margin=margin, blocks=4, keep=2)
        assert (found.share[REGION] == 0).all() == exact
        assert (found.share[MASK] > 0).all()  # the margin is of boxes
        assert found.maps.shape == (2, SIZE, SIZE)
    pointwise = network(1)
    found = diagnose(pointwise, probes, draws=100, gradient_objects=12)
    by_mask = found.layers_by_mask["last"].receptive_leakage
    assert by_mask is not None and (by_mask.value, by_mask.high) == (0, 0)
    wide = diagnose(network(9, 9, 9), probes, draws=100, gradient_objects=12).receptive_leakage
    assert wide is not None and wide.low > 0.2


MASK = Way("mask", "last")


def test_the_gradient_is_that_of_the_feature_by_differences(probes: ProbeSet) -> None:
    """The kept map against finite differences in a few pixels of the image before normalisation."""
    backbone = network(3, 3).double()
    centre = features(network(3, 3), probes.context).flatten(0, 1).mean(dim=0)
    with probed(backbone.float(), CPU), progress("", 1) as ticker:
        own = probes.context.first(1)
        found = receptive_leakage(backbone, own, {REGION: centre}, ticker, keep=1)
    image = torch.from_numpy(own.images[0, 0]).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(value).double()[:, None, None] for value in (backbone.mean, backbone.std))
    exact = copy.deepcopy(backbone).double()

    def power(shown: Tensor) -> float:
        with torch.no_grad():
            feature = exact.pool((shown - mean) / std, [torch.from_numpy(own.boxes[0, :1]).double()])
        return float((feature - centre).square().sum())

    x1, y1, x2, y2 = own.boxes[0, 0].astype(int)
    for y, x in ((y1 + 2, x1 + 2), (y2 - 1, x2 - 1), ((y1 + y2) // 2, (x1 + x2) // 2)):
        total = 0.0
        for channel in range(3):
            step = torch.zeros_like(image)
            step[0, channel, y, x] = 1e-5
            total += abs(power(image + step) - power(image - step)) / 2e-5
        assert found.maps[0, y, x] == pytest.approx(total, rel=2e-2, abs=1e-7)


def test_inside_and_outside() -> None:
    boxes = np.array([[1.0, 2.0, 4.0, 4.0]], dtype=np.float32)
    inside = inside_boxes(boxes, 6, 0.0)[0]
    assert inside.sum() == 6 and inside[2:4, 1:4].all()
    assert inside_boxes(boxes, 6, 1.0)[0].sum() == 20
    gradient = np.ones((1, 6, 6), dtype=np.float32)
    assert outside_share(gradient, inside[None])[0] == pytest.approx(30 / 36)
    assert outside_share(0 * gradient, inside[None])[0] == 0


def test_a_vit_without_its_position_embedding_does_not_know_the_place(scenes: ImageSet) -> None:
    """On places that are whole patches apart."""
    config = replace(CONFIG, size=160, objects=6, neighbour_classes=0)
    position = build_probes(scenes, config, 0).position
    assert (np.diff(position.boxes[:, :3, 0]) == 48).all()
    way = Way("mask", "blocks.5")
    whole = load_backbone("timm:test_vit")
    bare = copy.deepcopy(whole)
    with torch.no_grad():
        whole.net.pos_embed.mul_(20)  # type: ignore[operator,union-attr]  # random ones are tiny
        bare.net.pos_embed.zero_()  # type: ignore[operator,union-attr]
    without, within = (sensitivity(features(own, position, way)) for own in (bare, whole))
    assert without == pytest.approx(0, abs=1e-4)
    assert within > 0.05
    own_way = [sensitivity(features(own, position)) for own in (bare, whole)]
    assert own_way[0] < 0.5 * own_way[1]


def test_strided_convolutions_see_how_an_object_lies_on_their_cells_and_place_step_leaves_that_out(
    scenes: ImageSet,
) -> None:
    """Padded with what is there already, a network of stride 8 is the same everywhere but for the cells' grid."""
    backbone = with_padding(load_backbone("timm:test_resnet", region_path="c3"), "circular")
    by_step = {}
    for step in (None, 5, 8, 16):
        position = build_probes(scenes, replace(CONFIG, size=64, neighbour_classes=0, place_step=step), 0).position
        by_step[step] = sensitivity(features(backbone, position))
    assert by_step[8] == pytest.approx(0, abs=1e-5)
    assert by_step[16] == pytest.approx(0, abs=1e-5)
    assert min(by_step[None], by_step[5]) > 0.005


def test_order_of_objects_and_batch_size_do_not_matter(probes: ProbeSet) -> None:
    backbone = load_backbone("timm:test_resnet")
    expected = diagnose(backbone, probes, draws=100, layers=False, gradient_objects=12).as_dict()
    order = np.random.default_rng(0).permutation(12)
    mixed = some(probes, order)
    found = diagnose(backbone, mixed, draws=100, layers=False, gradient_objects=12, batch_size=7).as_dict()
    for name, wanted in expected.items():
        if isinstance(wanted, float):
            assert found[name] == pytest.approx(wanted, rel=2e-3, abs=2e-3), name


def some(probes: ProbeSet, order: np.ndarray) -> ProbeSet:
    """The probes of some objects, in another order."""
    assert probes.neighbour is not None
    shown = probes.neighbour
    return replace(
        probes,
        context=take(probes.context, order),
        position=take(probes.position, order),
        neighbour=replace(shown, shown=take(shown.shown, order), fold=shown.fold[order]),
        identities=probes.identities[order],
        labels=probes.labels[order],
    )


def take(probe: Probe, order: np.ndarray) -> Probe:
    assert probe.alpha is not None
    return Probe(images=probe.images[order], boxes=probe.boxes[order], alpha=probe.alpha[order])


@pytest.mark.slow
def test_layers_are_measured_each_by_box_and_by_mask(probes: ProbeSet) -> None:
    backbone = load_backbone("timm:test_resnet", region_path="map")
    found = diagnose(backbone, some(probes, np.arange(8)), draws=100, gradient_objects=2)
    names = ["act1", "layer1", "layer2", "layer3", "layer4"]
    assert list(found.layers) == list(found.layers_by_mask) == names
    last = found.layers["layer4"].context_sensitivity
    assert last is not None and last.value == pytest.approx(found.context_sensitivity.value, rel=1e-4)
    shares = [own.receptive_leakage.value for own in found.layers.values() if own.receptive_leakage]
    assert len(shares) == 5 and shares[0] < shares[-1]  # deeper layers see further
    written = found.as_dict()
    for layer in names:
        assert set(written["layers"][layer]) == {f"{m}{end}" for m in MEASURED for end in ("", "_low", "_high")}


MEASURED = (
    "context_sensitivity",
    "position_sensitivity",
    "neighbour_leakage",
    "receptive_leakage",
    "position_r2",
    "location_accuracy",
)


def test_the_backbone_is_as_it_was(probes: ProbeSet, tmp_path: Path) -> None:
    backbone = load_backbone("timm:test_resnet").train()
    before = copy.deepcopy(backbone.state_dict())
    diagnose(backbone, replace(probes, neighbour=None), draws=100, layers=False, gradient_objects=2)
    assert backbone.training
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())
