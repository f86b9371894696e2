"""``d3ssl regions``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from d3ssl.data.mask_files import with_masks
from d3ssl.data.sources import open_images
from d3ssl.options import DATA_HELP, build, make_parser, parse
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "regions",
        "Find the regions that stand for objects and keep them in a Parquet file (readable with pandas).\n"
        "A run that was stopped goes on where it was; the result does not depend on the number of workers.",
        (
            "d3ssl regions photos/ --out regions.parquet",
            "d3ssl regions photos/ --out regions.parquet --method contrast --workers 8",
            "d3ssl regions photos/ --out regions.parquet --masks sam.json",
            "d3ssl regions shards/ --out regions.parquet --ray auto",
        ),
    )
    parser.add_argument("data", metavar="DATA", type=str, help=DATA_HELP)
    parser.add_argument("--out", type=str, required=True, help="the Parquet file to write")
    where = "address of a running Ray cluster (host:port or auto) whose nodes do the work; they read DATA at this path"
    parser.add_argument("--ray", type=str | None, metavar="ADDRESS", default=None, help=where)
    masks = "take these masks as the regions: a COCO file (results or instances), or a folder of PNGs of numbers"
    parser.add_argument("--masks", type=str | None, metavar="MASKS", default=None, help=masks)
    parser.add_class_arguments(RegionsConfig)
    options = parse(parser, argv)
    images, config = open_images(options.data), build(RegionsConfig, options)
    if options.masks is not None:
        images, config = with_masks(images, options.masks), replace(config, method="annotations")
    compute_regions(images, config, options.out, options.ray)
