"""``d3ssl pretrain``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.options import build, make_parser, parse, split_places
from d3ssl.train import RunConfig, pretrain
from d3ssl.train.pretrain import show_plan
from d3ssl.train.recipe import add_run, name_data


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "pretrain",
        "Train a backbone on unlabelled images. RUN/backbone.safetensors loads into plain timm.",
        (
            "d3ssl pretrain photos/ --out run/ --train.epochs 100",
            "d3ssl pretrain photos/ --out run/ --recipe scenes-photo --model.backbone resnet18",
            "d3ssl pretrain photos/ --out run/ --method.host NAME --dry_run",
            "d3ssl pretrain photos/ --out run/ --resume",
            "torchrun --nproc-per-node 8 -m d3ssl pretrain coco/train2017 --out run/ --recipe coco-r50-c4",
        ),
        usage="DATA --out RUN [options]",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last checkpoint")
    words = add_run(parser, argv)
    parser.add_argument("--dry_run", action="store_true", help="show the plan of the method, check it, and stop")
    options = parse(parser, name_data(*split_places(parser, words), "pretrain"))
    config = build(RunConfig, options)
    if options.dry_run:
        show_plan(config)
        return
    monitor = None
    if config.runtime.diagnose_every is not None:
        from d3ssl.diagnose import Monitor

        monitor = Monitor(config.views.size, channels=config.canvas.channels)
    pretrain(config, resume=options.resume, measure=monitor)
