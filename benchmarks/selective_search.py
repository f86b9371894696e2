"""Selective search against OpenCV's: speed on one core and recall, in the same run.

    python benchmarks/selective_search.py                              (7 photographs, about half a minute)
    python benchmarks/selective_search.py --photos FOLDER --limit 40   (about 3 s a photograph)

Reference: OpenCV's "fast" mode at short side 480 px. Recall: share of its boxes, after SoCo's filter, that one of ours
overlaps with IoU ≥ 0.5; mean over the images. Ours pass the same filter and are cut to the default 64 an image; without
the cut and at other sizes for comparison. Our times are those of the process (all that ``d3ssl regions`` does for an
image, from the JPEG of 480 px on); compiling is left out. Goal: 15 images/s/core at recall 0.93.

OpenCV's selective search is in opencv-contrib-python-headless only, which d3ssl does not need. Without a folder, the
photographs that come with scikit-image and scikit-learn are used.

Measured (29 photographs: those seven and 22 desktop wallpapers; one core of a busy Xeon): OpenCV 0.41 images/s;
default 21.7 images/s at recall 0.977 with 61 boxes per image (worst image 0.909).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from d3ssl.console import progress, show_table
from d3ssl.data.images import read_reduced
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.filters import soco_filter
from d3ssl.regions.find import find_in_file

REFERENCE_SIDE = 480
RUNS = {
    "default": RegionsConfig(),
    "default, not cut to 64": RegionsConfig(max_regions=255),
    "256 px": RegionsConfig(size=256),
    "128 px": RegionsConfig(size=128),
    "192 px, Lab only": RegionsConfig(colours="lab"),
}


def opencv_boxes(image: np.ndarray) -> np.ndarray:
    """OpenCV's boxes (n, 4) xyxy of an RGB image."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]

        cv2.setNumThreads(1)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()  # type: ignore[attr-defined]
    except (ImportError, AttributeError) as error:
        remedy = (
            "install opencv-contrib-python-headless into an environment of its own, without any other OpenCV wheel: "
            "the plain wheel silently removes this function."
        )
        raise D3sslError(f"OpenCV's selective search does not work here ({error})", remedy=remedy) from error
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    search.switchToSelectiveSearchFast()
    boxes = search.process().astype(np.float32)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of all pairs (n, m)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common)


def bundled_photographs() -> Iterator[np.ndarray]:
    """Photographs that need no download."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    yield from (data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0])
    yield from load_sample_images().images


def photographs(folder: str | None, limit: int) -> Iterator[np.ndarray]:
    """RGB photographs of short side 480 px."""
    if folder is None:
        found = bundled_photographs()
    else:
        images = open_images(folder)
        step = max(1, len(images) // limit)
        found = (read_reduced(path, REFERENCE_SIDE)[0] for path in images.paths[::step][:limit])
    for array in found:
        image = Image.fromarray(array if array.shape[2] == 3 else np.repeat(array[..., :1], 3, axis=2))
        scale = REFERENCE_SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        yield np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder of photographs; default: those of scikit-image and scikit-learn")
    parser.add_argument("--limit", type=int, default=40, help="most photographs, spread evenly over the folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        references, seconds, boxes_all = [], 0.0, []
        pictures = list(photographs(options.photos, options.limit))
        with progress("OpenCV", len(pictures)) as ticker:
            for number, picture in enumerate(pictures):
                start = time.process_time()
                boxes = opencv_boxes(picture)
                seconds += time.process_time() - start
                references.append(boxes[soco_filter(boxes, picture.shape[:2], RUNS["default"])])
                boxes_all.append(len(references[-1]))
                Image.fromarray(picture).save(Path(folder) / f"{number:04d}.jpg", quality=92)
                ticker.advance()
        speed = len(pictures) / seconds
        rows = [("OpenCV fast, 480 px", f"{1000 / speed:.0f}", f"{speed:.2f}", f"{np.mean(boxes_all):.0f}", "", "", "")]
        rows += [measure(name, config, folder, references) for name, config in RUNS.items()]
    header = ("", "ms/image", "images/s/core", "boxes", "recall@0.5", "worst image", "mean IoU")
    show_table(f"Selective search, {len(pictures)} photographs", header, rows)


def measure(name: str, config: RegionsConfig, folder: str, references: list[np.ndarray]) -> tuple[str, ...]:
    """One row of the table."""
    images = open_images(folder)
    find_in_file(images, 0, config)  # compile
    seconds, recalls, means, counts = 0.0, [], [], []
    with progress(name, len(images)) as ticker:
        for index, reference in enumerate(references):
            start = time.process_time()
            boxes = find_in_file(images, index, config).boxes
            seconds += time.process_time() - start
            best = overlaps(reference, boxes).max(axis=1)
            recalls.append((best >= 0.5).mean())
            means.append(best.mean())
            counts.append(len(boxes))
            ticker.advance()
    speed = len(images) / seconds
    figures = (np.mean(recalls), np.min(recalls), np.mean(means))
    shown = (f"{figure:.3f}" for figure in figures)
    return (name, f"{1000 / speed:.0f}", f"{speed:.1f}", f"{np.mean(counts):.0f}", *shown)


if __name__ == "__main__":
    try:
        main()
    except D3sslError as error:
        sys.exit(str(error))
