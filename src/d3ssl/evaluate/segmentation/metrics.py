"""How well a map of classes agrees with the truth: mIoU, IoU of each class, pixel accuracy, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer

from d3ssl.data.semantic import IGNORED
from d3ssl.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counted pixels of each image; all figures come from their sums."""

    right: Int64[np.ndarray, "images classes"]
    """Pixels of a class that are named rightly."""
    truth: Int64[np.ndarray, "images classes"]
    """Pixels that are of the class."""
    named: Int64[np.ndarray, "images classes"]
    """Pixels that are named so, without ignored ones."""

    def iou(self) -> Float64[np.ndarray, "classes"]:
        """IoU of each class over all images; NaN for a class that is neither in the truth nor in a prediction."""
        return _iou(self.right.sum(axis=0), self.truth.sum(axis=0), self.named.sum(axis=0))

    def miou(self) -> float:
        """Mean over the classes that are in the truth or in a prediction."""
        return float(np.nanmean(self.iou()))

    def accuracy(self) -> float:
        """Share of the pixels that are named rightly."""
        return float(self.right.sum() / self.truth.sum())

    def bootstrap(
        self, draws: int, generator: np.random.Generator
    ) -> tuple[Float64[np.ndarray, "draws"], Float64[np.ndarray, "draws"]]:
        """mIoU and pixel accuracy when the images are resampled with replacement and their pixels summed.

        Raises:
            InputError: fewer than two images.
        """
        count = len(self.truth)
        if count < 2:
            raise InputError(f"{count} image(s) give no interval", remedy="evaluate on more images.")
        mious, accuracies = np.empty(draws), np.empty(draws)
        right, truth, named = (part.astype(np.float64) for part in (self.right, self.truth, self.named))
        for start in range(0, draws, 256):  # chunks: draws × images may be large
            part = slice(start, min(start + 256, draws))
            times = generator.multinomial(count, np.full(count, 1 / count), size=part.stop - part.start)
            sums = [times.astype(np.float64) @ each for each in (right, truth, named)]
            mious[part] = np.nanmean(_iou(*sums), axis=1)
            accuracies[part] = sums[0].sum(axis=1) / sums[1].sum(axis=1)
        return mious, accuracies


def _iou(right: np.ndarray, truth: np.ndarray, named: np.ndarray) -> np.ndarray:
    union = truth + named - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def confusion_matrix(
    truth: Int64[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"], num_classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Pixels by true class (row) and predicted class (column); those of truth ``IGNORED`` (255) do not count.

    Raises:
        ValueError: a class out of range.
    """
    counted = truth != IGNORED
    rows, columns = truth[counted], predicted[counted].astype(np.int64)
    for values in (rows, columns):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"classes {values.min()} to {values.max()}, where 0 to {num_classes - 1} are possible")
    flat = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def count_classes(matrix: Int64[np.ndarray, "classes classes"]) -> Int64[np.ndarray, "3 classes"]:
    """Of a confusion matrix: the pixels named rightly, those of the class, and those named so."""
    return np.stack([np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])


def tally(counts: Int64[np.ndarray, "images 3 classes"]) -> Tally:
    """Images by what ``count_classes`` gives. Those without a counted pixel do not count.

    Raises:
        InputError: no image has one.
    """
    whole = counts[counts[:, 1].any(axis=1)]
    if not len(whole):
        remedy = "give maps with pixels that are not ignored."
        raise InputError("all pixels of the validation images are ignored", remedy=remedy)
    return Tally(right=whole[:, 0], truth=whole[:, 1], named=whole[:, 2])
