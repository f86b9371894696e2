"""The objects of many images, kept as arrays, as COCO has 860,000 of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from d3ssl.data.masks import ObjectMasks
from d3ssl.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """The objects of one image, in the order of the annotations file."""

    boxes: Float32[np.ndarray, "n 4"]
    """xyxy, px of the original image, clipped to it."""
    labels: Int64[np.ndarray, "n"]
    """0..number of categories − 1, in the order of the category ids."""
    crowd: Bool[np.ndarray, "n"]
    """True for a group annotated as one."""
    ids: Int64[np.ndarray, "n"]
    """Annotation ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoAnnotations:
    """The objects of many images. An image is named by its position: that of ``file_names`` and ``sizes``."""

    path: Path
    """The file (of Pascal VOC: the list or the folder) the annotations were read from."""
    categories: dict[int, str]
    """Category id → name, in the order of the ids: label 0 is the first."""
    file_names: tuple[str, ...]
    """As in the annotations file."""
    sizes: Int64[np.ndarray, "images 2"]
    """Height and width as in the annotations file, px."""
    entries: tuple[dict[str, Any], ...]
    """The images' entries in the annotations file, with whatever else they say."""
    objects_of: tuple[Int64[np.ndarray, "_"], ...]
    """For every image the rows of its objects in the following arrays."""
    boxes: Float32[np.ndarray, "objects 4"]
    labels: Int64[np.ndarray, "objects"]
    crowd: Bool[np.ndarray, "objects"]
    ids: Int64[np.ndarray, "objects"]
    segmentations: ObjectMasks

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Category names; position = label."""
        return tuple(self.categories.values())

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask."""
        return self.segmentations.complete

    def objects(self, index: int) -> ObjectList:
        """The objects of one image."""
        rows = self.objects_of[index]
        return ObjectList(boxes=self.boxes[rows], labels=self.labels[rows], crowd=self.crowd[rows], ids=self.ids[rows])

    def masks(self, index: int, places: Sequence[int] | None = None) -> Bool[np.ndarray, "n H W"]:
        """The masks of one image's objects, or of those at some places, in the order of ``objects(index)``.

        Raises:
            InputError: an object has no mask or a damaged one.
        """
        height, width = (int(side) for side in self.sizes[index])
        rows = self.objects_of[index] if places is None else self.objects_of[index][list(places)]
        masks = np.zeros((len(rows), height, width), dtype=bool)
        for place, row in enumerate(rows):
            try:
                masks[place] = self.segmentations.decode(int(row), height, width)
            except ValueError as error:
                problem = f"annotation {self.ids[row]}: {error}"
                raise InputError(problem, path=self.path, remedy="repair or remove its segmentation.") from error
        return masks

    def subset(self, indices: Sequence[int] | Int64[np.ndarray, "_"]) -> CocoAnnotations:
        """The annotations of some images, in the given order."""
        chosen = [int(index) for index in indices]
        return replace(
            self,
            file_names=tuple(self.file_names[index] for index in chosen),
            sizes=self.sizes[chosen].reshape(-1, 2),
            entries=tuple(self.entries[index] for index in chosen),
            objects_of=tuple(self.objects_of[index] for index in chosen),
        )
