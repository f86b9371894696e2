"""What ``d3ssl embed`` takes beside the bare forward pass, and how many images it embeds in a minute.

    python benchmarks/embed.py [--images 512] [--rounds 3] [--backbone timm:resnet18] [--size 128]

About 3 minutes on two cores. In every round, in turns, so that the ratio holds on a busy machine; the ratio of CPU time
(all threads) is what embed costs where no core is free for its decoding:

- ``bare forward``: ``backbone.maps`` of batches that are in memory already, normalised;
- ``embed``: everything, from JPEG files to the Parquet file, with blocks of 256 images.

Goal: 2,000 images per minute at 128 px on two cores, or within 10 % of the bare forward pass. The images are smooth
random pictures of 320×240 px, saved as JPEG (quality 90) in a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import d3ssl
from d3ssl.console import say, show_table
from d3ssl.data.images import read_canvas
from d3ssl.embedding import EmbedConfig
from d3ssl.evaluate.encode import to_images
from d3ssl.evaluate.features import frozen
from d3ssl.files import write_json
from d3ssl.memory import keep_freed_memory
from d3ssl.models import Backbone

BATCH = 64


def write_images(folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for path in paths:
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def bare_forward(backbone: Backbone, batches: list[torch.Tensor]) -> np.ndarray:
    """Wall time and CPU time, s."""
    with frozen(backbone, torch.device("cpu")):
        begin = _now()
        for images in batches:
            backbone.maps(images)
        return _now() - begin


def whole(backbone: Backbone, folder: Path, out: Path, size: int) -> np.ndarray:
    """Wall time and CPU time, s."""
    config = EmbedConfig(size=size, batch_size=BATCH, device="cpu")
    begin = _now()
    d3ssl.embed(backbone, folder, out, config)
    return _now() - begin


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="timm:resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON to this file")
    options = parser.parse_args()
    keep_freed_memory()
    backbone = d3ssl.load_backbone(options.backbone)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        canvases = np.stack([read_canvas(path, options.size)[0] for path in write_images(folder, options.images)])
        batches = [to_images(backbone, canvases[start : start + BATCH]) for start in range(0, len(canvases), BATCH)]
        bare_forward(backbone, batches[:2])
        bare, embedded = [], []
        for number in range(options.rounds):
            bare.append(bare_forward(backbone, batches))
            embedded.append(whole(backbone, folder, Path(name) / f"{number}.parquet", options.size))
    ratios = (np.array(embedded) / np.array(bare)).T
    rates = {
        key: 60 * options.images / float(np.median(own, 0)[0]) for key, own in (("bare", bare), ("embed", embedded))
    }
    rows = [
        ("bare forward", f"{rates['bare']:.0f}", "1.00", "1.00"),
        ("embed", f"{rates['embed']:.0f}", *map(_range, ratios)),
    ]
    title = f"{options.backbone} at {options.size} px, {torch.get_num_threads()} threads, {options.rounds} rounds"
    show_table(title, ("", "images/min", "time ÷ bare forward", "CPU time ÷ bare forward"), rows)
    reached = rates["embed"] >= 2000 or float(np.median(ratios[0])) <= 1.1
    say(f"goal: {'reached' if reached else 'missed'}")
    if options.out is not None:
        write_json(options.out, {"images_per_minute": rates, "ratios": ratios.tolist()})


def _range(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


if __name__ == "__main__":
    main()
