"""Objects cut out of their images by their masks, and crops of images to put them on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch.nn.functional import interpolate

from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.diagnose.reading import ProbeReader
from d3ssl.errors import InputError

_MASKS_REMEDY = "give COCO data with segmentations, or no --data: then procedural scenes are made."
_LEAST_OBJECTS = 10
GREY = 128.0
"""What objects stand on where nothing else is to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """An object by itself."""

    pixels: Float32[np.ndarray, "h w C"]
    """0..255, multiplied by ``alpha``."""
    alpha: Float32[np.ndarray, "h w 1"]
    """0..1."""

    def resized(self, longer_side: int) -> Cutout:
        """The same with a longer side of so many px (antialiased)."""
        height, width = self.alpha.shape[:2]
        scale = longer_side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return Cutout(pixels=resize(self.pixels, size), alpha=resize(self.alpha, size).clip(0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The objects of an image set that can be cut out."""

    image: Int64[np.ndarray, "N"]
    """Position of the image."""
    place: Int64[np.ndarray, "N"]
    """Place in the image's list of objects."""
    label: Int64[np.ndarray, "N"]
    identity: Int64[np.ndarray, "N"]
    """Annotation id: unique in the set."""

    def __len__(self) -> int:
        return len(self.image)


def resize(array: Float32[np.ndarray, "h w C"], size: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 C"]:
    """Bilinear, antialiased."""
    planes = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]
    planes = interpolate(planes, size, mode="bilinear", antialias=True)[0]
    return planes.permute(1, 2, 0).contiguous().numpy()


def find_candidates(images: ImageSet, min_side: int) -> Candidates:
    """All objects, not of crowds, whose box's longer side is at least ``min_side`` px.

    Raises:
        InputError: no annotations, no masks, or too few objects or classes.
    """
    annotations = images.annotated
    if annotations is None:
        problem = "has no annotations, so no objects can be cut out"
        raise InputError(problem, path=images.root, remedy=_MASKS_REMEDY)
    if not annotations.has_masks:
        problem = "has objects without masks (segmentation), so they cannot be cut out"
        raise InputError(problem, path=annotations.path, remedy=_MASKS_REMEDY)
    found = []
    for index in range(len(images)):
        objects = annotations.objects(index)
        sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]).max(axis=1, initial=0)
        places = np.flatnonzero(~objects.crowd & (sides >= min_side))
        found += [(index, place, objects.labels[place], objects.ids[place]) for place in places]
    table = np.array(found, dtype=np.int64).reshape(-1, 4)
    classes = len(np.unique(table[:, 2]))
    if len(table) < _LEAST_OBJECTS or classes < 2:
        problem = f"{len(table)} objects of {classes} classes with a side of {min_side} px or more are too few to probe"
        remedy = f"give at least {_LEAST_OBJECTS} objects of 2 classes, or lower --min_side."
        raise InputError(problem, path=annotations.path, remedy=remedy)
    return Candidates(image=table[:, 0], place=table[:, 1], label=table[:, 2], identity=table[:, 3])


def draw_balanced(candidates: Candidates, count: int, generator: np.random.Generator) -> Int64[np.ndarray, "n"]:
    """Rows of ``count`` candidates (all, if there are fewer): every class gives one in turn, in random order, until
    it has no more."""
    order = generator.permutation(len(candidates))
    labels = candidates.label[order]
    turn = np.empty(len(order), dtype=np.int64)
    for label in np.unique(labels):
        own = labels == label
        turn[own] = np.arange(own.sum())
    tie = generator.permutation(int(labels.max()) + 1)[labels]
    return order[np.lexsort((tie, turn))][:count].astype(np.int64)


def cut_out(reader: ProbeReader, candidates: Candidates, row: int) -> Cutout | None:
    """One object, cropped to its mask; None if the mask is empty or thinner than two pixels, or the image is bad.

    Raises:
        InputError: the segmentation is damaged, or too many images cannot be used.
    """
    images = reader.images
    index = int(candidates.image[row])
    mask = images.annotated.masks(index)[int(candidates.place[row])]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if min(len(rows), len(columns)) < 2:
        return None
    image = reader.read(index)
    if image is None:
        return None
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = mask[window].astype(np.float32)[..., None]
    return Cutout(pixels=image[window].astype(np.float32) * alpha, alpha=alpha)


def crop_background(
    image: UInt8[np.ndarray, "H W C"], size: int, generator: np.random.Generator
) -> Float32[np.ndarray, "S S C"]:
    """A random square of an image, with 0.4..1 of its shorter side, resized."""
    height, width = image.shape[:2]
    side = max(1, round(float(generator.uniform(0.4, 1)) * min(height, width)))
    top, left = (int(generator.integers(0, room - side + 1)) for room in (height, width))
    return resize(image[top : top + side, left : left + side].astype(np.float32), (size, size))


def open_probe_images(data: str | Path) -> ImageSet:
    """Open DATA; of a folder of `d3ssl scenes` the split ``val``."""
    root = Path(data)
    return open_images(root / "val" if (root / "val" / ANNOTATIONS).exists() else root)


@contextmanager
def procedural_images(seed: int) -> Iterator[ImageSet]:
    """A small set of procedural scenes in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="d3ssl-probes-") as folder:
        config = ScenesConfig(images=150, val_images=1, size=128, image_format="png", seed=seed, workers=1)
        make_scenes(Path(folder) / "scenes", config)
        yield open_images(Path(folder) / "scenes" / "train")


def paste(
    canvas: Float32[np.ndarray, "S S ch"], cutout: Cutout, centre: tuple[float, float]
) -> Float32[np.ndarray, "4"]:
    """Paste at whole pixels, so that an object's pixels are the same everywhere; return its box.

    Args:
        centre: (y, x), share of the image; moved so that the object is inside as a whole.
    """
    size = canvas.shape[0]
    height, width = cutout.alpha.shape[:2]
    top = min(max(round(centre[0] * size - height / 2), 0), size - height)
    left = min(max(round(centre[1] * size - width / 2), 0), size - width)
    window = canvas[top : top + height, left : left + width]
    window *= 1 - cutout.alpha
    window += cutout.pixels
    return np.array([left, top, left + width, top + height], dtype=np.float32)
