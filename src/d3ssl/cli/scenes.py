"""``d3ssl scenes``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from d3ssl.data.scenes import OutOfContextConfig, ScenesConfig, make_scenes
from d3ssl.errors import InputError
from d3ssl.options import build, make_parser, parse

_ABOUT = """\
Make images with several objects in COCO format: OUT/train, OUT/val (the same distribution) and
OUT/val_shuffled (unfamiliar neighbours, uniform positions). Elsewhere, classes have typical neighbours and positions.

Objects are drawn from formulas; or taken from images with transparency (--cutouts DIR); or cut by their masks from
photographs that you have annotated (--from DATA). The last gives out-of-context scenes: known objects on backgrounds
and beside neighbours that they never had. What is shown to train and what is tested on share no object, no photograph
and no background: OUT/manifest.json lists the sources of every image.

DATA has instance masks and a training and a validation part: a folder with train/ and val/ (annotations.json beside
images/), COCO as it is unpacked, or Pascal VOC (its ImageSets/Segmentation/train.txt names the images with masks). One
set without parts is split by --val_share. Backgrounds are the photographs of --backgrounds DIR or, without it, DATA's
own that do not show the pasted classes. Defaults with --from: --size 160 --object_side [0.3,0.6].

How much does a backbone depend on context, on your own data? Remember objects in their own photographs, ask about
others out of context:

  d3ssl scenes OUT --from DATA --train natural --backgrounds DIR
  d3ssl evaluate objects --backbone B --data OUT --out RESULTS

And what is it that it depends on? --conditions true shows the same validation objects, pixel by pixel, in contexts of
which one thing changes at a time. The same evaluation compares them:

  OUT/val             in their own photographs
  OUT/val_replaced    cut out and pasted back: what pasting does by itself
  OUT/val_congruent   at the same place of another photograph that shows their class
  OUT/val_elsewhere   of one that does not: what the background does
  OUT/val_anywhere    on the latter at any place, beside neighbours that they never have

One object is asked about in each image; its neighbours are annotated with iscrowd 1, which evaluations pass over."""
_EXAMPLES = (
    "d3ssl scenes data/scenes --images 6000 --size 128",
    "d3ssl scenes data/photo --cutouts stamps/ --backgrounds wallpapers/ --images 6000 --size 128",
    "d3ssl scenes data/moved --from coco/ --images 6000 --val_images 500",
    "d3ssl scenes data/asked --from coco/ --train natural --backgrounds wallpapers/ --val_images 500",
    "d3ssl scenes data/controlled --from coco/ --conditions true --size 224 --blends [none,feathered,gaussian]",
    "d3ssl scenes data/mine --from photos/annotations.json --val_share 0.2 --classes [cat,dog,cow]",
)
_SHARED = {field.name for field in dataclasses.fields(ScenesConfig)}
_OWN = {field.name: field.default for field in dataclasses.fields(OutOfContextConfig) if field.name not in _SHARED}


def run(argv: Sequence[str]) -> None:
    has_data = any(word == "--from" or word.startswith("--from=") for word in argv)
    options = parse(_parser(has_data), argv)
    make_scenes(options.root, _config(options))


def _parser(has_data: bool) -> ArgumentParser:
    parser = make_parser("scenes", _ABOUT, _EXAMPLES)
    parser.add_argument("root", metavar="OUT", type=str, help="folder to make")
    parser.add_argument("--from", metavar="DATA", type=str | None, default=None, help="data with instance masks")
    parser.add_class_arguments(ScenesConfig)
    parser.add_class_arguments(OutOfContextConfig, skip={"data", *_SHARED})
    if has_data:
        fields = {field.name: field.default for field in dataclasses.fields(OutOfContextConfig)}
        parser.set_defaults({name: fields[name] for name in ("size", "object_side")})
    return parser


def _config(options: Namespace) -> ScenesConfig:
    data = options["from"]
    if data is not None:
        options.data = data
        return build(OutOfContextConfig, options)
    for name, default in _OWN.items():
        if name != "data" and options[name] != default:
            remedy = "name the annotated data: d3ssl scenes OUT --from DATA."
            raise InputError(f"--{name} is about annotated data, and there is no --from", remedy=remedy)
    return build(ScenesConfig, options)
