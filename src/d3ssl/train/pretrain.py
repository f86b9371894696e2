"""``d3ssl pretrain``: from a folder of images to ``backbone.safetensors``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import yaml

import d3ssl
from d3ssl.console import say, warn
from d3ssl.data.image_set import ImageSet
from d3ssl.data.place import changed_at
from d3ssl.data.sources import open_images
from d3ssl.distributed import barrier, collective_device, gather_rows, rank, world_size
from d3ssl.errors import InputError, first_names
from d3ssl.files import digest, make_folder, write_text
from d3ssl.memory import keep_freed_memory
from d3ssl.models.artifact import save_backbone
from d3ssl.models.backbone import Backbone
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.table import RegionTable, check_regions, image_changes, read_regions
from d3ssl.train import checkpoint
from d3ssl.train.config import RunConfig, as_dict, check, num_steps
from d3ssl.train.enough_regions import check_enough_regions
from d3ssl.train.loader import CanvasDataset, masks_travel
from d3ssl.train.lock import lock_run
from d3ssl.train.loop import BackboneMeasure, Trainer, describe, make_backbone
from d3ssl.train.optimizer import check_optimizer
from d3ssl.train.process import StopSignal, choose_device, process_group, torchrun_rank
from d3ssl.train.region_kinds import check_proposals
from d3ssl.train.schedule import num_warmup_steps
from d3ssl.train.step_memory import check_memory

Finish = Callable[[Path, RunConfig, Trainer, str, RegionTable], None]
"""What the first process does after the last step, given the run's folder, the digest of the data, and the regions."""


def pretrain(
    config: RunConfig,
    resume: bool = False,
    measure: BackboneMeasure | None = None,
    *,
    data: Any = None,
    backbone: Backbone | None = None,
    finish: Finish | None = None,
) -> Path:
    """Train and write ``RUN/backbone.safetensors`` with ``RUN/manifest.json``.

    Args:
        config: the whole configuration; it is saved as RUN/config.yaml.
        resume: continue from RUN/checkpoint.pt; with none there (stopped before the first save), start.
        measure: what is looked at every ``runtime.diagnose_every`` steps, such as ``d3ssl.diagnose.Monitor(...)``; the
            first process calls it.
        data: a data set from Python (docs/data.md), instead of what ``config.data`` names; to continue, give it again.
        backbone: the start, trained in place, instead of what ``config.model`` says.
        finish: what is done after the last step; None: the backbone is written.

    Returns:
        The run's folder.

    Raises:
        D3sslError: anything the user can put right, before the training where possible.
        SystemExit: with 128 + the signal's number when stopped by SIGTERM or SIGINT, after a checkpoint was saved.
    """
    check_before(config)
    if (config.runtime.diagnose_every is None) != (measure is None):
        remedy = "give both, such as measure=d3ssl.diagnose.Monitor(...), or neither."
        raise InputError("runtime.diagnose_every and pretrain's measure go together", remedy=remedy)
    device = choose_device(config.runtime.device)
    if device.type == "cpu":
        keep_freed_memory()
    run = Path(config.out)
    images = open_images(config.data if data is None else data)
    try_parts(config, len(images), backbone)
    with _claim(run, resume):
        # Nothing of the run is written before its checkpoint is found to fit.
        state = checkpoint.load(run, config) if resume and checkpoint.exists(run) else None
        return _train(config, images, run, device, state, measure, backbone, finish or _write_backbone)


def _train(
    config: RunConfig,
    images: ImageSet,
    run: Path,
    device: torch.device,
    state: dict[str, Any] | None,
    measure: BackboneMeasure | None,
    backbone: Backbone | None,
    finish: Finish,
) -> Path:
    """``pretrain`` in a folder that is its own, from a checkpoint if there is one."""
    regions = _regions(config, images, run, state)
    with StopSignal() as stop, process_group(device, config.runtime.patience):
        masks = masks_travel(config.plan, regions)
        dataset = CanvasDataset(images, regions, config.canvas, config.train.seed, masks=masks)
        if state is None:
            check_enough_regions(config, dataset)
        data_digest = _data_digest(images, regions)
        _check_same(data_digest)
        trainer = Trainer(config, dataset, num_steps(config.train, len(dataset)), device, backbone)
        if state is not None:
            start = config.model.weights or "the backbone given from Python"
            checkpoint.check_start(run, state, trainer.start_digest, start)
            trainer.restore(state)
        check_memory(trainer, dataset)
        if rank() == 0:
            write_text(run / "config.yaml", yaml.safe_dump(as_dict(config), sort_keys=False))
            describe(config, trainer)
        finished = trainer.run(run, stop, data_digest, measure)
        if finished and rank() == 0:
            finish(run, config, trainer, data_digest, regions)
        barrier()
    if not finished:
        say(f"stopped at step {trainer.step} of {trainer.steps}; continue with --resume")
        sys.exit(128 + (stop.received or 15))
    return run


