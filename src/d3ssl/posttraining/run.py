"""``d3ssl posttrain``: start → train → strength → report."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from d3ssl.console import progress, say, show_table, warn
from d3ssl.contracts import CanvasBatch
from d3ssl.data.sources import name_of, open_images
from d3ssl.diagnose import Monitor
from d3ssl.errors import D3sslError, InputError
from d3ssl.files import read_json, write_json
from d3ssl.models.artifact import save_backbone, save_like_source, start_digest
from d3ssl.models.backbone import Backbone
from d3ssl.models.interpolation import interpolate
from d3ssl.models.load import load_backbone, start_backbone
from d3ssl.posttraining.report import write_report
from d3ssl.posttraining.strength import STRENGTHS, Probes, Retrieval, propose
from d3ssl.regions.table import RegionTable
from d3ssl.train import RunConfig, checkpoint, pretrain
from d3ssl.train.loader import CanvasDataset, collate
from d3ssl.train.loop import Trainer
from d3ssl.train.pretrain import manifest_of
from d3ssl.train.recipe import recipe

METRICS = "metrics.json"
_BATCH = 16


def posttrain_run(
    config: RunConfig, *, resume: bool = False, data: Any = None, backbone: Backbone | None = None
) -> Path:
    """Post-train, choose the strength on held-out images, and write RUN/backbone.safetensors at that strength.

    Args:
        config: with ``model.weights``; its plan has a frozen teacher.
        data: a data set from Python, instead of what ``config.data`` names.
        backbone: the start, instead of ``model.weights``; left as it is.

    Returns:
        The run's folder, with metrics.json (the frontier) and report.html.

    Raises:
        D3sslError: anything the user can put right, before the training where possible.
    """
    if config.model.weights is None and backbone is None:
        remedy = "name the weights to start from: a run, a file, timm:NAME:pretrained, timm:NAME:FILE."
        raise InputError("post-training starts from weights, but none are given", remedy=remedy)
    if not config.plan.is_frozen:
        remedy = "use --recipe posttrain, or `d3ssl pretrain` for this method."
        raise InputError(f"the teacher of '{config.plan.title}' is not frozen", remedy=remedy)
    images = open_images(config.data if data is None else data)
    held_out = min(config.canvas.held_out, len(images) // 5)
    config = dataclasses.replace(config, canvas=dataclasses.replace(config.canvas, held_out=held_out))
    start = None if backbone is None else copy.deepcopy(backbone)
    monitor = Monitor(config.views.size, channels=config.canvas.channels)
    measure = None if config.runtime.diagnose_every is None else monitor
    return pretrain(
        config, resume=resume, measure=measure, data=images, backbone=start, finish=partial(_finish, monitor)
    )


def set_strength(run: str | Path, strength: float) -> Path:
    """Write RUN/backbone.safetensors of a finished run at another strength, 0 (the start) to 1 (the end).

    Raises:
        InputError: not a run of ``posttrain``, or not a finished one.
        CheckpointError: the weights that it started from have changed.
    """
    folder = Path(run)
    if not (folder / METRICS).is_file() or not (folder / checkpoint.NAME).is_file():
        remedy = "give the folder of a finished `d3ssl posttrain`, with its checkpoint.pt."
        raise InputError("is not a finished run of posttrain", path=folder, remedy=remedy)
    state = checkpoint.read(folder)
    start, end = (
        {key.removeprefix(prefix): value for key, value in state["learner"].items() if key.startswith(prefix)}
        for prefix in ("teacher.backbone.net.", "student.backbone.net.")
    )
    manifest, model = read_json(folder / "manifest.json"), state["config"]["model"]
    if manifest.get("library") == "module" or model["weights"] is None:
        remedy = "interpolate the state dicts yourself: d3ssl.models.interpolate."
        raise InputError("the run trained a module given from Python", path=folder, remedy=remedy)
    network = start_backbone(model["backbone"], model["weights"], manifest["in_channels"]).eval()
    checkpoint.check_start(folder, state, start_digest(network), model["weights"])
    network.net.load_state_dict(interpolate(start, end, strength))
    _export(folder, network, {key: manifest[key] for key in manifest if key != "weights_sha256"}, strength)
    write_json(folder / METRICS, read_json(folder / METRICS) | {"strength": strength})
    return folder


def _finish(
    monitor: Monitor, run: Path, config: RunConfig, trainer: Trainer, data_digest: str, regions: RegionTable
) -> None:
    """What follows the training, in the first process."""
    start, end = trainer.learner.teacher.backbone, trainer.learner.student.backbone
    size, plan = config.views.size, config.plan
    reader = next(iter(plan.objectives.values())).reader
    batches = _held_out(config, trainer, regions)
    frontier: list[Retrieval] = []
    try:
        probes = Probes(batches, start, reader, plan.regions, size)
    except InputError as error:
        warn(f"no strength is proposed: {error.problem}; the start is exported", error.remedy)
        chosen = 0.0
    else:
        frontier = measure_frontier(probes, start, end)
        chosen = propose(frontier)
        rows = [[f"{own.strength:g}", f"{own.familiar:.1%}", f"{own.unfamiliar:.1%}"] for own in frontier]
        show_table(f"{probes.count} held-out regions found again", ["strength", "familiar", "unfamiliar"], rows)
    network = at_strength(start, end, chosen)
    found: dict[str, Any] = {"strength": chosen, "frontier": [dataclasses.asdict(own) for own in frontier]}
    for name, own in (("start", start), ("exported", network)):
        try:
            found[name] = monitor(own)
        except D3sslError as error:
            warn(f"no diagnosis of the {name}: {error.problem}")
    write_json(run / METRICS, found)
    write_report(run / "report.html", found, start, network, batches[:1], size)
    say(_verdict(chosen, frontier))
    say(f"report: {run / 'report.html'}")
    _export(run, network, manifest_of(config, trainer, data_digest), chosen)


def _export(run: Path, network: Backbone, manifest: dict[str, Any], strength: float) -> None:
    """The backbone for d3ssl and timm, and the weights in the form in which they came, for whatever loaded them."""
    ending = ".pth" if network.source.format == "torch.save" else ".safetensors"
    save_like_source(network, run / f"weights{ending}")
    save_backbone(run, network, manifest | {"strength": strength})
    written = f"{run / 'backbone.safetensors'}, and {run / f'weights{ending}'} in the form of the start's weights"
    say(f"strength {strength:g}: {written}")


def _verdict(chosen: float, frontier: list[Retrieval]) -> str:
    if chosen == 0:
        return "no strength above 0 helps on the held-out images: the start is exported unchanged"
    start, best = (next(own for own in frontier if own.strength == s) for s in (0.0, chosen))
    return (
        f"strength {chosen:g}: on other photographs {best.unfamiliar:.1%} of the held-out regions are found again, "
        f"{start.unfamiliar:.1%} before; in their own {best.familiar:.1%}, {start.familiar:.1%} before"
    )


def measure_frontier(probes: Probes, start: Backbone, end: Backbone) -> list[Retrieval]:
    """Both ends at every strength."""
    found = []
    with progress("choosing the strength", len(STRENGTHS) * len(probes.sets)) as ticker:
        for strength in STRENGTHS:
            familiar, unfamiliar = probes.measure(at_strength(start, end, strength), ticker.advance)
            found.append(Retrieval(strength=strength, familiar=familiar, unfamiliar=unfamiliar))
    return found


def at_strength(start: Backbone, end: Backbone, strength: float) -> Backbone:
    """A copy of the end with weights between the start's and its own (WiSE-FT, arXiv 2109.01903)."""
    network = copy.deepcopy(end)
    network.net.load_state_dict(interpolate(start.net.state_dict(), end.net.state_dict(), strength))
    return network.eval()


