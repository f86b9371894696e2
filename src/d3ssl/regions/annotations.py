"""Annotated objects as regions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.errors import InputError


def annotated_regions(
    annotations: CocoAnnotations, index: int, image: tuple[int, int], reduced: tuple[int, int], limit: int
) -> tuple[Float32[np.ndarray, "n 4"], UInt8[np.ndarray, "h w"] | None]:
    """Boxes of an image's objects, the largest first, groups left out, and the label map; None: no object has a mask.

    Where masks overlap, the smaller object is in front. An object without a mask among others with one has no pixels.

    Args:
        annotations: of all images.
        index: the image.
        image: height and width of the image file, px.
        reduced: height and width of the label map, px.
        limit: most objects.

    Raises:
        InputError: the annotations are of an image of another size.
    """
    said = tuple(int(side) for side in annotations.sizes[index])
    if said != image:
        problem = (
            f"annotates {annotations.file_names[index]} as {said[1]}×{said[0]} px, the file has {image[1]}×{image[0]}"
        )
        raise InputError(problem, path=annotations.path, remedy="annotate the images as they are.")
    objects = annotations.objects(index)
    area = (objects.boxes[:, 2] - objects.boxes[:, 0]) * (objects.boxes[:, 3] - objects.boxes[:, 1])
    order = np.lexsort((objects.ids, -area))
    order = order[~objects.crowd[order]][:limit]
    rows = annotations.objects_of[index][order]
    masked = np.flatnonzero([annotations.segmentations.has(int(row)) for row in rows])
    if len(masked) == 0 and not annotations.has_masks:
        return objects.boxes[order], None
    masks = annotations.masks(index, order[masked].tolist())
    return objects.boxes[order], _label_map(masks, masked + 1, reduced)


def count_without_mask(annotations: CocoAnnotations) -> tuple[int, int]:
    """How many objects have no mask, and how many objects there are, groups left out."""
    rows = np.concatenate([np.empty(0, dtype=np.int64), *annotations.objects_of])
    rows = rows[~annotations.crowd[rows]]
    return sum(not annotations.segmentations.has(row) for row in rows.tolist()), len(rows)


def _label_map(
    masks: Bool[np.ndarray, "n H W"], numbers: Int64[np.ndarray, "n"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """Masks with their numbers at a reduced size, each pixel as at its centre; later ones in front."""
    rows = ((np.arange(size[0]) + 0.5) * masks.shape[1] / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * masks.shape[2] / size[1]).astype(np.int64)
    labels = np.zeros(size, dtype=np.uint8)
    for number, mask in zip(numbers.tolist(), masks, strict=True):
        labels[mask[np.ix_(rows, columns)]] = number
    return labels
