"""``d3ssl doctor``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.run import run_doctor
from d3ssl.options import DATA_HELP, build, make_parser, parse
from d3ssl.train import RunConfig
from d3ssl.train.recipe import add_run


def run(argv: Sequence[str]) -> int:
    parser = make_parser(
        "doctor",
        "Look through a data set before money is spent on it: files that cannot be read, duplicates, sizes, channels,\n"
        "annotations, objects per image, how far neighbours and positions predict an object's class, and what a run\n"
        "would cost. Takes the options of `d3ssl pretrain`: what is fine for one recipe may fail in another.\n"
        "Exit status: 1 if training would fail (says which check, and the remedy), 0 otherwise, 2 for wrong options.",
        (
            "d3ssl doctor photos/",
            "d3ssl doctor coco/annotations/instances_train2017.json --recipe coco-r50-c4 --sample 5000 --out health/",
            "d3ssl doctor photos/ --regions regions.parquet --time --json health.json",
        ),
    )
    parser.add_argument("data", metavar="DATA", type=str, help=DATA_HELP)
    parser.add_argument("--out", type=str | None, default=None, help="folder for report.html and doctor.json")
    parser.add_argument("--json", type=str | None, default=None, help="file to write what doctor.json holds to")
    parser.add_argument("--time", action="store_true", help="train some steps here, for the run's time and memory")
    parser.add_class_arguments(DoctorConfig, skip={"time"})
    words = add_run(parser, argv, skip={"data", "out"})
    options = parse(parser, words)
    out, options.out = options.out, ""  # the run has no folder yet
    return int(run_doctor(options.data, build(RunConfig, options), build(DoctorConfig, options), out, options.json))
