"""Which regions of an image are embedded: those of a regions file, or the annotated objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from d3ssl.console import say
from d3ssl.data.image_set import ImageSet
from d3ssl.errors import InputError
from d3ssl.evaluate.cache import said_of_objects
from d3ssl.evaluate.features import check_size_annotated
from d3ssl.files import digest
from d3ssl.regions.annotations import count_without_mask
from d3ssl.regions.table import RegionTable, check_regions, read_regions


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRegions:
    """The regions of one image."""

    number: Int64[np.ndarray, "K"]
    """Which of the image's regions, or of its objects, each one is; from 0."""
    boxes: Float32[np.ndarray, "K 4"]
    """xyxy, px of the original image."""
    annotation_ids: Int64[np.ndarray, "K"] | None = None
    class_names: tuple[str, ...] | None = None


@runtime_checkable
class Regions(Protocol):
    """The regions of a set of images; an image is named by its position."""

    is_annotated: bool
    """Annotation ids and class names are known."""

    def digest(self) -> str:
        """Changes with the regions."""
        ...

    def left_out(self) -> dict[int, str]:
        """Images that have no regions because they could not be read, each with the reason."""
        ...

    def of(self, index: int) -> ImageRegions:
        """The regions of one image; there may be none."""
        ...

    def masks(self, index: int) -> Bool[np.ndarray, "K H W"]:
        """Their masks, of any size; a region without pixels is its box.

        Raises:
            InputError: a mask is damaged.
        """
        ...

    def check_size(self, index: int, found: tuple[int, int]) -> None:
        """Raise InputError if an image is not (height, width) as large as its regions say."""
        ...


class AnnotatedObjects:
    """The annotated objects, without crowds."""

    is_annotated = True

    def __init__(self, images: ImageSet, masks: bool) -> None:
        if images.annotations is None:
            remedy = "give data with objects (COCO, Pascal VOC), or --regions FILE.parquet of d3ssl regions."
            raise InputError("has no annotations, so its objects are not known", path=images.root, remedy=remedy)
        self.images, self.annotations = images, images.annotations
        lacking, count = count_without_mask(self.annotations)
        if count == 0:
            raise InputError("has no objects", path=self.annotations.path, remedy="annotate some, or use --of images.")
        if masks and lacking == count:
            raise InputError("has objects without masks only", path=self.annotations.path, remedy="use --of boxes.")
        if masks and lacking:
            say(f"{lacking} of {count} objects have no mask: they count by their boxes")

    def digest(self) -> str:
        return digest(*said_of_objects(self.images))

    def left_out(self) -> dict[int, str]:
        return {}

    def of(self, index: int) -> ImageRegions:
        objects = self.annotations.objects(index)
        number = np.flatnonzero(~objects.crowd)
        return ImageRegions(
            number=number,
            boxes=objects.boxes[number],
            annotation_ids=objects.ids[number],
            class_names=tuple(self.annotations.names[label] for label in objects.labels[number]),
        )

    def masks(self, index: int) -> Bool[np.ndarray, "K H W"]:
        found = self.of(index)
        rows = self.annotations.objects_of[index][found.number]
        height, width = (int(side) for side in self.annotations.sizes[index])
        masks = np.zeros((len(rows), height, width), dtype=bool)
        masked = [place for place, row in enumerate(rows) if self.annotations.segmentations.has(int(row))]
        masks[masked] = self.annotations.masks(index, found.number[masked].tolist())
        return _fill_empty(masks, found.boxes, (height, width))

    def check_size(self, index: int, found: tuple[int, int]) -> None:
        check_size_annotated(self.images, index, found)


class StoredRegions:
    """The regions of a file of ``d3ssl regions``."""

    is_annotated = False

    def __init__(self, images: ImageSet, table: RegionTable, masks: bool) -> None:
        check_regions(table, images)
        if masks and all(png is None for png in table.label_maps):
            remedy = "use --of boxes, or regions of a method with masks: d3ssl regions --method contrast."
            raise InputError("the regions file has boxes only, no masks", remedy=remedy)
        self.images, self.table = images, table
        self.row_of = {image_id: row for row, image_id in enumerate(table.ids)}

    def digest(self) -> str:
        return str(self.table.metadata["digest"])

    def left_out(self) -> dict[int, str]:
        reasons = self.table.metadata.get("skipped", {})
        return {index: reasons[name] for index, name in enumerate(self.images.ids) if name not in self.row_of}

    def of(self, index: int) -> ImageRegions:
        row = self.row_of.get(self.images.ids[index])
        boxes = np.zeros((0, 4), dtype=np.float32) if row is None else self.table.boxes[row]
        return ImageRegions(number=np.arange(len(boxes), dtype=np.int64), boxes=boxes)

    def masks(self, index: int) -> Bool[np.ndarray, "K H W"]:
        row = self.row_of[self.images.ids[index]]
        labels, boxes = self.table.label_map(row), self.table.boxes[row]
        height, width = (int(side) for side in self.table.sizes[row])
        if labels is None:  # an image without any mask among others
            return _fill_empty(np.zeros((len(boxes), height, width), dtype=bool), boxes, (height, width))
        return _fill_empty(labels[None] == np.arange(1, len(boxes) + 1)[:, None, None], boxes, (height, width))

    def check_size(self, index: int, found: tuple[int, int]) -> None:
        self.table.check_size(self.row_of[self.images.ids[index]], found, self.images.paths[index])


def open_regions(images: ImageSet, file: str | None, masks: bool) -> Regions:
    """The regions of a file, or the annotated objects.

    Args:
        masks: they are to be read by their masks.

    Raises:
        InputError: regions of other data, no annotations, or no masks.
    """
    if file is None:
        return AnnotatedObjects(images, masks)
    return StoredRegions(images, read_regions(file), masks)


def _fill_empty(
    masks: Bool[np.ndarray, "K h w"], boxes: Float32[np.ndarray, "K 4"], size: tuple[int, int]
) -> Bool[np.ndarray, "K h w"]:
    """Masks without pixels become their boxes.

    Args:
        boxes: px of an image of ``size`` (height, width).
    """
    height, width = masks.shape[1:]
    for place in np.flatnonzero(~masks.any(axis=(1, 2))):
        x0, y0, x1, y1 = boxes[place] * np.array([width / size[1], height / size[0]] * 2)
        left, top = min(int(x0), width - 1), min(int(y0), height - 1)
        masks[place, top : max(top + 1, round(float(y1))), left : max(left + 1, round(float(x1)))] = True
    return masks
