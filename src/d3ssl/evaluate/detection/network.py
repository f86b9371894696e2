"""Faster R-CNN and Mask R-CNN around a backbone, from the parts of torchvision's detection framework."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from d3ssl.errors import InputError
from d3ssl.evaluate.detection.config import DetectionConfig
from d3ssl.evaluate.detection.pyramid import PyramidTrunk, StageTrunk, trained_copy
from d3ssl.evaluate.detection.regions import Anchors, LevelRoiAlign
from d3ssl.models import Backbone
from d3ssl.models.backbone import check_size
from d3ssl.seeds import derive_seed

MASK_CELLS = 14
"""RoIAlign's grid for the mask head of fpn, whose masks are twice as large (He et al., arXiv 1703.06870)."""
IOU_FOREGROUND, IOU_BACKGROUND = 0.7, 0.3
"""Anchors that overlap an object more are objects, those that overlap all less are background (Faster R-CNN)."""
ANCHORS_LEARNED = 256
"""Anchors per image that the first stage learns from, at most half of them objects (Faster R-CNN)."""
CANDIDATES = 2
"""Anchors a level that enter non-maximum suppression, for each proposal that is wanted (2000 for 1000)."""

Target = dict[str, Tensor]
"""``boxes`` (n, 4) float xyxy px, ``labels`` (n,) int64 from 1, and ``masks`` (n, S, S) uint8 if they are learned."""


class Detector(nn.Module):
    """Trunk → region proposals → heads. Images come in the size and normalisation of the backbone and stay so.

    In training mode ``forward`` gives the losses by name, in evaluation mode a dictionary for every image: ``boxes``
    (n, 4) xyxy px, ``labels`` (n,) from 1, ``scores`` (n,) in falling order and, if masks are learned, ``masks``
    (n, 1, m, m): probabilities inside the box.
    """

    def __init__(self, trunk: PyramidTrunk | StageTrunk, rpn: RegionProposalNetwork, heads: RoIHeads) -> None:
        super().__init__()
        self.trunk, self.rpn, self.heads = trunk, rpn, heads

    def forward(self, images: Float[Tensor, "B C S S"], targets: list[Target] | None = None) -> Any:
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        levels = self.trunk(images)
        proposals, losses = self.rpn(ImageList(images, sizes), levels, targets)
        detections, more = self.heads(levels, proposals, sizes, targets)
        return losses | more if self.training else detections


