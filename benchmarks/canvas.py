"""How many photographs of 480×640 a second one core turns into canvases.

    python benchmarks/canvas.py [--seconds 3] [--out canvas.json]

About 30 s at the default. All rows are measured in turns in the same run, so that their ratios hold on a busy machine:

- ``canvas 224``, ``canvas 256``: ``d3ssl.data.images.read_canvas``: one decode, one resize (goal: 300 a second);
- ``PIL decode``: the decode alone, as RGB;
- ``two views, PIL + torchvision``: what SoCo's loader does: decode, then twice RandomResizedCrop(224), flip, colour
  jitter, grey, blur (solarize in the second) and ToTensor. The blur is PIL's: torchvision's is many times slower.

The photographs are those bundled with scikit-image and scikit-learn, scaled and cropped to 480×640, saved as JPEG
(quality 92) in a temporary folder.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch are loaded

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from skimage import data as photographs
from sklearn.datasets import load_sample_images
from torchvision import transforms

from d3ssl.console import say, show_table
from d3ssl.data.images import read_canvas
from d3ssl.data.pil_formats import open_picture
from d3ssl.files import write_json

HEIGHT, WIDTH = 480, 640
NAMES = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
GOAL = 300.0


def write_photographs(folder: Path) -> list[Path]:
    arrays = [getattr(photographs, name)() for name in NAMES] + list(load_sample_images().images)
    paths = []
    for number, array in enumerate(arrays):
        path = folder / f"{number}.jpg"
        ImageOps.fit(Image.fromarray(array).convert("RGB"), (WIDTH, HEIGHT)).save(path, quality=92)
        paths.append(path)
    return paths


def pil_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def soco_view(blur: float, solarize: float) -> transforms.Compose:
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.6, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.Lambda(pil_blur)], p=blur),
            transforms.RandomSolarize(128, p=solarize),
            transforms.ToTensor(),
        ]
    )


def decode(path: Path) -> Image.Image:
    with open_picture(path) as image:
        return image.convert("RGB")


def contestants() -> dict[str, Callable[[Path], object]]:
    first, second = soco_view(1.0, 0.0), soco_view(0.1, 0.2)

    def two_views(path: Path) -> object:
        image = decode(path)
        return first(image), second(image)

    return {
        "canvas 224": lambda path: read_canvas(path, 224),
        "canvas 256": lambda path: read_canvas(path, 256),
        "PIL decode": lambda path: np.asarray(decode(path)),
        "two views, PIL + torchvision": two_views,
    }


def measure(paths: list[Path], seconds: float) -> dict[str, float]:
    """Images per second of each: the median over rounds in which all take turns; CPU time of this process."""
    functions = contestants()
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function(paths[0])  # warm up
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end or len(spent["PIL decode"]) < 3:
        for name, function in functions.items():
            start = time.process_time()
            for path in paths:
                function(path)
            spent[name].append((time.process_time() - start) / len(paths))
    return {name: 1 / float(np.median(times)) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each row")
    parser.add_argument("--out", type=Path, default=None, help="write the rates as JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder))
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        say(f"{len(paths)} photographs of {HEIGHT}×{WIDTH}, {kilobytes:.0f} kB on average")
        rates = measure(paths, options.seconds)
    views, plain = rates["two views, PIL + torchvision"], rates["PIL decode"]
    header = ("", "images/s/core", "÷ two views", "÷ PIL decode")
    rows = [(name, f"{rate:.0f}", f"{rate / views:.1f}", f"{rate / plain:.2f}") for name, rate in rates.items()]
    show_table("480×640 JPEG photographs on one core", header, rows)
    slowest = min(rates["canvas 224"], rates["canvas 256"])
    say(f"goal of {GOAL:.0f} images/s/core: {'reached' if slowest >= GOAL else 'missed'} ({slowest:.0f})")
    if options.out is not None:
        write_json(options.out, rates)


if __name__ == "__main__":
    main()