@contextmanager
def _claim(run: Path, resume: bool) -> Iterator[None]:
    """Refuse to write into a folder which holds another run, or into which another training writes."""
    if resume and not run.is_dir():
        raise InputError("there is no run to resume", path=run, remedy="check --out, or leave out --resume.")
    make_folder(run)
    with lock_run(run) if torchrun_rank()[0] == 0 else nullcontext():
        names = ("config.yaml", checkpoint.NAME, checkpoint.PREVIOUS)
        if not resume and torchrun_rank()[0] == 0 and any((run / name).exists() for name in names):
            remedy = "continue it with --resume, or choose another --out."
            raise InputError("holds a run already", path=run, remedy=remedy)
        if torchrun_rank()[0] == 0:
            for torn in run.glob(f".{checkpoint.NAME}.*.tmp"):  # of a process killed while it saved
                torn.unlink(missing_ok=True)
        yield


def check_before(config: RunConfig) -> None:
    """Refuse what cannot work, before any image is read.

    Raises:
        InputError: with the key and the remedy.
    """
    check(config, torchrun_rank()[1])
    if config.regions is None:
        check_proposals(config.plan, config.proposals)


def try_parts(config: RunConfig, num_images: int, backbone: Backbone | None = None) -> None:
    """Make the backbone, the optimiser and the schedule once: wrong options are told before long work starts."""
    config.plan.check_backbone(backbone or make_backbone(config))
    check_optimizer(config.optimizer)
    num_warmup_steps(num_steps(config.train, num_images), config.schedule)


def show_plan(config: RunConfig) -> None:
    """Say what would be trained, after the checks that a run begins with; no image is read.

    Raises:
        InputError: the run could not begin.
    """
    check_before(config)
    backbone = make_backbone(config)
    config.plan.check_backbone(backbone)
    say(f"{config.plan.table()}\n  backbone: {backbone.timm_name}")


def _check_same(data_digest: str) -> None:
    """All processes read the same images and regions, or all of them stop."""
    seen = gather_rows(torch.tensor([int(data_digest[:12], 16)]).to(collective_device()))
    if (seen != seen[0]).any():
        remedy = "give all machines the same data and the same --regions file, on a shared disk or copied."
        raise InputError("the processes read different images or regions", remedy=remedy)


def _data_digest(images: ImageSet, regions: RegionTable) -> str:
    return digest(images.digest(), str(regions.metadata.get("digest", "")))


def _regions(config: RunConfig, images: ImageSet, run: Path, state: dict[str, Any] | None) -> RegionTable:
    """The given regions file, or RUN/regions.parquet, computed by the first process while the others wait for it.

    Args:
        state: the checkpoint that the run continues from; the regions are those that it was trained with.
    """
    path = Path(config.regions) if config.regions is not None else run / "regions.parquet"
    is_made = state is not None and _is_readable(path)
    if config.regions is None and torchrun_rank()[0] == 0 and not is_made:
        compute_regions(images, config.proposals, path)
    while config.regions is None and not path.exists():  # torchrun ends this process if the first one fails
        time.sleep(0.5)
    table = read_regions(path)
    if state is not None:
        known = _data_digest(images, table)
        checkpoint.check_data(run, state, known, image_changes(table, images, are_all=config.regions is None))
        if config.regions is None:
            _warn_of_newer(images, path)
    check_regions(table, images)
    return table


def _warn_of_newer(images: ImageSet, regions: Path) -> None:
    """Images of the same sizes in bytes count as the same: say where they were written after the run had begun."""
    began = changed_at(regions)
    newer = [name for name, path in zip(images.ids, images.paths, strict=True) if changed_at(path) > began]
    if newer and torchrun_rank()[0] == 0:
        problem = f"{len(newer)} of {len(images)} images were written after the run had begun: {first_names(newer)}"
        remedy = "none if they only were copied; if what they show has changed, restore them or choose another --out."
        warn(problem, remedy)


def _is_readable(path: Path) -> bool:
    try:
        read_regions(path)
    except InputError:
        return False
    return True


def _write_backbone(run: Path, config: RunConfig, trainer: Trainer, data_digest: str, regions: RegionTable) -> None:
    learner = trainer.learner
    network = learner.student if config.train.export == "student" else learner.teacher
    save_backbone(run, network.backbone, manifest_of(config, trainer, data_digest))
    say(f"backbone: {run / 'backbone.safetensors'}")


def manifest_of(config: RunConfig, trainer: Trainer, data_digest: str) -> dict[str, Any]:
    """What a run's manifest.json says beside what the backbone knows."""
    return {
        "input_size": config.views.size,
        "steps": trainer.step,
        "images": len(trainer.dataset),
        "processes": world_size(),
        "config_digest": digest(yaml.safe_dump(as_dict(config))),
        "data_digest": data_digest,
        "start_digest": trainer.start_digest,
        "versions": {
            "d3ssl": d3ssl.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
    }
