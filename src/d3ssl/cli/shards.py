"""``d3ssl shards pack``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from d3ssl.data.shards.pack import pack_shards
from d3ssl.errors import InputError, nearest
from d3ssl.options import DATA_HELP, make_parser, parse

_USAGE = """usage: d3ssl shards pack DATA --out DIR [--size 1GB]

Tar shards in the WebDataset layout: few large files instead of many small ones, read in place wherever DATA is taken.

examples:
  d3ssl shards pack photos/ --out shards/
  d3ssl pretrain shards/ --out run/

d3ssl shards pack --help explains the options.
"""


def run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        raise SystemExit(0)
    if argv[0] != "pack":
        raise InputError(f"shards has no action '{argv[0]}'", remedy=nearest(argv[0], ["pack"]))
    _pack(argv[1:])


def _pack(argv: Sequence[str]) -> None:
    parser = make_parser(
        "shards pack",
        "Pack images into tar shards: the same bytes under the same ids, so regions files and the order of training\n"
        "stay as they are. annotations.json is copied beside. DIR appears when it is whole; a packing that was\n"
        "stopped goes on when it is called again.",
        (
            "d3ssl shards pack photos/ --out shards/",
            "d3ssl shards pack data/scenes/train --out shards/train --size 200MB",
        ),
    )
    parser.add_argument("data", metavar="DATA", type=str, help=DATA_HELP)
    parser.add_argument("--out", type=str, required=True, help="folder to make")
    parser.add_argument("--size", type=str, default="1GB", help="largest shard: a number and KB, MB, GB, KiB, MiB, GiB")
    options = parse(parser, argv)
    pack_shards(options.data, options.out, options.size)
