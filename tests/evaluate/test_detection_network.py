"""Detectors are whole: every part is trained, every kind of backbone fits, and the caller's stays as it was."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from d3ssl.errors import InputError
from d3ssl.evaluate.detection import DetectionConfig, build_detector
from d3ssl.evaluate.detection.config import Architecture
from d3ssl.evaluate.detection.network import check_backbone
from d3ssl.evaluate.detection.pyramid import PyramidTrunk, pyramid_maps
from d3ssl.evaluate.detection.regions import Anchors, LevelRoiAlign
from d3ssl.models import create_backbone

CLASSES, SIZE = 5, 64
CONFIG = DetectionConfig(size=SIZE, width=16, head_features=24, rois=16, proposals=20, roi_size=7)


def make_targets() -> list[dict[str, Tensor]]:
    """Two objects in the first image, none in the second."""
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    masks[0, 8:30, 5:25] = 1
    masks[1, 30:60, 40:60] = 1
    boxes = torch.tensor([[5.0, 8, 25, 30], [40, 30, 60, 60]])
    some = {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0]}
    return [some, none]


def make_images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "architecture", "frozen_norm", "masks"),
    [
        ("test_resnet", "fpn", False, True),
        ("test_resnet", "fpn", False, False),
        ("test_resnet", "fpn", True, True),
        ("test_resnet", "c4", False, True),
        ("test_resnet", "c4", True, False),
        ("test_resnet", "c3", False, True),
        ("test_vit", "fpn", False, True),
        ("test_efficientnet", "fpn", False, False),
        ("test_convnext", "c4", False, True),
    ],
)
def test_forward_backward_and_inference(name: str, architecture: Architecture, frozen_norm: bool, masks: bool) -> None:
    backbone = create_backbone(name, seed=0).eval()
    before = copy.deepcopy(backbone.state_dict())
    config = DetectionConfig(
        size=SIZE, architecture=architecture, frozen_norm=frozen_norm, width=16, head_features=24, rois=16, proposals=20
    )
    detector = build_detector(backbone, CLASSES, masks, config, seed=0)
    own = copy.deepcopy(detector.trunk.backbone.state_dict())
    losses = detector(make_images(), make_targets())
    wanted = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert set(losses) == wanted | ({"loss_mask"} if masks else set())
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    trained = {key: p for key, p in detector.named_parameters() if p.requires_grad}
    assert not [key for key, p in trained.items() if p.grad is None]
    assert not {f"trunk.backbone.net.{key}" for key in backbone.unused_parameters} & set(trained)

    reached = {key.removeprefix("trunk.backbone.") for key in trained} | (set(own) if frozen_norm else set())
    norms = [key for key in own if key.endswith("running_mean")]
    after = detector.trunk.backbone.state_dict()
    assert all(
        torch.equal(after[key], own[key]) == frozen_norm
        for key in norms
        if key.rpartition(".")[0] + ".weight" in reached
    )

    detector.eval()
    with torch.no_grad():
        results = detector(make_images())
    assert len(results) == 2
    for found in results:
        count = len(found["boxes"])
        assert found["boxes"].shape == (count, 4) and found["labels"].shape == found["scores"].shape == (count,)
        assert bool(((found["boxes"] >= 0) & (found["boxes"] <= SIZE)).all())
        assert bool(((found["labels"] >= 1) & (found["labels"] <= CLASSES)).all())
        assert torch.equal(found["scores"], found["scores"].sort(descending=True).values)
        assert ("masks" in found) == masks
        if masks:
            assert found["masks"].shape[:2] == (count, 1)
            assert bool(((found["masks"] >= 0) & (found["masks"] <= 1)).all())
    assert sum(len(found["boxes"]) for found in results) > 0

    assert not backbone.training and all(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    assert all(p.grad is None for p in backbone.parameters())


def test_the_last_stage_belongs_to_the_backbone_and_is_trained_with_it() -> None:
    detector = build_detector(
        create_backbone("test_resnet", seed=0), CLASSES, True, DetectionConfig(architecture="c4"), 0
    )
    names = [name for name, _ in detector.named_parameters()]
    assert len(names) == len({id(p) for p in detector.parameters()})
    assert any("trunk.backbone.net.layer4" in name for name in names) and not any(
        "heads.box_head._" in n for n in names
    )
    copied = copy.deepcopy(detector)
    assert copied.heads.box_head._trunk[0] is copied.trunk  # type: ignore[index,union-attr]


def test_new_layers_depend_on_the_seed_only() -> None:
    backbone = create_backbone("test_resnet", seed=0)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = build_detector(backbone, CLASSES, True, CONFIG, 0).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(4)
    two, other = (build_detector(backbone, CLASSES, True, CONFIG, seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["rpn.head.cls_logits.weight"], other["rpn.head.cls_logits.weight"])


def test_anchors_are_torchvisions_but_centred_and_not_rounded() -> None:
    """At 800 px these are the sizes of the published detectors."""
    ours = Anchors([4.0, 8.0, 16.0, 32.0, 64.0], 800)
    assert [sizes[0] for sizes in ours.sizes] == [32, 64, 128, 256, 512]
    theirs = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(2, 3, 256, 320), [(256, 320)] * 2)
    maps = [torch.zeros(2, 8, 256 // stride, 320 // stride) for stride in (4, 8, 16, 32, 64)]
    assert ours.num_anchors_per_location() == theirs.num_anchors_per_location()
    found, expected = ours(images, maps), theirs(images, maps)
    assert len(found) == 2 and found[0].shape == expected[0].shape
    strides = torch.tensor([4, 8, 16, 32, 64]).repeat_interleave(
        torch.tensor([3 * m.shape[2] * m.shape[3] for m in maps])
    )
    assert torch.allclose(found[0] - strides[:, None] / 2, expected[0], atol=0.51)
    sides = found[0][:, 2:] - found[0][:, :2]
    assert torch.allclose(sides.prod(dim=1).sqrt(), 8.0 * strides.float())
    assert torch.allclose(sides[:3, 1] / sides[:3, 0], torch.tensor([0.5, 1, 2]))
    single = Anchors([16.0], 800)
    assert single.sizes == [[512, 256, 128, 64, 32]] and single.num_anchors_per_location() == [15]


def test_regions_are_read_from_the_level_of_their_size() -> None:
    """A naive loop over the regions, with torchvision's RoIAlign and the formula of the FPN paper."""
    generator = torch.Generator().manual_seed(0)
    strides = [4.0, 8.0, 16.0]
    levels = {
        f"p{n}": torch.randn(3, 5, round(320 / s), round(320 / s), generator=generator) for n, s in enumerate(strides)
    }
    boxes = []
    for count in (4, 0, 7):
        corner = torch.rand(count, 2, generator=generator) * 100
        boxes.append(torch.cat([corner, corner + 5 + 180 * torch.rand(count, 2, generator=generator)], dim=1))
    boxes[2][3] = torch.tensor([10.0, 5, 310, 300])
    reader = LevelRoiAlign(strides, 6)
    found = reader(levels, boxes, [(320, 320)] * 3)
    expected, used = [], set()
    for image, own in enumerate(boxes):
        for box in own:
            side = math.sqrt(float((box[2] - box[0]) * (box[3] - box[1])))
            level = min(max(math.floor(4 + math.log2(side / 224)) - 2, 0), 2)
            used.add(level)
            roi = torch.cat([torch.tensor([float(image)]), box])[None]
            expected.append(
                torchvision.ops.roi_align(levels[f"p{level}"], roi, 6, 1 / strides[level], 2, aligned=True)[0]
            )
    assert used == {0, 1, 2}
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)
    assert reader(levels, [torch.zeros(0, 4)] * 3, [(320, 320)] * 3).shape == (0, 5, 6, 6)


