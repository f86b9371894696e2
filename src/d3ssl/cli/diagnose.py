"""``d3ssl diagnose``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.cli.options import build, make_parser, parse
from d3ssl.diagnose import DiagnoseConfig, diagnose_backbone


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "diagnose",
        "How much does a backbone's feature of an object depend on its surroundings (context sensitivity) and on its\n"
        "place (position sensitivity)? 0: not at all; 1: as much as on which object it is. Objects are cut out by\n"
        "their masks and pasted into controlled contexts and places. Writes OUT/diagnosis.json and OUT/probes.png.",
        (
            "d3ssl diagnose --backbone run/ --data labelled/ --out diagnosis/",
            "d3ssl diagnose --backbone timm:resnet50:pretrained --out diagnosis/   (procedural objects)",
        ),
    )
    what = "run folder, exported file, or timm:NAME[:pretrained|:FILE]"
    parser.add_argument("--backbone", type=str, required=True, help=what)
    parser.add_argument("--data", type=str | None, default=None, help="COCO data with masks; none: procedural objects")
    parser.add_argument("--out", type=str, required=True, help="folder for diagnosis.json and probes.png")
    parser.add_class_arguments(DiagnoseConfig)
    options = parse(parser, argv)
    diagnose_backbone(options.backbone, options.data, options.out, build(DiagnoseConfig, options))
