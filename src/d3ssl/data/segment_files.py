"""Object masks that are kept as one PNG of segment numbers per image: Pascal VOC's and COCO panoptic's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from d3ssl.data.number_png import NUMBER_MODES, read_map


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFiles:
    """The masks of many objects, read from their files when they are asked for."""

    paths: tuple[Path, ...]
    """One file an image."""
    file_of: Int64[np.ndarray, "objects"]
    """For every object its place in ``paths``; −1: it has no mask."""
    numbers: Int64[np.ndarray, "objects"]
    """Value of the object's pixels in its file."""
    boxes: Float32[np.ndarray, "objects 4"]
    """xyxy, px. A segment that lies wholly outside its object's box belongs to another object: an error."""
    stand_in: Bool[np.ndarray, "objects"]
    """Objects which the box stands for where the file has no pixels of their number."""
    coloured: bool
    """Numbers are R + 256·G + 65536·B (COCO panoptic) instead of grey or palette values."""

    @property
    def complete(self) -> bool:
        """Whether every object has a file."""
        return bool((self.file_of >= 0).all())

    def has(self, row: int) -> bool:
        """Whether one object has a file."""
        return bool(self.file_of[row] >= 0)

    def decode(self, row: int, height: int, width: int) -> Bool[np.ndarray, "H W"]:
        """The mask of one object.

        Raises:
            ValueError: it has none, its file is of another size, or the segment lies elsewhere than the object.
            InputError: the file is missing or damaged.
        """
        if self.file_of[row] < 0:
            raise ValueError("it has no segmentation")
        path = self.paths[self.file_of[row]]
        numbers = _read_numbers(path, self.coloured)
        if numbers.shape != (height, width):
            found = f"{numbers.shape[1]}×{numbers.shape[0]}"
            raise ValueError(f"{path.name} is {found} px, its image {width}×{height}")
        mask = numbers == self.numbers[row]
        left, top = np.floor(self.boxes[row, :2]).astype(int)
        right, bottom = np.ceil(self.boxes[row, 2:]).astype(int)
        if not mask.any():
            if not self.stand_in[row]:
                raise ValueError(f"{path.name} has no pixels of the number {self.numbers[row]}")
            mask[top:bottom, left:right] = True
        elif not mask[top:bottom, left:right].any():
            raise ValueError(f"the segment {self.numbers[row]} of {path.name} lies outside the object's box")
        return mask

    def content(self, row: int) -> bytes:
        """Identifies one object's mask by its number and its file's name and size in bytes."""
        if self.file_of[row] < 0:
            return b""
        path = self.paths[self.file_of[row]]
        size = path.stat().st_size if path.is_file() else -1
        return f"{path.name} {size} {self.numbers[row]}".encode()


@lru_cache(maxsize=2)
def _read_numbers(path: Path, coloured: bool) -> Int64[np.ndarray, "H W"]:
    """The last files are kept: the objects of an image are asked for one after the other."""
    if not coloured:
        return read_map(path, NUMBER_MODES).astype(np.int64)
    return read_map(path, ("RGB",)).astype(np.int64) @ np.array([1, 256, 65536])