class StageHeads(RoIHeads):
    """Heads of C4: the last stage runs on every region's cells, and both boxes and masks are read from what it gives.

    torchvision's own ``forward`` would run the stage once for boxes and once for masks, and count the second batch in
    its batch norms.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if not self.training:
            return self._detect(features, proposals, image_shapes), {}
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        cells = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, offsets = self.box_predictor(cells.mean(dim=(2, 3)))
        class_loss, box_loss = fastrcnn_loss(logits, offsets, labels, deltas)
        losses = {"loss_classifier": class_loss, "loss_box_reg": box_loss}
        if self.mask_predictor is not None:
            assert targets is not None
            logits = self.mask_predictor(cells[torch.cat(labels) > 0])
            objects = [own > 0 for own in labels]
            boxes = [own[mine] for own, mine in zip(proposals, objects, strict=True)]
            rows = [own[mine] for own, mine in zip(matched, objects, strict=True)]
            masks, names = [target["masks"] for target in targets], [target["labels"] for target in targets]
            losses["loss_mask"] = maskrcnn_loss(logits, boxes, masks, names, rows)
        return [], losses

    def _detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        cells = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, deltas = self.box_predictor(cells.mean(dim=(2, 3)))
        found = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        results = [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(*found, strict=True)]
        if self.mask_predictor is not None:
            cells = self.box_head(self.box_roi_pool(features, found[0], image_shapes))
            masks = maskrcnn_inference(self.mask_predictor(cells), found[2])
            for result, mask in zip(results, masks, strict=True):
                result["masks"] = mask
        return results


class LastStage(nn.Module):
    """The backbone's last stage (or two) on the cells of regions, and a batch norm that brings the output of any
    backbone to one scale (as in MoCo's detectors) unless norms are frozen.

    The backbone belongs to the trunk; here it is only referred to, so that its parameters are counted once.
    """

    def __init__(self, trunk: StageTrunk) -> None:
        super().__init__()
        self._trunk = (trunk,)  # a tuple hides it from nn.Module
        channels = trunk.backbone.channels[-1]
        self.norm = nn.Identity() if trunk.frozen_norm else nn.BatchNorm2d(channels)

    def forward(self, cells: Float[Tensor, "N C h w"]) -> Float[Tensor, "N D h2 w2"]:
        (trunk,) = self._trunk
        return self.norm(trunk.backbone.tail(cells, trunk.path))  # type: ignore[arg-type]


def check_backbone(backbone: Backbone, config: DetectionConfig) -> None:
    """Make sure, before long work starts, that a detector can be built on a backbone.

    Raises:
        InputError: the last stages cannot be run on regions, or the network does not take images of this size.
    """
    check_size(backbone, (config.size, config.size))
    if config.architecture != "fpn" and not backbone.supports(config.architecture):
        problem = f"the last stages of '{backbone.timm_name}' cannot be run on regions ({config.architecture})"
        raise InputError(problem, remedy="use --architecture fpn.")


def build_detector(backbone: Backbone, classes: int, masks: bool, config: DetectionConfig, seed: int) -> Detector:
    """A detector on a copy of the backbone, on the CPU, in training mode.

    Args:
        classes: number of categories, without the background.
        masks: with a mask head.
        seed: decides the new layers' initial weights.

    Raises:
        InputError: see ``check_backbone``.
    """
    check_backbone(backbone, config)
    own = trained_copy(backbone, config.frozen_norm, config.freeze)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed("detector", seed))
        trunk: PyramidTrunk | StageTrunk
        if config.architecture == "fpn":
            trunk = PyramidTrunk(own, config.size, config.width, config.frozen_norm)
            heads = _pyramid_heads(trunk, classes, masks, config)
        else:
            trunk = StageTrunk(own, config.architecture, config.frozen_norm)
            heads = _stage_heads(trunk, classes, masks, config)
        detector = Detector(trunk, _proposal_network(trunk, config), heads)
    return detector.train()


def _proposal_network(trunk: PyramidTrunk | StageTrunk, config: DetectionConfig) -> RegionProposalNetwork:
    anchors = Anchors(trunk.strides, config.size)
    return RegionProposalNetwork(
        anchors,  # type: ignore[arg-type]
        RPNHead(trunk.out_channels, anchors.num_anchors_per_location()[0]),
        IOU_FOREGROUND,
        IOU_BACKGROUND,
        ANCHORS_LEARNED,
        0.5,
        dict.fromkeys(("training", "testing"), CANDIDATES * config.proposals),
        dict.fromkeys(("training", "testing"), config.proposals),
        nms_thresh=0.7,
    )


def _second_stage(config: DetectionConfig) -> dict[str, Any]:
    """What both kinds of heads share (Faster R-CNN's values)."""
    return {
        "fg_iou_thresh": 0.5,
        "bg_iou_thresh": 0.5,
        "batch_size_per_image": config.rois,
        "positive_fraction": 0.25,
        "bbox_reg_weights": (10.0, 10.0, 5.0, 5.0),
        "score_thresh": config.min_score,
        "nms_thresh": 0.5,
        "detections_per_img": config.detections,
    }


def _pyramid_heads(trunk: PyramidTrunk, classes: int, masks: bool, config: DetectionConfig) -> RoIHeads:
    width, features = config.width, config.head_features
    mask_parts = {
        "mask_roi_pool": LevelRoiAlign(trunk.strides, MASK_CELLS),
        "mask_head": MaskRCNNHeads(width, (width,) * 4, 1),
        "mask_predictor": MaskRCNNPredictor(width, width, classes + 1),
    }
    return RoIHeads(
        LevelRoiAlign(trunk.strides, config.cells),
        TwoMLPHead(width * config.cells**2, features),
        FastRCNNPredictor(features, classes + 1),
        **_second_stage(config),
        **(mask_parts if masks else {}),
    )


def _stage_heads(trunk: StageTrunk, classes: int, masks: bool, config: DetectionConfig) -> StageHeads:
    features = trunk.backbone.channels[-1]
    return StageHeads(
        LevelRoiAlign(trunk.strides, config.cells),
        LastStage(trunk),
        FastRCNNPredictor(features, classes + 1),
        **_second_stage(config),
        mask_predictor=MaskRCNNPredictor(features, config.width, classes + 1) if masks else None,
    )
