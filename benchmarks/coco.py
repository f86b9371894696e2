"""Reading and checking a COCO file against parsing its JSON alone. Goal: at most three times as long.

    python benchmarks/coco.py [--objects 20000] [--repeats 7]

Polygons of 12 corners, 7 objects per image, made up. Repeats are interleaved. Expected: about ten seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np

from d3ssl.data.coco import read_coco

_AS_USED = "gc.enable()"  # which timeit turns off: a file of many objects makes the collector work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    parsing, reading = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.json"
        path.write_text(json.dumps(made_up(options.objects)))
        for _ in range(options.repeats):
            parsing.append(timeit(lambda: json.loads(path.read_text()), _AS_USED, number=1))
            reading.append(timeit(lambda: read_coco(path), _AS_USED, number=1))
    ratios = [own / other for own, other in zip(reading, parsing, strict=True)]
    lines = [
        f"{options.objects} objects, {options.repeats} repeats",
        f"parsing the JSON      {statistics.median(parsing) * 1000:8.1f} ms",
        f"reading and checking  {statistics.median(reading) * 1000:8.1f} ms",
        f"ratio                 {statistics.median(ratios):8.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]   goal <= 3",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def made_up(objects: int) -> dict[str, Any]:
    """The content of a file of instances: images 0, 1, …, objects 1, 2, … of class 4."""
    polygons = np.round(np.random.default_rng(0).random((objects, 24)) * 40, 2).tolist()
    images = [
        {"id": index, "file_name": f"{index:06d}.jpg", "height": 50, "width": 50} for index in range(objects // 7 + 1)
    ]
    annotations = [
        {
            "id": index + 1,
            "image_id": index // 7,
            "category_id": 4,
            "bbox": [1.5, 2.25, 30.0, 40.0],
            "segmentation": [polygon],
            "iscrowd": 0,
            "area": 100.5,
        }
        for index, polygon in enumerate(polygons)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "thing"}]}


if __name__ == "__main__":
    main()
