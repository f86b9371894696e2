"""Which images are learned from and which are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.sources import open_images
from d3ssl.data.splits import check_categories, open_parts
from d3ssl.errors import InputError
from d3ssl.seeds import derive_seed, numpy_generator

SHUFFLED = "val_shuffled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Labelled images with the same categories."""

    train: ImageSet
    val: ImageSet
    shuffled: ImageSet | None
    """Images in which contexts and places of the objects are shuffled."""
    rule: str
    """How the splits came about, for people."""


def open_splits(data: str | Path, val_share: float) -> Splits:
    """Open DATA:

    - a folder with ``train``, ``val`` and, if any, ``val_shuffled`` (as `d3ssl scenes` writes);
    - Pascal VOC: a tree (its lists ``ImageSets/Main/train.txt`` and ``val.txt``), or a list ``train.txt`` of it with
      ``val.txt`` beside it, such as that of ``ImageSets/Segmentation``, whose images have masks;
    - COCO as it is unpacked: ``annotations/instances_train*.json`` and ``instances_val*.json``, one of each;
    - one set of any format with objects, which is split by a hash of the image id: the same on every machine,
      whatever other images there are.

    Args:
        val_share: share of one set's images that is tested on.

    Raises:
        InputError: nothing to open, no annotations, categories that differ, or no images left on one side.
    """
    root = Path(data)
    if parts := open_parts(root):
        shuffled = open_images(root / SHUFFLED) if (root / SHUFFLED / ANNOTATIONS).exists() else None
        if shuffled is not None:
            check_categories(parts.train, shuffled)
        rule = parts.rule + (f", {SHUFFLED}" if shuffled is not None else "")
        return Splits(train=parts.train, val=parts.val, shuffled=shuffled, rule=rule)
    images = open_images(root)
    if images.annotations is None:
        remedy = "give a folder of `d3ssl scenes`, COCO data (a folder or a file), or a tree of Pascal VOC."
        raise InputError("has no annotations, so its objects are not known", path=root, remedy=remedy)
    tested = is_tested(images.ids, val_share)
    if tested.all() or not tested.any():
        problem = f"{len(images)} images are too few to be split into training and validation"
        raise InputError(problem, path=root, remedy="give more images, or another --val_share.")
    rule = f"one set, {val_share:.0%} of it for validation by a hash of the image id"
    return Splits(
        train=images.subset(np.flatnonzero(~tested)),
        val=images.subset(np.flatnonzero(tested)),
        shuffled=None,
        rule=rule,
    )


def is_tested(ids: Sequence[str], val_share: float) -> Bool[np.ndarray, "images"]:
    """Which images of one set are tested on: a function of the id alone."""
    return np.array([derive_seed("objects", "val", name) < val_share * 2**63 for name in ids], dtype=bool)


def limit_objects(images: ImageSet, most: int | None, seed: int, name: str) -> ImageSet:
    """Images drawn at random until they hold at least ``most`` objects; all of them if they hold fewer."""
    assert images.annotations is not None
    counts = np.array([int((~images.annotations.objects(index).crowd).sum()) for index in range(len(images))])
    if most is None or counts.sum() <= most:
        return images
    order = numpy_generator(seed, "objects", name).permutation(len(images))
    enough = int(np.searchsorted(np.cumsum(counts[order]), most)) + 1
    return images.subset(np.sort(order[:enough]))
