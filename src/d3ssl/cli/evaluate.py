"""``d3ssl evaluate objects``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.cli.options import build, make_parser, parse
from d3ssl.errors import InputError, nearest
from d3ssl.evaluate import ObjectsConfig, evaluate_objects

TASKS = ("objects",)


def run(argv: Sequence[str]) -> None:
    task = argv[0] if argv and not argv[0].startswith("-") else None
    if task is not None and task not in TASKS:
        raise InputError(f"there is no task '{task}'", remedy=nearest(task, TASKS))
    parser = make_parser(
        "evaluate objects",
        "Classify objects from frozen region features: nearest neighbours (O-KNN) and a linear probe, on ground-truth\n"
        "boxes; with a shuffled split also the context gap. Writes OUT/metrics.json.",
        (
            "d3ssl evaluate objects --backbone run/ --data data/scenes --out evaluation/",
            "d3ssl evaluate objects --backbone timm:resnet18 --data coco/val2017 --out evaluation/random",
        ),
    )
    parser.add_argument(
        "--backbone", type=str, required=True, help="run folder, exported file, or timm:NAME[:pretrained|:FILE]"
    )
    parser.add_argument(
        "--data", type=str, required=True, help="a folder of `d3ssl scenes`, or COCO data with annotations"
    )
    parser.add_argument("--out", type=str, required=True, help="folder for metrics.json")
    parser.add_class_arguments(ObjectsConfig)
    options = parse(parser, argv[1:] if task else argv)
    if task is None:
        raise InputError("which task?", remedy="d3ssl evaluate objects --backbone B --data DATA --out DIR")
    evaluate_objects(options.backbone, options.data, options.out, build(ObjectsConfig, options))
