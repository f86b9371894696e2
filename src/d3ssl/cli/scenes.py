"""``d3ssl scenes``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.cli.options import build, make_parser, parse
from d3ssl.data.scenes import ScenesConfig, make_scenes


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "scenes",
        "Make images with several objects in COCO format: OUT/train, OUT/val (the same distribution) and\n"
        "OUT/val_shuffled (no co-occurrence, uniform places). As in photographs, classes keep company and places.",
        (
            "d3ssl scenes data/scenes --images 6000 --size 128",
            "d3ssl scenes data/photo --cutouts stamps/ --backgrounds wallpapers/ --images 6000 --size 128",
        ),
    )
    parser.add_argument("root", metavar="OUT", type=str, help="folder to make")
    parser.add_class_arguments(ScenesConfig)
    options = parse(parser, argv)
    make_scenes(options.root, build(ScenesConfig, options))
