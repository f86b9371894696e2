"""The images that probes are made of, without those that cannot be read."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from d3ssl.console import warn
from d3ssl.data.bad_images import listed, too_many_bad
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_image
from d3ssl.data.place import Place
from d3ssl.errors import InputError
from d3ssl.evaluate.features import check_size_annotated

_REMEDY = "repair or remove these images, or raise --max_bad_share."


class ProbeReader:
    """Reads images for one probe set and counts those that cannot be used: unreadable, of another size than annotated,
    or of other channels than the backbone takes."""

    def __init__(self, images: ImageSet, channels: int, max_bad_share: float) -> None:
        self.images, self.channels, self.max_bad_share = images, channels, max_bad_share
        self.bad: dict[int, str] = {}
        """Position of an image → what is wrong with it, with its path."""
        self._tried: set[int] = set()

    def read(self, index: int) -> UInt8[np.ndarray, "H W C"] | None:
        """An image; None if it cannot be used.

        Raises:
            InputError: so many are bad that the share is exceeded whatever the others are.
        """
        self._tried.add(index)
        if index in self.bad:
            return None
        try:
            image = read_channels(self.images.paths[index], self.channels)
            check_size_annotated(self.images, index, image.shape[:2])
        except InputError as error:
            self.bad[index] = str(error).splitlines()[0]
            self._fail_above(len(self.images))
            return None
        return image

    def finish(self) -> None:
        """Warn of the bad images.

        Raises:
            InputError: they are more than ``max_bad_share`` of the images tried, or all of them.
        """
        if not self.bad:
            return
        self._fail_above(len(self._tried))
        warn(f"{len(self.bad)} of {len(self._tried)} images tried are left out:\n  {self._listed()}")

    def _fail_above(self, total: int) -> None:
        if too_many_bad(len(self.bad), total, self.max_bad_share):
            share = f"more than the share of {self.max_bad_share:g}"
            problem = f"{len(self.bad)} of {len(self._tried)} images tried cannot be used, {share}:\n  {self._listed()}"
            raise InputError(problem, path=self.images.root, remedy=_REMEDY)

    def _listed(self) -> str:
        return listed(self.bad.values())


def read_channels(path: Place, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """An image with so many channels; grey is repeated to three."""
    image = read_image(path)
    if image.shape[2] == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] != channels:
        problem = f"has {image.shape[2]} channels where the backbone takes {channels}"
        raise InputError(problem, path=path, remedy="diagnose on images of the kind that the backbone was trained on.")
    return image