def _held_out(config: RunConfig, trainer: Trainer, regions: RegionTable) -> list[CanvasBatch]:
    if not config.canvas.held_out:
        return []
    dataset = CanvasDataset(
        trainer.dataset.images,
        regions,
        config.canvas,
        config.train.seed,
        masks=trainer.dataset.masks,
        held_out=True,
    )
    batches = []
    for first in range(0, len(dataset) - 1, _BATCH):
        loaded = collate([dataset[number] for number in range(first, min(first + _BATCH, len(dataset)))])
        if isinstance(loaded, InputError):
            raise loaded
        if len(loaded.batch.canvas) > 1:
            batches.append(loaded.batch)
    return batches


def posttrain(
    backbone: str | Path | torch.nn.Module, data: Any, out: str | Path | None = None, **options: Any
) -> Backbone:
    """Better dense features from the weights you have, on your own unlabelled images.

    Args:
        backbone: what ``load_backbone`` takes; a module is left as it is.
        data: a folder of images, or any data that d3ssl reads; also a ``torch.utils.data.Dataset``.
        out: the run's folder; None: nothing is kept.
        options: over those of the recipe ``posttrain``, with dots as two underscores: ``train__steps=800``.

    Returns:
        The backbone at the strength that the held-out images proposed (0: the start), in evaluation mode.

    Raises:
        D3sslError: anything the user can put right.
    """
    start = load_backbone(backbone) if isinstance(backbone, torch.nn.Module) else None
    if start is None:
        options["model__weights"] = str(backbone)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run" if out is None else Path(out)
        config = recipe("posttrain", data=name_of(data), out=str(run), **options)
        posttrain_run(config, data=data, backbone=start)
        return load_backbone(run)