def test_levels_have_enough_cells() -> None:
    backbone = create_backbone("test_resnet", seed=0)
    assert [backbone.strides[place] for place in pyramid_maps(backbone)] == [4, 8, 16, 32]
    assert PyramidTrunk(backbone, 800, 8, False).strides == [4, 8, 16, 32]
    small = PyramidTrunk(backbone, 96, 8, False)
    assert small.strides == [4, 8, 16]
    maps = small(torch.randn(2, 3, 96, 96))
    assert {name: tuple(found.shape) for name, found in maps.items()} == {
        "p0": (2, 8, 24, 24),
        "p1": (2, 8, 12, 12),
        "p2": (2, 8, 6, 6),
    }
    vit = PyramidTrunk(create_backbone("test_vit", seed=0), 256, 8, False)
    assert vit.strides == [4, 8, 16, 32]
    assert [tuple(found.shape[2:]) for found in vit(torch.randn(2, 3, 256, 256)).values()] == [
        (n, n) for n in (64, 32, 16, 8)
    ]


def test_backbones_that_do_not_fit_are_named_before_any_work() -> None:
    vit = create_backbone("test_vit", seed=0)
    with pytest.raises(InputError, match=r"(?s)'test_vit' cannot be run on regions \(c4\).*--architecture fpn"):
        check_backbone(vit, DetectionConfig(architecture="c4"))
    check_backbone(vit, DetectionConfig())


def test_frozen_norms_stay_frozen_when_training_starts_again() -> None:
    detector = build_detector(
        create_backbone("test_resnet", seed=0), CLASSES, False, DetectionConfig(frozen_norm=True), 0
    )
    detector.eval().train()
    norms = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and not any(norm.training or any(p.requires_grad for p in norm.parameters()) for norm in norms)
