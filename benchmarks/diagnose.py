"""What a diagnosis costs: time and memory of about 1,000 probe images through one backbone, all measurements.

    python benchmarks/diagnose.py [--backbone timm:resnet50] [--size 224] [--probes 1000] [--threads 2]

Prints: images of probes, seconds for making them, for features (every layer, by box and by mask, and gradients), for
measuring; and the process's peak memory. Goal: 1,000 probes through a ResNet-50 at 224 px in under 6 minutes on two
cores, in under 4 GB. Procedural objects.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time

import torch

from d3ssl.diagnose import DiagnoseConfig, build_probes
from d3ssl.diagnose.collect import Collector
from d3ssl.diagnose.cutouts import procedural_images
from d3ssl.diagnose.diagnosis import Options
from d3ssl.models import load_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="timm:resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = DiagnoseConfig(size=options.size, seeds=1)
    conditions = config.contexts + config.grid**2
    each = conditions * (1 + len(config.other_sides)) + 2 * config.neighbour_classes
    config = DiagnoseConfig(size=options.size, seeds=1, objects=-(-options.probes // each))
    backbone = load_backbone(options.backbone)
    begin, cpu = time.perf_counter(), time.process_time()
    with procedural_images(0) as images:
        probes = build_probes(images, config, 0)
    made = time.perf_counter()
    collector = Collector(backbone, Options(gradient_objects=config.gradient_objects))
    collector.add(probes)
    read = time.perf_counter()
    found = collector.finish()
    done = time.perf_counter()
    count = sum(probe.boxes[..., 0].size for _, probe in probes.probes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = [
        f"{options.backbone}, {options.size} px, {options.threads} thread(s), torch {torch.__version__}, "
        f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        f"{count} probe images of {len(probes.labels)} objects, {len(found.layers)} layers by box and by mask, "
        f"gradients of {min(config.gradient_objects, len(probes.labels))} objects",
        f"making probes   {made - begin:7.1f} s",
        f"features        {read - made:7.1f} s",
        f"measuring       {done - read:7.1f} s",
        f"all             {done - begin:7.1f} s   goal < 360 s for 1,000",
        f"processor time  {time.process_time() - cpu:7.1f} s",
        f"peak memory     {peak:7.2f} GB  goal < 4 GB",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
