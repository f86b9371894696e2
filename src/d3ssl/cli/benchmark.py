"""``d3ssl benchmark openimage-mini build|verify|download``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from d3ssl.data.open_images.build import build_benchmark
from d3ssl.data.open_images.config import BuildConfig
from d3ssl.data.open_images.download import DownloadConfig, download_images
from d3ssl.data.open_images.verify import VerifyConfig, verify_benchmark
from d3ssl.errors import InputError, nearest
from d3ssl.options import build, make_parser, parse

BENCHMARK = "openimage-mini"
_USAGE = f"""usage: d3ssl benchmark {BENCHMARK} build|verify|download [options]

OpenImage-MINI: images with several objects of several classes, chosen from Open Images by a published rule.

examples:
  d3ssl benchmark {BENCHMARK} build --metadata openimages/ --out mini/
  d3ssl benchmark {BENCHMARK} download mini/ --base_url URL
  d3ssl benchmark {BENCHMARK} verify mini/

d3ssl benchmark {BENCHMARK} build --help explains build, and so on.
"""


def run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        _explain()
    if argv[0] != BENCHMARK:
        raise InputError(f"there is no benchmark '{argv[0]}'", remedy=nearest(argv[0], [BENCHMARK]))
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        _explain()
    if argv[1] not in _ACTIONS:
        raise InputError(f"{BENCHMARK} has no action '{argv[1]}'", remedy=nearest(argv[1], _ACTIONS))
    _ACTIONS[argv[1]](argv[2:])


def _explain() -> None:
    sys.stdout.write(_USAGE)
    raise SystemExit(0)


def _build(argv: Sequence[str]) -> None:
    parser = make_parser(
        f"benchmark {BENCHMARK} build",
        "Choose images from the metadata of Open Images and write lists, COCO annotations, figures and a data card.\n"
        "No image is fetched. The same metadata and options give the same lists on every machine.",
        (
            f"d3ssl benchmark {BENCHMARK} build --metadata openimages/ --out mini/",
            f"d3ssl benchmark {BENCHMARK} build --metadata openimages/ --out tiny/ --images 1000 --test_images 0",
        ),
    )
    metadata = "folder with class-descriptions-boxable.csv, {train,validation,test}-annotations-bbox.csv(.gz), masks"
    parser.add_argument("--metadata", type=str, required=True, help=metadata)
    parser.add_argument("--out", type=str, required=True, help="folder to make; it appears when it is finished")
    parser.add_class_arguments(BuildConfig)
    options = parse(parser, argv)
    build_benchmark(options.metadata, options.out, build(BuildConfig, options))


def _verify(argv: Sequence[str]) -> None:
    parser = make_parser(
        f"benchmark {BENCHMARK} verify",
        "Check a benchmark: checksums, lists against annotations, and images where they are downloaded.",
        (f"d3ssl benchmark {BENCHMARK} verify mini/",),
    )
    parser.add_argument("root", metavar="DIR", type=str, help="folder that build made")
    parser.add_class_arguments(VerifyConfig)
    options = parse(parser, argv)
    verify_benchmark(options.root, build(VerifyConfig, options))


def _download(argv: Sequence[str]) -> None:
    parser = make_parser(
        f"benchmark {BENCHMARK} download",
        "Fetch the listed images into DIR/SPLIT/images and write the annotations in their pixels.\n"
        "What is there is not fetched again; what is missing at the end is listed in DIR/missing.txt.",
        (f"d3ssl benchmark {BENCHMARK} download mini/ --base_url URL --splits '[train]' --workers 16",),
    )
    parser.add_argument("root", metavar="DIR", type=str, help="folder that build made")
    parser.add_class_arguments(DownloadConfig)
    options = parse(parser, argv)
    download_images(options.root, build(DownloadConfig, options))


_ACTIONS: dict[str, Callable[[Sequence[str]], None]] = {"build": _build, "verify": _verify, "download": _download}
