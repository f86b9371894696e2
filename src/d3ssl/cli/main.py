"""The command line. Only the module of the wanted command is imported, so that help is there at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from d3ssl import __version__
from d3ssl.console import console
from d3ssl.errors import D3sslError, nearest
from d3ssl.memory import keep_freed_memory

COMMANDS = {
    "quickstart": "see it all in 9 minutes: scenes, regions, host and D3SSL, evaluation, report.html",
    "scenes": "make images with several objects: procedural, from cut-outs, or from annotated photographs",
    "shards": "pack images into tar shards, which are read in place wherever images are taken",
    "doctor": "look through a data set before money is spent on it: what would fail, what is biased",
    "regions": "find the regions that stand for objects, once, into a Parquet file",
    "views": "draw what a run would be trained on, one picture an image",
    "posttrain": "better dense features from the weights you have, on your own unlabelled images",
    "pretrain": "train a backbone on unlabelled images",
    "export": "write a backbone in another tool's format, verified by loading it there",
    "evaluate": "measure backbones on a task, side by side: objects, segmentation, detection",
    "embed": "features of images or regions into a Parquet file, in the order of the data",
    "benchmark": "build, download and verify OpenImage-MINI from the metadata of Open Images",
    "diagnose": "measure how much a backbone's region features depend on context and on place",
}


def usage() -> str:
    lines = [
        "usage: d3ssl COMMAND [options]        d3ssl COMMAND --help explains a command",
        "",
        "De-coupled and de-positioned dense self-supervised learning: pre-train a visual backbone on unlabelled",
        "images with several objects in, and measure any backbone.",
        "",
        *(f"  {name:<11} {text}" for name, text in COMMANDS.items()),
        "",
        "From a folder of images to a backbone for timm, in three commands:",
        "",
        "  d3ssl views photos/ --out pictures/                       look at what is trained on",
        "  d3ssl pretrain photos/ --out run/ --train.epochs 100",
        "  d3ssl diagnose run/ --out diagnosis/",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, or 2 after an error of the user's making; doctor has 1 too."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage() + "\n")
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"d3ssl {__version__}\n")
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise D3sslError(f"there is no command '{argv[0]}'", remedy=nearest(argv[0], COMMANDS))
        keep_freed_memory()
        return importlib.import_module(f"d3ssl.cli.{argv[0]}").run(argv[1:]) or 0
    except D3sslError as error:
        # Not broken where the window ends, so that paths and commands can be copied.
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
