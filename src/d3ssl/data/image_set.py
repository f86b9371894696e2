"""A set of images, whatever it was read from."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.place import Place, file_bytes
from d3ssl.errors import InputError
from d3ssl.files import digest

ANNOTATIONS = "annotations.json"
"""Name of the annotations file in a data folder, beside the folder ``images``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Images in the order of their ids, which are the same on every machine."""

    root: Path
    """The folder that the ids are relative to, or that holds the shards."""
    paths: tuple[Place, ...]
    """Where each image lies: a file of its own, or a member of a shard."""
    ids: tuple[str, ...]
    """Path relative to the root, with forward slashes, in Unicode's composed form (NFC); unique and sorted."""
    annotations: CocoAnnotations | None = None
    """The objects; an image has the same position here and there."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def annotated(self) -> CocoAnnotations:
        """The objects, where they are needed.

        Raises:
            InputError: there are none.
        """
        if self.annotations is None:
            remedy = "give data with objects, such as COCO or Pascal VOC; docs/data.md lists the formats that have any."
            raise InputError("has no annotations, so its objects are not known", path=self.root, remedy=remedy)
        return self.annotations

    def digest(self) -> str:
        """Identifies the images: changes with their ids, their order and the sizes of their files in bytes."""
        return digest(*(f"{name}\0{file_bytes(path)}" for name, path in zip(self.ids, self.paths, strict=True)))

    def subset(self, indices: Sequence[int] | Int[np.ndarray, "_"]) -> ImageSet:
        """Some of the images, in the given order."""
        chosen = [int(index) for index in indices]
        return ImageSet(
            root=self.root,
            paths=tuple(self.paths[index] for index in chosen),
            ids=tuple(self.ids[index] for index in chosen),
            annotations=None if self.annotations is None else self.annotations.subset(chosen),
        )


def named_images(source: Path, root: Path, found: CocoAnnotations | tuple[str, ...]) -> ImageSet:
    """The images that annotations, or a list, name below a folder, in the order of their ids."""
    file_names, ids, annotations = in_order(source, found)
    paths = tuple(root / name for name in file_names)
    return ImageSet(root=root, paths=paths, ids=ids, annotations=annotations)


def in_order(
    source: Path, found: CocoAnnotations | tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], CocoAnnotations | None]:
    """File names, ids and annotations in the order of the ids."""
    file_names = found.file_names if isinstance(found, CocoAnnotations) else found
    names = [unicodedata.normalize("NFC", PurePosixPath(name).as_posix()) for name in file_names]
    order = sorted(range(len(names)), key=names.__getitem__)
    for one, other in pairwise(order):
        if names[one] == names[other]:
            problem = f"names the image {names[one]!r} twice, as {file_names[other]!r} too"
            raise InputError(problem, path=source, remedy="keep one of the two entries.")
    return (
        tuple(file_names[index] for index in order),
        tuple(names[index] for index in order),
        found.subset(order) if isinstance(found, CocoAnnotations) else None,
    )
