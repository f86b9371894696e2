"""The rule by which images are chosen. It looks at ids, classes and flags alone, in no particular order of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from d3ssl.data.open_images.boxes import BoxRows, counts
from d3ssl.data.open_images.columns import image_name
from d3ssl.data.open_images.config import BuildConfig

_HASH_BITS = 53
"""As many as a double keeps: the products below are then the same on every machine (IEEE 754)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many boxes that count an image has of each class: one entry for each pair of image and class that occurs,
    sorted by image, then class."""

    num_classes: int
    images: UInt64[np.ndarray, "images"]
    """Ids of the images with a box that counts, sorted."""
    image: Int64[np.ndarray, "pairs"]
    """Positions in ``images``."""
    label: Int64[np.ndarray, "pairs"]
    objects: Int64[np.ndarray, "pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The images of a split that satisfy the rule, and the order in which they are taken."""

    images: UInt64[np.ndarray, "pool"]
    """Image ids, the first to be taken first."""
    keys: Float64[np.ndarray, "pool"]
    """Ascending. An image is taken when the cap is at least its key."""
    class_images: Int64[np.ndarray, "classes"]
    """Images of the pool that show a class; 0 for classes that are not kept."""
    class_objects: Int64[np.ndarray, "classes"]
    """Boxes of a class in the pool that count."""

    def take(self, wanted: int, cap: int | None) -> UInt64[np.ndarray, "taken"]:
        """The first ``wanted`` images whose key does not exceed the cap (None: whatever their key)."""
        within = len(self.keys) if cap is None else int(np.searchsorted(self.keys, cap, side="right"))
        return self.images[: min(wanted, within)]


def take_census(chunks: Iterable[BoxRows], num_classes: int, unknown_counts: bool) -> Census:
    """Count the boxes of a split. Keeps ten bytes a box while it reads, and twenty when it sorts."""
    parts = []
    for rows in chunks:
        kept = counts(rows.flags, unknown_counts)
        parts.append((rows.images[kept], rows.labels[kept].astype(np.int16)))
    ids = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *(np.unique(images) for images, _ in parts)]))
    pairs = np.empty(sum(len(images) for images, _ in parts), dtype=np.int64)
    end = len(pairs)
    while parts:
        images, labels = parts.pop()
        pairs[end - len(images) : end] = np.searchsorted(ids, images) * num_classes + labels
        end -= len(images)
    pairs.sort()
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    objects = np.diff(starts, append=len(pairs))
    pairs = pairs[starts]
    return Census(
        num_classes=num_classes, images=ids, image=pairs // num_classes, label=pairs % num_classes, objects=objects
    )


def satisfies(census: Census, kept: Bool[np.ndarray, "classes"], config: BuildConfig) -> Bool[np.ndarray, "images"]:
    """Which images have ``min_classes`` distinct classes and ``min_boxes`` boxes that count, of the kept classes."""
    pairs = kept[census.label]
    total = len(census.images)
    classes = np.bincount(census.image[pairs], minlength=total)
    objects = np.bincount(census.image[pairs], weights=census.objects[pairs], minlength=total)
    return (classes >= config.min_classes) & (objects >= config.min_boxes)


def keep_classes(census: Census, config: BuildConfig) -> Bool[np.ndarray, "classes"]:
    """The classes that at least ``min_class_images`` images show which satisfy the rule by kept classes alone.

    Classes with too few are taken away until none is left to take away. Taking one away never helps another, so that
    what remains is the greatest such set, and the only one.
    """
    kept = np.ones(census.num_classes, dtype=bool)
    while True:
        shown = satisfies(census, kept, config)[census.image] & kept[census.label]
        enough = np.bincount(census.label[shown], minlength=census.num_classes) >= config.min_class_images
        if (enough | ~kept).all():
            return kept
        kept &= enough


def order_pool(census: Census, kept: Bool[np.ndarray, "classes"], config: BuildConfig) -> Pool:
    """Put the images that satisfy the rule in order.

    The key of an image is u·n: u in [0, 1) is the hash of its id, and n the number of objects that its rarest class
    has in the pool. Taking all keys up to a cap C takes an image with probability min(1, C/n), so that about C objects
    of each class are chosen for their own sake (fewer where there are fewer). Ascending keys therefore balance the
    classes at every number of images, and a smaller number is the beginning of a larger one: u and n depend neither on
    the number nor on the cap. This is sequential Poisson sampling (Ohlsson 1998) with 1/n as size; ties: by id.
    """
    good = satisfies(census, kept, config)
    pairs = good[census.image] & kept[census.label]
    image, label, objects = census.image[pairs], census.label[pairs], census.objects[pairs]
    class_images = np.bincount(label, minlength=census.num_classes).astype(np.int64)
    class_objects = np.bincount(label, weights=objects, minlength=census.num_classes).astype(np.int64)
    ids = census.images[good]
    if len(ids) == 0:
        return Pool(images=ids, keys=np.empty(0), class_images=class_images, class_objects=class_objects)
    starts = np.flatnonzero(np.diff(image, prepend=-1))
    rarest = np.minimum.reduceat(class_objects[label], starts)
    keys = hash_images(ids, config.seed_text) * rarest
    order = np.lexsort((ids, keys))
    return Pool(images=ids[order], keys=keys[order], class_images=class_images, class_objects=class_objects)


def hash_images(images: UInt64[np.ndarray, "n"], seed_text: str) -> Float64[np.ndarray, "n"]:
    """For every image a number in [0, 1): the first 53 bits of the SHA-256 of ``seed_text/image_id`` (UTF-8), as a
    fraction."""
    prefix = f"{seed_text}/"
    bits = (
        int.from_bytes(hashlib.sha256(f"{prefix}{image_name(number)}".encode()).digest()[:8], "big")
        >> (64 - _HASH_BITS)
        for number in images.tolist()
    )
    return np.fromiter(bits, dtype=np.float64, count=len(images)) / 2**_HASH_BITS
