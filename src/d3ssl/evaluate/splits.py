"""Which images are learned from and which are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.sources import open_images
from d3ssl.data.trees import VOC_OBJECT_PARTS, voc_folder, voc_list_folder
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
    - one set of any format with objects, which is split by a hash of the image id: the same on every machine,
      whatever other images there are.

    Args:
        val_share: share of one set's images that is tested on.

    Raises:
        InputError: nothing to open, no annotations, categories that differ, or no images left on one side.
    """
    root = Path(data)
    if (root / "train" / ANNOTATIONS).exists() and (root / "val" / ANNOTATIONS).exists():
        has_shuffled = (root / SHUFFLED / ANNOTATIONS).exists()
        train, val = open_images(root / "train"), open_images(root / "val")
        shuffled = open_images(root / SHUFFLED) if has_shuffled else None
        for other in (val, shuffled):
            _check_categories(train, other)
        return Splits(train=train, val=val, shuffled=shuffled, rule="the folders train, val" + _also(has_shuffled))
    if lists := _voc_lists(root):
        train, val = (open_images(file) for file in lists)
        _check_categories(train, val)
        return Splits(train=train, val=val, shuffled=None, rule=f"Pascal VOC's lists {lists[0].name}, {lists[1].name}")
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


def _voc_lists(root: Path) -> tuple[Path, Path] | None:
    """The lists of training and validation that DATA means; None where there are no two."""
    tree = voc_folder(root, VOC_OBJECT_PARTS) if root.is_dir() else None
    train = tree / "ImageSets" / "Main" / "train.txt" if tree else root
    is_list = train.name == "train.txt" and voc_list_folder(train) is not None
    val = train.with_name("val.txt")
    return (train, val) if is_list and train.is_file() and val.is_file() else None


def is_tested(ids: Sequence[str], val_share: float) -> Bool[np.ndarray, "images"]:
    """Which images of one set are tested on: a function of the id alone."""
    return np.array([derive_seed("objects", "val", name) < val_share * 2**63 for name in ids], dtype=bool)


def _also(has_shuffled: bool) -> str:
    return f", {SHUFFLED}" if has_shuffled else ""


def _check_categories(train: ImageSet, other: ImageSet | None) -> None:
    if other is None:
        return
    assert train.annotations is not None and other.annotations is not None
    if train.annotations.categories != other.annotations.categories:
        problem = f"has other categories than {train.annotations.path}"
        raise InputError(problem, path=other.annotations.path, remedy="write the same categories into both files.")


def limit_objects(images: ImageSet, most: int | None, seed: int, name: str) -> ImageSet:
    """Images drawn at random until they hold at least ``most`` objects; all of them if they hold fewer."""
    assert images.annotations is not None
    counts = np.array([int((~images.annotations.objects(index).crowd).sum()) for index in range(len(images))])
    if most is None or counts.sum() <= most:
        return images
    order = numpy_generator(seed, "objects", name).permutation(len(images))
    enough = int(np.searchsorted(np.cumsum(counts[order]), most)) + 1
    return images.subset(np.sort(order[:enough]))
