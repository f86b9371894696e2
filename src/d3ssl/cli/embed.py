"""``d3ssl embed``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.embedding import EmbedConfig, embed
from d3ssl.options import DATA_HELP, build, make_parser, parse


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "embed",
        "Features of images (the mean of a map) or of regions (boxes or masks), in the order of the data, in a\n"
        "Parquet file that pandas, polars and DuckDB read. A run that was stopped continues with --resume and gives\n"
        "the same file. Columns and examples: docs/embed.md.",
        (
            "d3ssl embed run/ photos/ --out features.parquet",
            "d3ssl embed timm:resnet50:pretrained photos/ --out features.parquet --size 224 --dtype float16",
            "d3ssl embed run/ labelled/ --out objects.parquet --of masks --level -2",
            "d3ssl embed run/ photos/ --out regions.parquet --regions found.parquet   (of d3ssl regions)",
        ),
        usage="B DATA --out FILE.parquet [options]",
    )
    what = "run folder, exported file, timm:NAME[:pretrained|:FILE], torchvision:NAME… or hf:PATH"
    parser.add_argument("backbone", metavar="B", type=str, help=what)
    parser.add_argument("data", metavar="DATA", type=str, help=DATA_HELP)
    parser.add_argument("--out", type=str, required=True, help="the Parquet file to write")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_class_arguments(EmbedConfig)
    options = parse(parser, argv)
    embed(options.backbone, options.data, options.out, build(EmbedConfig, options), resume=options.resume)
