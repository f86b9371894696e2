"""The two sides of annotated data: training and validation share no photograph, so they share no object either."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool

from d3ssl import console
from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.place import Member, Place, file_bytes, open_place
from d3ssl.data.scenes.config import OutOfContextConfig
from d3ssl.data.sources import Parts, open_images, open_parts
from d3ssl.errors import InputError, first_names
from d3ssl.files import digest
from d3ssl.seeds import numpy_generator

LAYOUTS = (
    "DATA is a folder with train/ and val/ (each annotations.json beside images/), COCO (annotations/"
    "instances_train*.json and instances_val*.json), or Pascal VOC (its tree, or ImageSets/Segmentation/train.txt with "
    "val.txt beside it); or split one set: --val_share 0.2."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The photographs that one side's objects and, without a folder of backgrounds, its backgrounds come from."""

    name: Literal["train", "val"]
    images: ImageSet
    photographs: tuple[str, ...]
    """How the manifest names each image: by its path, from the folder that both sides lie in."""

    @property
    def annotations(self) -> CocoAnnotations:
        return self.images.annotated

    def shows(self, classes: tuple[str, ...]) -> Bool[np.ndarray, "images classes"]:
        """Which classes each photograph shows, crowds and objects without masks included."""
        own = self.annotations
        labels = [own.names.index(name) for name in classes]
        return np.array([np.isin(labels, own.labels[rows]) for rows in own.objects_of]).reshape(-1, len(classes))

    def check_size(self, index: int, found: tuple[int, int]) -> None:
        """Raise InputError if a photograph is not (height, width) as large as its annotations say."""
        height, width = (int(size) for size in self.annotations.sizes[index])
        if found != (height, width):
            problem = f"is {found[1]}×{found[0]} px, but its annotations say {width}×{height}"
            raise InputError(problem, path=self.images.paths[index], remedy="annotate this image itself.")


def open_sides(config: OutOfContextConfig) -> tuple[Side, Side]:
    """Open DATA's training and validation side. Photographs of val that are in train too are left out with a warning.

    Raises:
        InputError: no annotations, no two parts, or nothing left of one.
    """
    train, val, _ = _open(config)
    val = _without_twins(train, val)
    top = Path(os.path.commonpath([train.root.absolute(), val.root.absolute()]))
    return (
        Side(name="train", images=train, photographs=tuple(_name(place, top) for place in train.paths)),
        Side(name="val", images=val, photographs=tuple(_name(place, top) for place in val.paths)),
    )


def sides_digest(sides: tuple[Side, Side]) -> str:
    """Changes with the photographs (names, bytes) and with anything that is said of their objects."""
    parts: list[bytes | str] = []
    for side in sides:
        own = side.annotations
        parts += [side.images.digest(), str(own.categories), own.boxes.tobytes(), own.labels.tobytes()]
        parts += [own.crowd.tobytes(), own.ids.tobytes(), *(rows.tobytes() for rows in own.objects_of)]
        parts += [own.segmentations.content(int(row)) for rows in own.objects_of for row in rows]
    return digest(*parts)


def file_digest(place: Place) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    with open_place(place) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _open(config: OutOfContextConfig) -> Parts:
    root = Path(config.data)
    parts = open_parts(root)
    if parts is not None and config.val_share is not None:
        problem = f"comes in two parts already ({parts.rule}), so val_share has no meaning"
        raise InputError(problem, path=root, remedy="leave --val_share out, or name one of the parts.")
    if parts is not None:
        return parts
    if any((root / name / ANNOTATIONS).exists() for name in ("train", "val")):
        raise InputError("has only one of the parts train and val", path=root, remedy=LAYOUTS)
    images = open_images(root)
    if images.annotations is None:
        remedy = "objects are cut out by their masks: give COCO data with segmentations, or Pascal VOC."
        raise InputError("has no annotations, so its objects are not known", path=root, remedy=remedy)
    if config.val_share is None:
        raise InputError("has no training and validation part", path=root, remedy=LAYOUTS)
    return _draw_parts(images, config.val_share, config.seed)


def _draw_parts(images: ImageSet, val_share: float, seed: int) -> Parts:
    count = round(val_share * len(images))
    if not 0 < count < len(images):
        problem = f"{len(images)} images cannot be split with val_share = {val_share}"
        raise InputError(problem, path=images.root, remedy="give more images, or another --val_share.")
    order = numpy_generator(seed, "val_share").permutation(len(images))
    val, train = (images.subset(np.sort(own)) for own in (order[:count], order[count:]))
    return Parts(train, val, f"{val_share:.0%} of the images for validation, drawn by the seed")


def _without_twins(train: ImageSet, val: ImageSet) -> ImageSet:
    """val without the images whose files are the same as one of train, byte by byte."""
    sizes = {file_bytes(place) for place in train.paths}
    suspects = [index for index, place in enumerate(val.paths) if file_bytes(place) in sizes and file_bytes(place) >= 0]
    wanted = {file_bytes(val.paths[index]) for index in suspects}
    known = {file_digest(place) for place in train.paths if file_bytes(place) in wanted} if suspects else set()
    twins = [index for index in suspects if file_digest(val.paths[index]) in known]
    if not twins:
        return val
    listed = first_names([val.ids[index] for index in twins])
    problem = f"{len(twins)} of {len(val)} validation photographs are also training photographs, byte by byte: {listed}"
    console.warn(problem, "nothing: they are left out of validation.")
    if len(twins) == len(val):
        remedy = "give validation photographs that are not trained on."
        raise InputError("all validation photographs are also training photographs", path=val.root, remedy=remedy)
    return val.subset(sorted(set(range(len(val))) - set(twins)))


def _name(place: Place, top: Path) -> str:
    path = place.shard if isinstance(place, Member) else place
    name = "DATA/" + path.absolute().relative_to(top).as_posix()
    return f"{name}: {place.name}" if isinstance(place, Member) else name
