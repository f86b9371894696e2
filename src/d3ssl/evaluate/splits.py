"""Which images are learned from and which are tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from d3ssl.data.formats import Format, Kind, find_format
from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.semantic import SemanticSet
from d3ssl.data.sources import check_categories, name_of
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


Set = TypeVar("Set", ImageSet, SemanticSet)


@dataclass(frozen=True, kw_only=True)
class Splits(Generic[Set]):
    """Images with objects of the same categories, or with maps of the same classes."""

    train: Set
    tested: dict[str, Set]
    """``val`` and those that there are beside it, by name, in the order of ``TESTED``."""
    rule: str
    """How the splits came about, for people."""

    @property
    def val(self) -> Set:
        """Images like those of train."""
        return self.tested["val"]


def suffix(split: str) -> str:
    """Of the keys of a tested split's figures."""
    return "" if split == "val" else f"_{split}"


def drawn_as(split: str) -> str:
    """The name under which images are drawn from a tested split: splits of the same objects get the same draws, so that
    differences between them are those of pairs."""
    return split if split == "shuffled" else "val"


def open_splits(data: Any, val_share: float) -> Splits[ImageSet]:
    """Open DATA for its objects: the parts that it comes in (see the formats), with ``val_NAME`` beside them as
    `d3ssl scenes` writes (see ``TESTED``); or one set, which is split by a hash of the image id: the same on every
    machine, whatever other images there are.

    Args:
        val_share: share of one set's images that is tested on.

    Raises:
        InputError: nothing to open, no annotations, categories that differ, or no images left on one side.
    """
    return _open(data, val_share, "objects", lambda source: source.images(), check_categories)


def open_semantic(data: Any, val_share: float) -> Splits[SemanticSet]:
    """Open DATA for the classes of its pixels, as ``open_splits``.

    Raises:
        InputError: nothing of the kind, missing images or maps, an empty split, or splits of other classes.
    """
    return _open(data, val_share, "maps", lambda source: source.maps(), _check_classes)


def _open(
    data: Any,
    val_share: float,
    kind: Kind,
    read: Callable[[Format], Set],
    check: Callable[[Set, Set], None],
) -> Splits[Set]:
    source = find_format(data)
    if parts := source.parts(kind):
        train, val = (read(part) for part in parts[:2])
        there = {name: source.path / f"val{suffix(name)}" for name in TESTED if name != "val"}
        others = {name: read(find_format(own)) for name, own in there.items() if (own / ANNOTATIONS).exists()}
        for images in (val, *others.values()):
            check(train, images)
        rule = ", ".join([parts[2], *(f"val{suffix(name)}" for name in others)])
        return Splits(train=train, tested={"val": val, **others}, rule=rule)
    images = read(source)
    check(images, images)
    tested = is_tested(images.ids, val_share)
    if tested.all() or not tested.any():
        problem = f"{len(images)} images are too few to be split into training and validation"
        raise InputError(problem, path=name_of(data), remedy="give more images, or another --val_share.")
    rule = f"one set, {val_share:.0%} of it for validation by a hash of the image id"
    train, val = (images.subset(np.flatnonzero(own)) for own in (~tested, tested))
    return Splits(train=train, tested={"val": val}, rule=rule)


def _check_classes(train: SemanticSet, val: SemanticSet) -> None:
    if train.names != val.names:
        problem = f"has other classes than {train.root}"
        raise InputError(problem, path=val.root, remedy="write the same classes, in the same order, into both.")


def is_tested(ids: Sequence[str], val_share: float) -> Bool[np.ndarray, "images"]:
    """Which images of one set are tested on: a function of the id alone."""
    return np.array([derive_seed("objects", "val", name) < val_share * 2**63 for name in ids], dtype=bool)


def photographs(images: ImageSet) -> Int64[np.ndarray, "images"]:
    """The number of the photograph that each image was made of, as far as annotations tell (conditions of several
    objects or with several blends: ``photograph``); other images count by themselves."""
    numbers: dict[str, int] = {}
    own = zip(images.annotated.entries, images.annotated.file_names, strict=True)
    names = [str(entry.get("photograph", name)) for entry, name in own]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def limit_objects(images: ImageSet, most: int | None, seed: int, name: str) -> ImageSet:
    """Images drawn at random until they hold at least ``most`` objects; all of them if they hold fewer."""
    counts = np.array([int((~images.annotated.objects(index).crowd).sum()) for index in range(len(images))])
    if most is None or counts.sum() <= most:
        return images
    order = numpy_generator(seed, "objects", name).permutation(len(images))
    enough = int(np.searchsorted(np.cumsum(counts[order]), most)) + 1
    return images.subset(np.sort(order[:enough]))
