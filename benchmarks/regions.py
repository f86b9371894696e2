"""How many regions are objects, and how many objects are found, by method: on data with instance masks.

    python -m benchmarks.regions DATA [--images 300] [--size 192]

DATA is anything with objects and masks (docs/data.md), such as the training split of `d3ssl scenes`. Prints a line per
method: regions per image; boxes: the share that lie on an object (IoU 0.5 or more, precision) and the share of objects
that a box lies on (recall); the same for the label map, with the share of segments of which at least 0.7 are pixels of
one object (purity); and seconds per image on one core, beside those of selective search in the same run.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

from benchmarks.selective_search import overlaps
from d3ssl.data.sources import open_images
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.find import find_in_file

METHODS: dict[str, dict[str, Any]] = {
    "selective-search": {},
    "selective-search, 16 an image": {"max_regions": 16},
    "felzenszwalb": {},
    "slic": {},
    "grid": {},
    "contrast 0.7": {"contrast_min": 0.7},
    "contrast 0.8": {},
    "contrast 0.9": {"contrast_min": 0.9},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--size", type=int, default=192)
    options = parser.parse_args()
    images = open_images(options.data)
    chosen = np.linspace(0, len(images) - 1, min(options.images, len(images))).astype(int).tolist()
    truth = [find_in_file(images, index, RegionsConfig(method="annotations", size=options.size)) for index in chosen]
    sys.stdout.write(f"{len(chosen)} images, {sum(len(t.boxes) for t in truth)} objects\n")
    columns = "regions | boxes: precision recall | masks: precision recall purity | s/image ÷ first"
    sys.stdout.write(f"{'':<30} {columns}\n")
    first = 0.0
    for name, more in METHODS.items():
        config = RegionsConfig(method=name.split(" ")[0].rstrip(","), size=options.size, **more)  # type: ignore[arg-type]
        find_in_file(images, chosen[0], config)  # compiled at the first call
        begin = time.perf_counter()
        found = [find_in_file(images, index, config) for index in chosen]
        seconds = (time.perf_counter() - begin) / len(chosen)
        first = first or seconds
        boxes = [overlaps(f.boxes, t.boxes) for f, t in zip(found, truth, strict=True)]
        line = f"{name:<30} {np.mean([len(f.boxes) for f in found]):7.1f} |        {_rates(boxes)}"
        if found[0].labels is not None:
            tables = [_shared(f.labels, t.labels) for f, t in zip(found, truth, strict=True)]
            masks = [_iou(table) for table in tables]
            pure = [t[1:, 1:].max(1, initial=0) / t[1:].sum(1) >= 0.7 for t in tables]
            line += f" |        {_rates(masks)} {np.concatenate(pure).mean():6.2f}"
        else:
            line += " |" + " " * 29
        sys.stdout.write(f"{line} | {seconds / first:.2f}\n")
        sys.stdout.flush()


def _shared(labels: np.ndarray | None, truth: np.ndarray | None) -> np.ndarray:
    """Pixels that a segment and an object have in common."""
    assert labels is not None and truth is not None and labels.shape == truth.shape
    table = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(table, (labels.ravel(), truth.ravel()), 1)
    return table[np.r_[True, table[1:].sum(1) > 0]]


def _iou(table: np.ndarray) -> np.ndarray:
    common = table[1:, 1:]
    return common / np.maximum(table[1:].sum(1)[:, None] + table[:, 1:].sum(0)[None] - common, 1)


def _rates(iou: list[np.ndarray]) -> str:
    precision = np.concatenate([table.max(1, initial=0) >= 0.5 for table in iou]).mean()
    recall = np.concatenate([table.max(0, initial=0) >= 0.5 for table in iou]).mean()
    return f"{precision:9.2f} {recall:6.2f}"


if __name__ == "__main__":
    main()
