"""``d3ssl posttrain``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from d3ssl.options import build, make_parser, parse, split_places
from d3ssl.posttraining import posttrain_run, set_strength
from d3ssl.train import RunConfig
from d3ssl.train.pretrain import show_plan
from d3ssl.train.recipe import add_run, name_data

_EXAMPLES = (
    "d3ssl posttrain photos/ --backbone timm:resnet50:pretrained --out run/",
    "d3ssl posttrain photos/ --backbone timm:efficientnet_lite0:weights.pth --out run/ --train.steps 800",
    "d3ssl posttrain photos/ --backbone run/ --out better/ --method.decouple true --dry_run",
    "d3ssl posttrain coco/train2017 --backbone run/ --out better/ --proposals.method annotations",
    "d3ssl posttrain --out run/ --strength 0.25     # another strength of a finished run, in seconds",
)


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "posttrain",
        "Better dense features from the weights you have, on your own unlabelled images. A frozen copy of the start\n"
        "sees each region alone, the trained network sees it in its surroundings. Then the weights are interpolated\n"
        "between start and end, at the strength that does best on held-out images: features of objects on unfamiliar\n"
        "backgrounds gain, those in their own photographs do not lose. If nothing helps, the start is exported.",
        _EXAMPLES,
        usage="DATA --backbone B --out RUN [options]",
    )
    if any(word.partition("=")[0] == "--strength" for word in argv):
        _set_strength(parser, argv)
        return
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last checkpoint")
    parser.add_argument("--backbone", type=str, help="weights to start from; the same as --model.weights")
    parser.add_argument("--strength", type=float, help="of a finished run, 0 (start) .. 1 (end); takes --out alone")
    parser.add_argument("--dry_run", action="store_true", help="show the plan of the method, check it, and stop")
    has_file = any(word.partition("=")[0] in ("--recipe", "--config") for word in argv)
    words = add_run(parser, [*([] if has_file else ["--recipe", "posttrain"]), *argv])
    words = [re.sub(r"^--backbone(?==|$)", "--model.weights", word) for word in words]
    options = parse(parser, name_data(*split_places(parser, words), "posttrain"))
    config = build(RunConfig, options)
    if options.dry_run:
        show_plan(config)
        return
    posttrain_run(config, resume=options.resume)


def _set_strength(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--out", type=str, required=True)
    parser.add_argument("--strength", type=float, required=True)
    options = parse(parser, argv)
    set_strength(options.out, options.strength)
