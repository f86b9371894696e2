"""``d3ssl quickstart``: the whole pipeline in minutes, from scenes to a report."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

import d3ssl
from d3ssl.cli.report import MEASURES, Row, cell, verdict, write_report
from d3ssl.cli.views import draw_views
from d3ssl.console import say, show_table
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.diagnose import DiagnoseConfig, diagnose_backbone
from d3ssl.errors import InputError
from d3ssl.evaluate import ObjectsConfig, evaluate_objects
from d3ssl.files import digest, read_json, write_json
from d3ssl.options import build, make_parser, parse, read_recipe
from d3ssl.regions.compute import compute_regions
from d3ssl.train import RunConfig, pretrain, read_log, training_seconds
from d3ssl.train.recipe import run_config


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """The size of the demonstration."""

    out: str = "quickstart"
    """Folder for everything that is made; report.html is its result."""
    images: int = 3000
    """Training scenes; val and val_shuffled have 500 each."""
    val_images: int = 500
    """Scenes in each of val and val_shuffled."""
    steps: int | None = None
    """Training steps of each run; None: the recipe's."""
    cutouts: str | None = None
    """Folder of RGBA cut-outs: photographic scenes instead of procedural ones (see `d3ssl scenes --help`)."""
    backgrounds: str | None = None
    """Folder of photographs for the backgrounds of photographic scenes."""
    seed: int = 0
    """Decides scenes, weights, views and probes."""


def run(argv: Sequence[str]) -> None:
    parser = make_parser(
        "quickstart",
        "Make scenes, compute regions, train the host and D3SSL with the same budget, evaluate and diagnose both\n"
        "beside random initialisation, and write OUT/report.html. Seven to nine minutes on two CPU cores. Run again\n"
        "after a stop: finished stages are kept.",
        ("d3ssl quickstart", "d3ssl quickstart --out photo --cutouts stamps/ --backgrounds wallpapers/"),
    )
    parser.add_class_arguments(QuickstartConfig)
    quickstart(build(QuickstartConfig, parse(parser, argv)))


def quickstart(config: QuickstartConfig) -> Path:
    """Run every stage that is not finished yet. Returns the path of the report."""
    out, begin = Path(config.out), time.monotonic()
    _claim(out, config)
    scenes, regions = out / "scenes", out / "regions.parquet"
    timings: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        say(f"\n[{time.monotonic() - begin:4.0f} s] {name}")
        start = time.monotonic()
        result = work()
        timings[name] = time.monotonic() - start
        return result

    stage("scenes", lambda: make_scenes(scenes, _scenes_config(config)))
    host, ours = (_run_config(config, out, scenes, regions, both) for both in (False, True))
    stage("regions", lambda: compute_regions(open_images(scenes / "train"), ours.proposals, regions))
    stage("views", lambda: draw_views(ours, 4, out / "views"))
    stage("training the host", lambda: _train(host))
    stage("training D3SSL", lambda: _train(ours))
    specs = {"random init": f"timm:{ours.model.backbone}:random:{config.seed}", "host": host.out, "D3SSL": ours.out}
    metrics = {
        name: stage(f"measuring {name}", lambda n=name: _measure(specs[n], n, ours, scenes, out)) for name in specs
    }
    rows = [
        Row(name="random init", metrics=metrics["random init"]),
        *(_trained(name, metrics[name], run) for name, run in (("host", host), ("D3SSL", ours))),
    ]
    total = time.monotonic() - begin
    write_json(out / "results.json", {"rows": {r.name: r.metrics for r in rows}, "seconds": total, "stages": timings})
    report = out / "report.html"
    write_report(report, rows, _pictures(out), _facts(config, ours, timings, total))
    table = [[m.title, *(cell(row, m) for row in rows)] for m in MEASURES]
    show_table("value [95 % interval]", ["", *(row.name for row in rows)], table)
    for line in verdict(rows):
        say(line)
    say(f"\n{total / 60:.1f} minutes. Open {report}")
    return report


