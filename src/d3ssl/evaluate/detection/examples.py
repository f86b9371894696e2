"""Images with their objects as a detector takes them, decoded ahead of need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.evaluate.detection.network import Target
from d3ssl.evaluate.encode import to_images
from d3ssl.evaluate.features import check_size_annotated
from d3ssl.models import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One image, stretched to a square, and its objects (not its crowds)."""

    canvas: UInt8[np.ndarray, "S S C"]
    boxes: Float32[np.ndarray, "n 4"]
    """xyxy, px of the canvas."""
    labels: Int64[np.ndarray, "n"]
    """0..number of categories − 1."""
    masks: Bool[np.ndarray, "n S S"] | None


def read_example(images: ImageSet, index: int, size: int, channels: int, masks: bool) -> Example:
    """Read one image and its objects.

    Raises:
        InputError: the image cannot be read or is not as large as annotated, or a mask is damaged.
    """
    canvas, found = read_canvas(images.paths[index], size, channels)
    check_size_annotated(images, index, found)
    objects = images.annotated.objects(index)
    kept = ~objects.crowd
    scale = np.array([size / found[1], size / found[0]] * 2, dtype=np.float32)
    return Example(
        canvas=canvas,
        boxes=objects.boxes[kept] * scale,
        labels=objects.labels[kept],
        masks=_stretch(images.annotated.masks(index)[kept], size) if masks else None,
    )


def _stretch(masks: Bool[np.ndarray, "n H W"], size: int) -> Bool[np.ndarray, "n S S"]:
    """To the canvas, as the image is: pixels of which the mask covers half or more."""
    if masks.shape[1:] == (size, size):
        return masks
    stretched = np.zeros((len(masks), size, size), dtype=bool)
    for place, mask in enumerate(masks):
        picture = Image.fromarray(mask.astype(np.uint8) * 255)
        stretched[place] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)) >= 128
    return stretched


def make_batch(
    examples: Sequence[Example], flipped: Sequence[bool], backbone: Backbone, device: torch.device
) -> tuple[Float[Tensor, "B C S S"], list[Target]]:
    """Images and what is to be found on them; those marked are flipped, left to right."""
    images = to_images(backbone, [example.canvas for example in examples])
    targets = []
    for place, (example, flip) in enumerate(zip(examples, flipped, strict=True)):
        boxes = torch.from_numpy(example.boxes)
        masks = None if example.masks is None else torch.from_numpy(example.masks.astype(np.uint8))
        if flip:
            images[place] = images[place].flip(-1)
            side = float(example.canvas.shape[1])
            boxes = torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], dim=1)
            masks = None if masks is None else masks.flip(-1)
        target = {"boxes": boxes, "labels": torch.from_numpy(example.labels) + 1}
        target |= {} if masks is None else {"masks": masks}
        targets.append({name: value.to(device) for name, value in target.items()})
    return images, targets
