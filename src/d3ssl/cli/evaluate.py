"""``d3ssl evaluate objects|segmentation|detection``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from d3ssl.errors import InputError, nearest
from d3ssl.options import build, make_parser, name_backbones, parse, split_places
from d3ssl.train.process import choose_device, process_group


@dataclass(frozen=True, slots=True)
class Entry:
    """A task of the command line."""

    module: str
    config: str
    function: str
    what: str
    data: str


TASKS = {
    "objects": Entry(
        "d3ssl.evaluate.objects",
        "ObjectsConfig",
        "evaluate_objects",
        "Name objects from frozen region features: nearest neighbours (O-KNN), a linear probe, few shots, on\n"
        "ground-truth boxes or masks. Under controlled conditions (`d3ssl scenes`), or with a shuffled split,\n"
        "also what is lost when the context changes.",
        "a folder of `d3ssl scenes`, or COCO data with annotations",
    ),
    "segmentation": Entry(
        "d3ssl.evaluate.segmentation",
        "SegmentationConfig",
        "evaluate_segmentation",
        "Name pixels: a linear head and in-context retrieval on frozen maps, or an FCN that is fine-tuned.",
        "a folder of `d3ssl scenes`, COCO data (instances or panoptic), a Pascal VOC or an ADE20K tree",
    ),
    "detection": Entry(
        "d3ssl.evaluate.detection",
        "DetectionConfig",
        "evaluate_detection",
        "Fine-tune a detector (Faster R-CNN; Mask R-CNN where there are masks) from the backbone, the same number of\n"
        "steps for every row, and measure box and mask AP.",
        "a folder of `d3ssl scenes`, or COCO data with annotations",
    ),
}

_USAGE = "usage: d3ssl evaluate TASK B … --data DATA --out DIR [options]\n\n{}\n\nTASK --help explains a task.\n"


def run(argv: Sequence[str]) -> None:
    if argv and argv[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<13} {entry.what.splitlines()[0]}" for name, entry in TASKS.items())
        first = f"examples:\n  d3ssl evaluate objects run/ --data data/scenes --out evaluation/\n\n{listed}"
        sys.stdout.write(_USAGE.format(first))
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        raise InputError("which task?", remedy="d3ssl evaluate objects B --data DATA --out DIR")
    if argv[0] not in TASKS:
        raise InputError(f"there is no task '{argv[0]}'", remedy=nearest(argv[0], TASKS))
    _run_task(argv[0], argv[1:])


def _run_task(task: str, argv: Sequence[str]) -> None:
    entry = TASKS[task]
    module = importlib.import_module(entry.module)
    config = getattr(module, entry.config)
    parser = make_parser(
        f"evaluate {task}",
        f"{entry.what}\nWrites OUT/metrics.json and OUT/report.html. What is finished is kept when called again.",
        (
            f"d3ssl evaluate {task} run/ --data data/scenes --out evaluation/",
            f"d3ssl evaluate {task} run/ other-run/ --baseline random --seeds 3 --data data/scenes --out evaluation/",
            f"d3ssl evaluate {task} timm:resnet18 --data coco/val2017 --out evaluation/random",
        ),
        usage="B … --data DATA --out DIR [options]",
    )
    what = "B: run folder, exported file, timm:NAME[:pretrained|:FILE] or torchvision:NAME…; several are compared"
    parser.add_argument("--backbone", type=str, action="append", required=True, help=what)
    listed = "another backbone to measure beside it, or `random`: the same network with random weights; may be repeated"
    parser.add_argument("--baseline", type=str, action="append", default=[], help=listed)
    parser.add_argument(
        "--seeds", type=int, default=1, help="seeds to measure each backbone with: an interval over them"
    )
    parser.add_argument("--data", type=str, required=True, help=entry.data)
    parser.add_argument("--out", type=str, required=True, help="folder for metrics.json and report.html")
    parser.add_class_arguments(config)
    options = parse(parser, name_backbones(*split_places(parser, argv)))
    backbone, *others = options.backbone
    with process_group(choose_device(options.device)):
        getattr(module, entry.function)(
            backbone,
            options.data,
            options.out,
            build(config, options),
            baselines=[*others, *options.baseline],
            seeds=options.seeds,
        )
