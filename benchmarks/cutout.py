"""Region Collaborative Cutout's share of a training step. Goal: at most 3 % (ResNet-18, 112 px, batch 16, one core).

    python benchmarks/cutout.py [--backbone resnet18] [--size 112] [--batch 16] [--regions 4] [--threads 1]

The step is the barest one: forward and backward of one batch through the backbone alone. The cutout is drawn, made and
applied once to the same batch. Medians over interleaved repeats. Expected: about half a minute.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from timeit import timeit

import timm
import torch

from d3ssl.seeds import torch_generator
from d3ssl.views import region_collaborative_cutout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--regions", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch_generator("benchmark")
    network = timm.create_model(options.backbone, num_classes=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(options.batch, 3, options.size, options.size, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    corner = torch.rand(options.batch, options.regions, 2, generator=generator) * options.size * 0.5
    extent = (0.2 + 0.3 * torch.rand(options.batch, options.regions, 2, generator=generator)) * options.size
    boxes = torch.cat([corner, corner + extent], dim=-1)
    valid = torch.ones(options.batch, options.regions, dtype=torch.bool)

    def step() -> None:
        network.zero_grad()
        network(images).sum().backward()

    def cut() -> torch.Tensor:
        return images * region_collaborative_cutout(boxes, valid, (options.size, options.size), 0.3, generator)

    steps, cuts = [], []
    for repeat in range(options.repeats + 2):
        taken = timeit(step, number=1), timeit(cut, number=1)
        if repeat >= 2:  # the first ones warm up
            steps.append(taken[0])
            cuts.append(taken[1])
    shares = [one / other for one, other in zip(cuts, steps, strict=True)]
    lines = [
        f"{options.backbone}, {options.size} px, batch {options.batch}, {options.regions} regions, "
        f"{options.threads} thread(s), torch {torch.__version__}, {options.repeats} repeats",
        f"forward and backward  {statistics.median(steps) * 1000:8.2f} ms",
        f"cutout                {statistics.median(cuts) * 1000:8.2f} ms",
        f"share                 {statistics.median(shares):8.2%}  [{min(shares):.2%}, {max(shares):.2%}]   goal <= 3 %",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