def _claim(out: Path, config: QuickstartConfig) -> None:
    """Stages of another configuration are never mixed with this one's."""
    wanted = {name: getattr(config, name) for name in config.__dataclass_fields__ if name != "out"}
    wanted |= {"version": d3ssl.__version__, "recipe": digest(read_recipe("quickstart"))}
    known = out / "quickstart.json"
    if known.exists() and read_json(known) != wanted:
        raise InputError(
            "holds a quickstart with other options", path=out, remedy="choose another --out, or remove this one."
        )
    if not known.exists():
        write_json(known, wanted)


def _scenes_config(config: QuickstartConfig) -> ScenesConfig:
    return ScenesConfig(
        images=config.images, val_images=config.val_images, size=96, cutouts=config.cutouts,
        backgrounds=config.backgrounds, seed=config.seed,
    )  # fmt: skip


def _run_config(config: QuickstartConfig, out: Path, scenes: Path, regions: Path, modules: bool) -> RunConfig:
    """The recipe ``quickstart``, with both modules or neither."""
    words = ["--recipe", "quickstart", "--data", str(scenes / "train"), "--regions", str(regions)]
    words += ["--out", str(out / ("d3ssl" if modules else "host")), "--train.seed", str(config.seed)]
    words += ["--method.decouple", str(modules).lower(), "--method.deposition", str(modules).lower()]
    if config.steps is not None:
        words += ["--train.steps", str(config.steps)]
    return run_config(words)


def _train(config: RunConfig) -> None:
    folder = Path(config.out)
    if (folder / "backbone.safetensors").exists():
        say(f"finished already: {folder}")
        return
    pretrain(config, resume=folder.is_dir())


def _trained(name: str, metrics: dict[str, Any], run: RunConfig) -> Row:
    lines = read_log(run.out)
    return Row(name=name, metrics=metrics, log=lines, seconds=training_seconds(lines, run.train.batch_size))


def _measure(spec: str, name: str, run: RunConfig, scenes: Path, out: Path) -> dict[str, Any]:
    """Evaluation and diagnosis of one backbone, at the size that the runs see."""
    folder = out / "measured" / name.replace(" ", "-").lower()
    written = [folder / "objects" / "metrics.json", folder / "diagnosis" / "diagnosis.json"]
    if all(path.exists() for path in written):
        say(f"finished already: {folder}")
        return read_json(written[0]) | read_json(written[1])
    reading: Any = {"region_path": run.host.region_path, "roi_size": run.host.roi_size}  # random init has none
    objects = ObjectsConfig(size=run.views.size, seed=run.train.seed, **reading)
    metrics = evaluate_objects(spec, str(scenes), str(folder / "objects"), objects)
    probes = DiagnoseConfig(size=run.views.size, seed=run.train.seed, layers=False, **reading)
    return metrics | diagnose_backbone(spec, str(scenes / "val"), str(folder / "diagnosis"), probes)


def _pictures(out: Path) -> list[tuple[str, Path]]:
    views = [
        (f"Image {n}: the canvas with its candidate and chosen regions, then the views as the networks see them.", path)
        for n, path in enumerate(sorted((out / "views").glob("view_*.png"))[:3], start=1)
    ]
    probes = out / "measured" / "d3ssl" / "diagnosis" / "probes.png"
    return [*views, ("Probes: the same object in several contexts, and at several places.", probes)]


def _facts(config: QuickstartConfig, run: RunConfig, timings: dict[str, float], total: float) -> dict[str, str]:
    return {
        "data": f"{config.images} training scenes of 96 px, {config.val_images} in each of val and val_shuffled"
        + (", photographic" if config.cutouts else ", procedural"),
        "backbone": f"timm {run.model.backbone}, {run.views.size} px views, {run.train.batch_size} images per step",
        "steps": str(run.train.steps),
        "seed": str(config.seed),
        "time": f"{total:.0f} s in all: " + ", ".join(f"{name} {taken:.0f} s" for name, taken in timings.items()),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "versions": f"d3ssl {d3ssl.__version__}, torch {torch.__version__}, timm {timm.__version__}, "
        f"Python {platform.python_version()}",
    }
