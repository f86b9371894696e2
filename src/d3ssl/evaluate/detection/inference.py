"""A trained detector looks at images: its detections in px of the originals."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from d3ssl.console import progress, warn
from d3ssl.data.ahead import read_ahead
from d3ssl.data.bad_images import too_many_bad
from d3ssl.data.image_set import ImageSet
from d3ssl.distributed import gather_list, rank, world_size
from d3ssl.errors import InputError
from d3ssl.evaluate.detection.coco_eval import Detections, pack_mask
from d3ssl.evaluate.detection.config import DetectionConfig
from d3ssl.evaluate.detection.examples import read_example
from d3ssl.evaluate.detection.network import Detector
from d3ssl.evaluate.encode import to_images

MASK_THRESHOLD = 0.5
"""Probability from which a pixel belongs to the object (Mask R-CNN)."""


def detect(
    detector: Detector, images: ImageSet, config: DetectionConfig, label: str = "detecting"
) -> tuple[list[int], list[Detections]]:
    """Positions of the images that could be read, and what was found in each. With several processes each looks at a
    share of the images, and all get everything.

    Args:
        detector: on its device, in evaluation mode.

    Raises:
        InputError: more unusable images than ``config.max_bad_share``.
    """
    backbone = detector.trunk.backbone
    mine = list(range(len(images)))[rank() :: world_size()]
    jobs = (partial(read_example, images, index, config.size, backbone.in_channels, False) for index in mine)
    found: list[tuple[int, Detections]] = []
    bad: list[str] = []
    items = zip(mine, read_ahead(jobs, config.workers, 2 * config.batch_size), strict=True)
    bar = progress(label, len(mine)) if rank() == 0 else contextlib.nullcontext()
    with torch.inference_mode(), bar as ticker:
        while batch := list(islice(items, config.batch_size)):
            good = [(index, item) for index, item in batch if not isinstance(item, InputError)]
            bad += [str(item) for _, item in batch if isinstance(item, InputError)]
            if good:
                results = detector(to_images(backbone, [item.canvas for _, item in good]))
                for (index, _), result in zip(good, results, strict=True):
                    found.append((index, _to_original(result, images, index, config.size)))
            if ticker is not None:
                ticker.advance(len(batch))
    bad = sorted(gather_list(bad))
    _check_bad(bad, images, config.max_bad_share)
    every = sorted(gather_list(found), key=lambda item: item[0])
    return [index for index, _ in every], [own for _, own in every]


def _to_original(result: dict[str, Tensor], images: ImageSet, index: int, size: int) -> Detections:
    height, width = (int(side) for side in images.annotated.sizes[index])
    boxes = result["boxes"] * result["boxes"].new_tensor([width / size, height / size] * 2)
    masks = None
    if "masks" in result:
        pasted = paste_masks_in_image(result["masks"], boxes, (height, width)) if len(boxes) else result["masks"]
        masks = tuple(pack_mask((mask[0] >= MASK_THRESHOLD).cpu().numpy()) for mask in pasted)
    return Detections(
        boxes=boxes.float().cpu().numpy(),
        scores=result["scores"].float().cpu().numpy(),
        labels=(result["labels"] - 1).cpu().numpy().astype(np.int64),
        masks=masks,
    )


def _check_bad(bad: Sequence[str], images: ImageSet, max_bad_share: float) -> None:
    if not bad:
        return
    if too_many_bad(len(bad), len(images), max_bad_share):
        problem = f"{len(bad)} of {len(images)} images cannot be used. The first: {bad[0]}"
        raise InputError(problem, path=images.root, remedy="repair or remove them, or raise --max_bad_share.")
    warn("\n  ".join([f"{len(bad)} of {len(images)} images are left out:", *bad[:20]]))
