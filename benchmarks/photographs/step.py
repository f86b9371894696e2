"""What a step of post-training costs with the teacher's rows kept, as ratios measured in one run.

    python -m benchmarks.photographs.step DATA [--backbone timm:efficientnet_lite0:random] [--threads 1] [--repeats 7]

DATA: images, with annotations or without; their regions are the whole recipe's (``contrast``). Prints the CPU time of a
step with kept rows (all of them known) ÷ one that recomputes them, and ÷ the forward and backward passes of the bare
student on the same number of views. Medians over interleaved repeats.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from d3ssl.data.sources import open_images
from d3ssl.memory import keep_freed_memory
from d3ssl.models import load_backbone
from d3ssl.regions.compute import compute_regions
from d3ssl.train.config import num_steps
from d3ssl.train.loader import CanvasDataset, Loaded, collate
from d3ssl.train.loop import Trainer
from d3ssl.train.recipe import recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--backbone", default="timm:efficientnet_lite0:random")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command does
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    trainers, images = {}, open_images(options.data)
    regions = None
    for name, keep in (("kept", True), ("computed", False)):
        config = recipe(
            "posttrain", data=options.data, out=str(folder / name), runtime__keep_rows=keep, canvas__held_out=0
        )
        regions = regions or compute_regions(images, config.proposals, folder / "regions.parquet")
        dataset = CanvasDataset(images, regions, config.canvas, 0, masks=True)
        trainers[name] = Trainer(
            config, dataset, num_steps(config.train, len(dataset)), torch.device("cpu"), load_backbone(options.backbone)
        )
    count = trainers["kept"].config.train.batch_size
    batches = [collate([dataset[n * count + own] for own in range(count)]) for n in range(2)]
    steps = {name: step_of(trainer, batches) for name, trainer in trainers.items()}
    steps["bare"] = bare_step(trainers["kept"])
    for step in steps.values():
        for _ in batches:
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            times[name].append(time.process_time() - begin)
    for other in ("computed", "bare"):
        ratios = sorted(a / b for a, b in zip(times["kept"], times[other], strict=True))
        middle = statistics.median(ratios)
        sys.stdout.write(f"kept ÷ {other}: {middle:.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]\n")
    sys.stdout.write(f"a step with kept rows: {statistics.median(times['kept']):.2f} s of CPU\n")


def step_of(trainer: Trainer, batches: list[Loaded]) -> Callable[[], object]:
    source = itertools.cycle(batches)
    return lambda: trainer.train_step(source)


def bare_step(trainer: Trainer) -> Callable[[], object]:
    """Forward and backward of the student's network alone, on views of the same sizes."""
    plan, backbone = trainer.config.plan, trainer.learner.backbone
    seen = [view for view, heads in trainer.learner.student_heads.items() if heads]
    images = [torch.randn(trainer.config.train.batch_size, 3, plan.views[v].size, plan.views[v].size) for v in seen]

    def step() -> None:
        sum((backbone.maps(own)[-1].mean() for own in images), torch.zeros(())).backward()

    return step


if __name__ == "__main__":
    main()
