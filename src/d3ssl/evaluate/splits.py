"""Which images are learned from and which are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.sources import open_images
from d3ssl.data.splits import check_categories, open_parts
from d3ssl.errors import InputError
from d3ssl.seeds import derive_seed, numpy_generator

TESTED = {
    "val": "new images",
    "shuffled": "scenes with unfamiliar neighbours and positions",
    "replaced": "their own photographs, cut out and pasted back",
    "congruent": "another photograph that shows their class",
    "elsewhere": "a photograph that does not show their class",
    "anywhere": "the same, at any place beside unfamiliar neighbours",
}
"""The splits that may be tested on, and where their objects are. ``val`` lies in the folder of that name, each other
one in ``val_NAME``. Those after ``shuffled`` show the objects of ``val``, image by image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Labelled images with the same categories."""

    train: ImageSet
    tested: dict[str, ImageSet]
    """``val`` and those that there are beside it, by name, in the order of ``TESTED``."""
    rule: str
    """How the splits came about, for people."""

    @property
    def val(self) -> ImageSet:
        """Images like those of train."""
        return self.tested["val"]


def suffix(split: str) -> str:
    """Of the keys of a tested split's figures."""
    return "" if split == "val" else f"_{split}"


def drawn_as(split: str) -> str:
    """The name under which images are drawn from a tested split: splits of the same objects get the same draws, so that
    differences between them are those of pairs."""
    return split if split == "shuffled" else "val"


def open_splits(data: str | Path, val_share: float) -> Splits:
    """Open DATA:

    - a folder with ``train``, ``val`` and, if any, ``val_NAME`` (as `d3ssl scenes` writes, see ``TESTED``);
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
        folders = {name: root / f"val{suffix(name)}" for name in TESTED if name != "val"}
        others = {name: open_images(folder) for name, folder in folders.items() if (folder / ANNOTATIONS).exists()}
        for images in others.values():
            check_categories(parts.train, images)
        rule = ", ".join([parts.rule, *(f"val{suffix(name)}" for name in others)])
        return Splits(train=parts.train, tested={"val": parts.val, **others}, rule=rule)
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
        tested={"val": images.subset(np.flatnonzero(tested))},
        rule=rule,
    )


def is_tested(ids: Sequence[str], val_share: float) -> Bool[np.ndarray, "images"]:
    """Which images of one set are tested on: a function of the id alone."""
    return np.array([derive_seed("objects", "val", name) < val_share * 2**63 for name in ids], dtype=bool)


def photographs(images: ImageSet) -> Int64[np.ndarray, "images"]:
    """The number of the photograph that each image was made of, as far as annotations tell (conditions of several
    objects or with several blends: ``photograph``); other images count by themselves."""
    assert images.annotations is not None
    numbers: dict[str, int] = {}
    own = zip(images.annotations.entries, images.annotations.file_names, strict=True)
    names = [str(entry.get("photograph", name)) for entry, name in own]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def limit_objects(images: ImageSet, most: int | None, seed: int, name: str) -> ImageSet:
    """Images drawn at random until they hold at least ``most`` objects; all of them if they hold fewer."""
    assert images.annotations is not None
    counts = np.array([int((~images.annotations.objects(index).crowd).sum()) for index in range(len(images))])
    if most is None or counts.sum() <= most:
        return images
    order = numpy_generator(seed, "objects", name).permutation(len(images))
    enough = int(np.searchsorted(np.cumsum(counts[order]), most)) + 1
    return images.subset(np.sort(order[:enough]))
