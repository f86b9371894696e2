"""Reading images from tar shards against reading them from files, and the time to index a shard.

    python -m benchmarks.shards [--images 400] [--members 100000] [--seconds 4] [--out shards.json]

About 20 s at the default, on one core. Files and shards take turns in the same run, in the same shuffled order, so that
the ratios hold on a busy machine; the disk's cache is warm for both (cold disks and networks favour shards, which open
few files). The photographs are those of benchmarks/canvas.py, 480×640 JPEG.

- ``canvas``: ``read_canvas`` at 224 px: what training does for an image (goal: at least 0.95 of the files' rate);
- ``header``: ``image_size``: hardly more than opening, so that the cost of a shard itself shows;
- ``index``: reading the headers of a tar of many small members, and reading the index that is kept (wall time).
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is loaded

import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.canvas import write_photographs
from d3ssl.console import say, show_table
from d3ssl.data.images import image_size, read_canvas
from d3ssl.data.place import Place
from d3ssl.data.shards.index import make_index, read_index
from d3ssl.data.shards.pack import pack_shards
from d3ssl.data.sources import open_images
from d3ssl.files import write_json

GOAL = 0.95
Images = Sequence[Place]


def write_data(folder: Path, count: int) -> tuple[Images, Images]:
    """The same images as files and in shards, in a shuffled order."""
    (folder / "photos").mkdir()
    (folder / "files").mkdir()
    photographs = write_photographs(folder / "photos")
    for number in range(count):
        shutil.copy(photographs[number % len(photographs)], folder / "files" / f"{number:06d}.jpg")
    pack_shards(folder / "files", folder / "shards", "20MB")
    order = np.random.default_rng(0).permutation(count)
    files, shards = open_images(folder / "files"), open_images(folder / "shards")
    return files.subset(order).paths, shards.subset(order).paths


def rates(
    files: Sequence[Place], shards: Sequence[Place], read: Callable[[Place], object], seconds: float
) -> list[float]:
    """Images per second from files and from shards: medians over rounds in turns; CPU time of this process."""
    spent: list[list[float]] = [[], []]
    block, begin, end = 50, 0, time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent[0]) < 4:
        for places, times in zip((files, shards), spent, strict=True):
            chosen = places[begin : begin + block]
            start = time.process_time()
            for place in chosen:
                read(place)
            times.append((time.process_time() - start) / len(chosen))
        begin = begin + block if begin + 2 * block <= len(files) else 0
    return [1 / float(np.median(times)) for times in spent]


def index_seconds(folder: Path, members: int) -> tuple[float, float]:
    """Seconds to read all headers of a tar, and to read its index."""
    path = folder / "many.tar"
    with open(path, "wb") as file:
        for number in range(members):
            info = tarfile.TarInfo(f"{number:08d}.jpg")
            info.size = 100
            file.write(info.tobuf(tarfile.PAX_FORMAT) + bytes(512))
        file.write(bytes(1024))
    start = time.perf_counter()
    found = make_index(path)
    middle = time.perf_counter()
    again = read_index(path)
    assert again is not None and len(found) == len(again) == members
    return middle - start, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each row, files and shards together")
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files, shards = write_data(Path(folder), options.images)
        canvas = rates(files, shards, lambda place: read_canvas(place, 224), options.seconds)
        header = rates(files, shards, image_size, options.seconds / 2)
        scanned, kept = index_seconds(Path(folder), options.members)
    rows = [(name, f"{a:.0f}", f"{b:.0f}", f"{b / a:.3f}") for name, (a, b) in (("canvas", canvas), ("header", header))]
    show_table("images/s/core", ("", "files", "shards", "shards ÷ files"), rows)
    per = 100_000 / options.members
    say(f"index of 100,000 members: {per * scanned:.2f} s from the headers, {per * kept:.3f} s from the kept index")
    ratio = canvas[1] / canvas[0]
    say(f"goal of {GOAL} of the files' rate: {'reached' if ratio >= GOAL else 'missed'} ({ratio:.3f})")
    if options.out is not None:
        found = {"canvas": canvas, "header": header, "index_s": per * scanned, "kept_index_s": per * kept}
        write_json(options.out, found)


if __name__ == "__main__":
    main()
