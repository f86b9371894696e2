"""Objects cut from their photographs by their masks."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from d3ssl import console
from d3ssl.data.images import read_image
from d3ssl.data.scenes.annotated.instances import Instance, check_counts
from d3ssl.data.scenes.annotated.sides import Side
from d3ssl.data.scenes.config import OutOfContextConfig
from d3ssl.data.scenes.cutouts import SpriteObjects, largest_side, shrunk
from d3ssl.data.scenes.objects import Sprite, trim
from d3ssl.errors import InputError


def cut(image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], most: float) -> Sprite:
    """The pixels of a mask, with nothing around them, shrunk until √(width·height) ≤ ``most`` px."""
    alpha = np.where(mask, np.uint8(255), np.uint8(0))
    return shrunk(trim(Sprite(np.where(mask[..., None], image, np.uint8(0)), alpha)), most)


def read_objects(
    side: Side, instances: tuple[Instance, ...], classes: tuple[str, ...], config: OutOfContextConfig
) -> SpriteObjects:
    """The objects of a side by class; a sprite's ``source`` is its place in ``instances``.

    Photographs that cannot be read, or are of another size than annotated, are left out with a warning.

    Raises:
        InputError: too few objects of a class are left.
    """
    names, most = side.annotations.names, largest_side(config)
    sprites: dict[str, list[Sprite]] = {name: [] for name in classes}
    bad: list[str] = []
    numbered = list(enumerate(instances))
    with console.progress(f"cutting out objects of {side.name}", len(numbered)) as ticker:
        for image, group in groupby(numbered, key=lambda pair: pair[1].image):
            own = list(group)
            try:
                pixels = _read(side, image)
            except InputError as error:
                bad.append(str(error))
            else:
                masks = side.annotations.masks(image, [one.place for _, one in own])
                for (number, one), mask in zip(own, masks, strict=True):
                    sprites[names[one.label]].append(cut(pixels, mask, most)._replace(source=number))
            ticker.advance(len(own))
    if bad:
        problem = f"{len(bad)} photographs of {side.name} are left out; the first: {bad[0]}"
        console.warn(problem, "fix or remove them.")
        check_counts(
            classes, {side.name: Counter({name: len(own) for name, own in sprites.items()})}, Path(config.data)
        )
    return SpriteObjects(config, classes, [sprites[name] for name in classes])


def _read(side: Side, index: int) -> UInt8[np.ndarray, "H W 3"]:
    image = read_image(side.images.paths[index])
    side.check_size(index, (image.shape[0], image.shape[1]))
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] != 3:
        problem = f"has {image.shape[2]} channels; scenes are made of grey or RGB images"
        raise InputError(problem, path=side.images.paths[index], remedy="convert it to RGB.")
    return image
