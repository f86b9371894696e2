"""What every format of data sets says of itself: the one interface of the files in this folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int64

from d3ssl.console import progress
from d3ssl.data.coco import MAX_BAD_SHARE
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import image_size
from d3ssl.data.place import Place
from d3ssl.data.semantic import SemanticSet, from_instances
from d3ssl.errors import InputError

Kind = Literal["objects", "maps"]
"""What a data set is opened for: its objects, or the class of every pixel."""
UNREADABLE = (1, 1)
"""Height and width of an image that cannot be read; its objects are left out."""


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """One data set, as a format finds it on the disk.

    Two methods are needed; the others have answers that serve a format without parts or files of maps.
    """

    what: ClassVar[str]
    """For the message that lists what DATA may be."""
    max_bad_share: ClassVar[float] = MAX_BAD_SHARE
    """Share of bad objects up to which they are left out with a warning. An image file that cannot be read is no matter
    of the format: it stays in the set, and whoever reads it counts it."""
    path: Path
    """DATA."""

    @classmethod
    @abstractmethod
    def detect(cls, path: Path) -> Format | None:
        """The data set that a path names, if it is of this format. Looks at names, opens no image.

        Raises:
            InputError: the path is of this format, but what it names is not all there.
        """

    @abstractmethod
    def images(self) -> ImageSet:
        """The images, with their objects as far as the format has any.

        Raises:
            InputError: with the file at fault.
        """

    def maps(self) -> SemanticSet:
        """The images with the class of every pixel.

        Raises:
            InputError: there are none, or with the file at fault.
        """
        return from_instances(self.images())

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        """The parts for training and for validation, and how they came about, for people; None: it is one set."""
        return None

    def document(self) -> Any:
        """The objects as a COCO instances document, unchecked, for the doctor to look through; None: there is none."""
        return None

    def images_alone(self) -> ImageSet | None:
        """The images where the annotations cannot be read, for the doctor; None: they are not known without."""
        return None


def image_sizes(paths: Sequence[Place], *, strict: bool = True) -> Int64[np.ndarray, "images 2"]:
    """Height and width of every image, px, from the files' headers.

    Args:
        strict: an image that cannot be read is an error; else it counts as ``UNREADABLE``.

    Raises:
        InputError: one cannot be read.
    """
    sizes = np.zeros((len(paths), 2), dtype=np.int64)
    with progress("sizes of images", len(paths)) as ticker:
        for row, path in enumerate(paths):
            try:
                sizes[row] = image_size(path)
            except InputError:
                if strict:
                    raise
                sizes[row] = UNREADABLE  # it stays in the set: whoever reads it counts it, and says what is wrong
            ticker.advance()
    return sizes
