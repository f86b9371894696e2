"""How sure an average precision is: that of resampled images, from matches that are made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Bool, Float64, Int64

RECALLS = np.linspace(0, 1, 101)
"""At which precision is read (COCO)."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU from which a detection counts (COCO)."""
_SURE = 1 - 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """All detections of one category, the surest first, and the category's objects."""

    image: Int64[np.ndarray, "n"]
    is_true: Bool[np.ndarray, "thresholds n"]
    is_false: Bool[np.ndarray, "thresholds n"]
    """Neither: it lies on a crowd, and does not count."""
    objects: Int64[np.ndarray, "images"]
    """Number of objects (not crowds) in every image."""


def find_matches(judge: COCOeval_faster, images: int, categories: int) -> list[Matches]:
    """Match detections to objects of all sizes as COCO does, from the IoUs of an evaluation that was run.

    Args:
        judge: of image ids 0..images − 1 and category ids 0..categories − 1.
    """
    truth, found = _by_place(judge.cocoGt), _by_place(judge.cocoDt)
    matches = []
    for label in range(categories):
        objects = np.zeros(images, dtype=np.int64)
        scores, image, parts = [np.zeros(0)], [np.zeros(0, dtype=np.int64)], [np.zeros((2, len(THRESHOLDS), 0), bool)]
        for index in range(images):
            place = (index, label)
            crowd = np.array([bool(entry["iscrowd"]) for entry in truth[place]], dtype=bool)
            objects[index] = int((~crowd).sum())
            own = np.sort([-entry["score"] for entry in found[place]], kind="stable")[: judge.params.maxDets[-1]]
            ious = np.array(judge.ious[place], dtype=np.float64).reshape(len(own), len(crowd))
            scores.append(own)
            image.append(np.full(len(own), index))
            parts.append(np.stack(match(ious, crowd)))
        order = np.argsort(np.concatenate(scores), kind="stable")
        is_true, is_false = np.concatenate(parts, axis=2)[:, :, order]
        matches.append(Matches(image=np.concatenate(image)[order], is_true=is_true, is_false=is_false, objects=objects))
    return matches


def _by_place(coco: COCO) -> defaultdict[tuple[int, int], list[dict[str, Any]]]:
    """Entries by image and category."""
    entries: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for entry in coco.anns.values():
        entries[entry["image_id"], entry["category_id"]].append(entry)
    return entries


def match(
    ious: Float64[np.ndarray, "n m"], crowd: Bool[np.ndarray, "m"]
) -> tuple[Bool[np.ndarray, "thresholds n"], Bool[np.ndarray, "thresholds n"]]:
    """Which detections of an image, the surest first, are true and which are false.

    Each takes the object that it overlaps most (the last of equals) among those that are not taken yet; failing that
    a crowd, which can be taken many times and makes it neither true nor false.
    """
    count = len(ious)
    is_true = np.zeros((len(THRESHOLDS), count), dtype=bool)
    on_crowd = np.zeros_like(is_true)
    least = np.minimum(THRESHOLDS, _SURE)
    if not ious.size:
        return is_true, ~is_true
    real = ious[:, ~crowd]
    free = np.ones((len(THRESHOLDS), real.shape[1]), dtype=bool)
    rows = np.arange(len(THRESHOLDS))
    best_crowd = ious[:, crowd].max(axis=1, initial=-1.0)
    for place in range(count):
        if real.shape[1]:
            overlap = np.where(free, real[place], -1.0)
            last = real.shape[1] - 1 - overlap[:, ::-1].argmax(axis=1)
            is_true[:, place] = overlap[rows, last] >= least
            free[rows[is_true[:, place]], last[is_true[:, place]]] = False
        on_crowd[:, place] = ~is_true[:, place] & (best_crowd[place] >= least)
    return is_true, ~is_true & ~on_crowd


def average_precisions(
    matches: Sequence[Matches], times: Float64[np.ndarray, "draws images"]
) -> Float64[np.ndarray, "draws thresholds"]:
    """AP at every IoU, averaged over the categories that occur, when each image is there so many times.

    As COCO defines it: precision is read at 101 recalls, each time the largest at that recall or a higher one. NaN for
    a draw without objects.
    """
    total = np.zeros((len(times), len(THRESHOLDS)))
    occurs = np.zeros(len(times))
    for own in matches:
        objects = times @ own.objects
        weight = times[:, own.image]
        has_objects = objects > 0
        occurs += has_objects
        for level in range(len(THRESHOLDS)):
            true = np.cumsum(weight * own.is_true[level], axis=1)
            false = np.cumsum(weight * own.is_false[level], axis=1)
            precision = true / (true + false + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for draw in np.flatnonzero(has_objects):
                places = np.searchsorted(true[draw] / objects[draw], RECALLS, side="left")
                reached = places[places < precision.shape[1]]
                total[draw, level] += precision[draw, reached].sum() / len(RECALLS)
    with np.errstate(invalid="ignore"):
        return total / occurs[:, None]


def bootstrap(
    matches: Sequence[Matches], draws: int, generator: np.random.Generator
) -> dict[str, Float64[np.ndarray, "draws"]]:
    """``ap``, ``ap50`` and ``ap75`` when the images are resampled with replacement, so many times.

    Draws without any object are left out. An image that is drawn twice is ranked like itself, so that the draws lie
    above the figure on average: they are moved by this bias, and tell how far the figure itself would move.
    """
    images = len(matches[0].objects)
    times = generator.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    found = average_precisions(matches, np.concatenate([np.ones((1, images)), times]))
    figure, found = found[:1], found[1:][np.isfinite(found[1:]).all(axis=1)]
    moved = {}
    for name, levels in (("ap", slice(None)), ("ap50", slice(0, 1)), ("ap75", slice(5, 6))):
        values = found[:, levels].mean(axis=1)
        moved[name] = np.clip(values - values.mean() + figure[:, levels].mean(), 0.0, 1.0)
    return moved
