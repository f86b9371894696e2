"""Semantic maps: the class of every pixel, whatever the files look like that it is kept in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, Integer

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.folders import missing_files
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import image_size
from d3ssl.data.number_png import read_map
from d3ssl.data.place import Place, file_bytes
from d3ssl.errors import InputError, first_names
from d3ssl.files import digest

IGNORED = 255
"""Label of the pixels that count neither in training nor in a figure."""
MAX_CLASSES = 255
"""Labels are 0..254."""
BACKGROUND = "background"
"""Name of label 0 where objects are annotated and what lies between them is not."""


@runtime_checkable
class Maps(Protocol):
    """The semantic maps of a set, however they are kept. A map is named by its row."""

    def read(self, row: int) -> Int64[np.ndarray, "H W"]:
        """One map: 0..number of classes − 1, or ``IGNORED``.

        Raises:
            InputError: the map is missing or damaged, or has values that stand for no class.
        """
        ...

    def content(self, row: int) -> str:
        """Identifies one map without decoding it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticSet:
    """Images with the class of every pixel."""

    root: Path
    """The folder that the ids are relative to."""
    ids: tuple[str, ...]
    """Path of the image relative to the root, with forward slashes; unique and sorted."""
    paths: tuple[Place, ...]
    names: tuple[str, ...]
    """Of the classes; position = label."""
    maps: Maps
    rows: tuple[int, ...]
    """For every image the row of its map in ``maps``."""

    def __post_init__(self) -> None:
        if len(self.names) > MAX_CLASSES:
            problem = f"has {len(self.names)} classes (with the background), more than {MAX_CLASSES}"
            raise InputError(problem, path=self.root, remedy="leave out or join the rarest classes.")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def labels(self, index: int) -> Int64[np.ndarray, "H W"]:
        """The label of every pixel of one image: 0..num_classes − 1, or 255 (``IGNORED``).

        Raises:
            InputError: the map or the image is missing or damaged, the map has another size than the upright image, or
                values that stand for no class.
        """
        labels = self.maps.read(self.rows[index])
        size = image_size(self.paths[index])
        if labels.shape != size:
            problem = f"is {size[1]}×{size[0]} px, but its map of classes {labels.shape[1]}×{labels.shape[0]}"
            remedy = "annotate this image itself, not one of another size or orientation."
            raise InputError(problem, path=self.paths[index], remedy=remedy)
        return labels

    def digest(self) -> str:
        """Changes with the images' ids, order and sizes in bytes, with the classes, and with the maps: with their
        content where it is in an annotations file, with their names and sizes in bytes where they are files."""
        images = (f"{name}\0{file_bytes(path)}" for name, path in zip(self.ids, self.paths, strict=True))
        return digest(*self.names, "images", *images, "maps", *(self.maps.content(row) for row in self.rows))

    def subset(self, indices: Sequence[int] | Int64[np.ndarray, "_"]) -> SemanticSet:
        """Some of the images, in the given order."""
        chosen = [int(index) for index in indices]
        return replace(
            self,
            ids=tuple(self.ids[index] for index in chosen),
            paths=tuple(self.paths[index] for index in chosen),
            rows=tuple(self.rows[index] for index in chosen),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMaps:
    """Semantic maps as PNG files of class numbers."""

    paths: tuple[Path, ...]
    known: dict[int, int]
    """Pixel value → label, or ``IGNORED``."""
    meaning: str
    """The permitted values, for people."""

    def read(self, row: int) -> Int64[np.ndarray, "H W"]:
        path = self.paths[row]
        remedy = "write the class numbers of this data set into the map, or its value for ignored pixels."
        return look_up(read_map(path), self.known, path, self.meaning, remedy)

    def content(self, row: int) -> str:
        return f"{self.paths[row].name} {file_bytes(self.paths[row])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMaps:
    """Semantic maps painted from the masks of objects."""

    annotations: CocoAnnotations

    def read(self, row: int) -> Int64[np.ndarray, "H W"]:
        objects = self.annotations.objects(row)
        return paint(self.annotations.masks(row), objects.labels + 1, objects.crowd)

    def content(self, row: int) -> str:
        objects = self.annotations.objects(row)
        masks = (self.annotations.segmentations.content(int(own)) for own in self.annotations.objects_of[row])
        return digest(objects.labels.tobytes(), objects.crowd.tobytes(), *masks)


def paint(
    masks: Bool[np.ndarray, "n H W"], labels: Int64[np.ndarray, "n"], crowd: Bool[np.ndarray, "n"]
) -> Int64[np.ndarray, "H W"]:
    """One map of the masks of objects: 0 where there is none.

    Where objects overlap, the one of the smaller area is on top (a cup on a table, whatever the order in the file); of
    equal areas, the later one. A crowd (a group annotated as one, with pixels of its surroundings) is ignored where no
    object lies on it.
    """
    painted = np.zeros(masks.shape[1:], dtype=np.int64)
    painted[masks[crowd].any(axis=0)] = IGNORED
    areas = masks.sum(axis=(1, 2))
    for number in np.argsort(-areas, kind="stable"):
        if not crowd[number]:
            painted[masks[number]] = labels[number]
    return painted


def from_instances(images: ImageSet) -> SemanticSet:
    """Semantic maps of COCO objects: label = position of the category + 1; 0 is the background. See ``paint``.

    Raises:
        InputError: no annotations, or objects without masks.
    """
    if not images.annotated.has_masks:
        remedy = "segmentation takes a 'segmentation' for every object; with boxes only, evaluate objects or detection."
        raise InputError("has objects without masks", path=images.annotated.path, remedy=remedy)
    return SemanticSet(
        root=images.root,
        ids=images.ids,
        paths=images.paths,
        names=(BACKGROUND, *images.annotated.names),
        maps=InstanceMaps(annotations=images.annotated),
        rows=tuple(range(len(images))),
    )


def from_files(
    tree: Path,
    source: Path,
    names: Sequence[str],
    folders: tuple[str, str],
    classes: tuple[str, ...],
    known: dict[int, int],
    meaning: str,
) -> SemanticSet:
    """Images ``TREE/IMAGES/NAME.jpg`` with maps ``TREE/MAPS/NAME.png``.

    Args:
        source: what gives the names, for messages.
        folders: of the images and of the maps, below the tree.
        classes: their names.
        known: pixel value → label, or ``IGNORED``.
        meaning: the permitted values, for people.

    Raises:
        InputError: an image or a map is not there.
    """
    images, maps = folders
    for what, folder, suffix in (("images", images, ".jpg"), ("maps", maps, ".png")):
        missing = missing_files(tree / folder, [name + suffix for name in names])
        if missing:
            problem = f"{len(missing)} of {len(names)} {what} are not in {tree / folder}: {first_names(missing)}"
            raise InputError(problem, path=source, remedy="add them, or leave these images out.")
    return SemanticSet(
        root=tree,
        ids=tuple(f"{images}/{name}.jpg" for name in names),
        paths=tuple(tree / images / f"{name}.jpg" for name in names),
        names=classes,
        maps=FileMaps(paths=tuple(tree / maps / f"{name}.png" for name in names), known=known, meaning=meaning),
        rows=tuple(range(len(names))),
    )


def look_up(
    values: Integer[np.ndarray, "H W"], known: dict[int, int], path: Path, meaning: str, remedy: str
) -> Int64[np.ndarray, "H W"]:
    """Values of a map's file → labels.

    Args:
        known: value → label or ``IGNORED``.
        meaning: the permitted values, for people.

    Raises:
        InputError: names the values that are not known.
    """
    found, place = np.unique(values, return_inverse=True)
    unknown = [value for value in found.tolist() if value not in known]
    if unknown:
        listed = ", ".join(map(str, unknown[:8])) + (", …" if len(unknown) > 8 else "")
        pixels = int(np.isin(values, unknown).sum())
        problem = f"has values that stand for no class: {listed} ({pixels} px); {meaning}"
        raise InputError(problem, path=path, remedy=remedy)
    table = np.array([known[value] for value in found.tolist()], dtype=np.int64)
    return table[place.reshape(values.shape)]
