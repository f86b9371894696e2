"""``d3ssl views``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d3ssl.console import progress, say, warn
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.files import write_atomically
from d3ssl.options import DATA_HELP, build, make_parser, parse
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.table import check_regions, read_regions
from d3ssl.seeds import Draws
from d3ssl.train import RunConfig
from d3ssl.train.loader import CanvasDataset, collate
from d3ssl.train.loop import make_backbone
from d3ssl.train.recipe import add_run
from d3ssl.views import ViewMaker
from d3ssl.views.draw import draw_view_set


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "views",
        "Draw all views of some images with their regions, one picture per image: what a run is trained on.\n"
        "Takes the options of `d3ssl pretrain`, so that the pictures show views of the kind the run will see.",
        (
            "d3ssl views photos/ --out pictures/",
            "d3ssl views photos/ --out pictures/ --regions regions.parquet --recipe quickstart --images 16",
        ),
    )
    parser.add_argument("data", metavar="DATA", type=str, help=DATA_HELP)
    parser.add_argument("--images", type=int, default=8, help="number of images to draw (at least 2)")
    words = add_run(parser, argv, skip={"data"})
    options = parse(parser, words)
    config = build(RunConfig, options)
    draw_views(config, max(2, options.images), Path(config.out))


def draw_views(config: RunConfig, count: int, out: Path) -> list[Path]:
    """Write OUT/view_0000.png, …: ``count`` images with one draw of their views, as a batch of their own."""
    images = open_images(config.data)
    if config.regions is None:
        few = images.subset(range(min(count, len(images))))
        compute_regions(few, config.proposals, out / "regions.parquet")
        images, table = few, read_regions(out / "regions.parquet")
    else:
        table = read_regions(config.regions)
        check_regions(table, images)
    plan = config.plan
    say(plan.table())
    dataset = CanvasDataset(images, table, config.canvas, config.train.seed, masks=plan.needs_masks)
    loaded = collate([dataset[number] for number in range(min(count, len(dataset)))])
    if isinstance(loaded, InputError):
        raise loaded
    for message in loaded.bad:
        warn(f"skipped: {message}")
    batch = loaded.batch
    backbone = make_backbone(config)
    views = ViewMaker(plan.views, plan.regions, backbone.mean, backbone.std)
    made = views(batch, Draws(seed=config.train.seed))
    paths = []
    with progress("drawing", len(batch.canvas)) as ticker:
        for number in range(len(batch.canvas)):
            path = out / f"view_{number:04d}.png"
            with write_atomically(path) as temporary:
                draw_view_set(batch, made, backbone.mean, backbone.std, number).save(temporary, format="PNG")
            paths.append(path)
            ticker.advance()
    say(f"{len(paths)} pictures in {out}")
    return paths
