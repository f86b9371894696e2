"""``d3ssl diagnose``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.cli.options import build, make_parser, name_backbones, parse, split_places
from d3ssl.diagnose import DiagnoseConfig, diagnose_backbone


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "diagnose",
        "How much does a backbone's feature of an object depend on its surroundings (context sensitivity) and on its\n"
        "place (position sensitivity)? 0: not at all; 1: as much as on which object it is. What can be read from it\n"
        "of the object's neighbour and place, and how much of what moves it lies outside the object? Objects are\n"
        "cut out by their masks and pasted into controlled contexts and places. Writes OUT/report.html,\n"
        "OUT/diagnosis.json and OUT/probes.png. Definitions: docs/measurements.md.",
        (
            "d3ssl diagnose run/ --data labelled/ --out diagnosis/",
            "d3ssl diagnose timm:resnet50:pretrained --out diagnosis/   (procedural objects)",
            "d3ssl diagnose host/ d3ssl/ --data labelled/ --out both/ --save_probes probes.npz",
            "d3ssl diagnose other/ --probes probes.npz --out other-diagnosis/   (the same probes)",
        ),
        usage="B … [--data DATA] --out DIR [options]",
    )
    what = "B: run folder, exported file, timm:NAME[:pretrained|:FILE] or torchvision:NAME…; several are compared"
    parser.add_argument("--backbone", type=str, action="append", required=True, help=what)
    parser.add_argument("--data", type=str | None, default=None, help="COCO data with masks; none: procedural objects")
    parser.add_argument("--out", type=str, required=True, help="folder for report.html, diagnosis.json and probes.png")
    parser.add_argument("--probes", type=str | None, default=None, help="probes saved by --save_probes, not --data")
    parser.add_argument("--save_probes", type=str | None, default=None, help="save the probes to this .npz file")
    parser.add_class_arguments(DiagnoseConfig)
    options = parse(parser, name_backbones(*split_places(parser, argv)))
    config = build(DiagnoseConfig, options)
    saved = {"probes": options.probes, "save_to": options.save_probes}
    diagnose_backbone(options.backbone, options.data, options.out, config, **saved)
