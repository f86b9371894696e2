"""What the planned run would cost: time, measured on a sample on this machine, memory and disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d3ssl.console import progress
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.data.processes import num_cores
from d3ssl.doctor.check import Check
from d3ssl.errors import D3sslError, InputError
from d3ssl.memory import free_memory
from d3ssl.methods import Learner
from d3ssl.regions.find import compile_method, encode_png, find_in_file
from d3ssl.regions.table import RegionTable, read_regions
from d3ssl.train import RunConfig
from d3ssl.train.config import num_steps
from d3ssl.train.loader import CanvasDataset, StepSampler, loading
from d3ssl.train.loop import Trainer, make_backbone
from d3ssl.train.optimizer import make_optimizer
from d3ssl.train.process import choose_device
from d3ssl.train.step_memory import activation_bytes

_READ, _FOUND, _TRAINED = 64, 12, 64
"""Images on which reading, regions and training are timed."""
_STEPS, _LONGEST_S = 5, 60.0
"""Training steps that are timed, fewer if they take longer than this."""
_CPU_PIXELS = 16 * 224**2
"""Images of a timed step on a CPU hold at most so many pixels a view (16 of 224 px); the time of a whole batch follows
in proportion."""
_FLOAT = 4
_PREFETCH = 4
"""Batches that a loader process reads ahead (``d3ssl.train.loader``)."""


def time_reading(images: ImageSet, chosen: list[int], run: RunConfig) -> dict[str, Any]:
    """Images/s of one process for canvases and for regions, and the bytes of an image's regions."""
    spread = _spread(chosen, _READ)
    read = _rate(lambda index: read_canvas(images.paths[index], run.canvas.size, run.canvas.channels), spread)
    found: dict[str, Any] = {"canvases_per_s_and_core": read}
    if run.regions is None:
        compile_method(run.proposals)
        sizes: list[int] = []

        def find(index: int) -> None:
            regions = find_in_file(images, index, run.proposals)
            sizes.append(regions.boxes.nbytes + (0 if regions.labels is None else len(encode_png(regions.labels))))

        rate = _rate(find, _spread(chosen, _FOUND))
        found |= {
            "regions_per_s_and_core": rate,
            "regions_bytes": int(np.mean(sizes) * len(images)) if sizes else None,
            "regions_s": None if rate is None else len(images) / rate / (run.proposals.workers or num_cores()),
        }
    return found


def _spread(chosen: list[int], most: int) -> list[int]:
    return [chosen[place] for place in np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(int)]


def _rate(work: Callable[[int], Any], places: list[int]) -> float | None:
    """Pieces of work a second; images that cannot be worked on count neither way."""
    took, done = 0.0, 0
    for place in places:
        begin = time.perf_counter()
        try:
            work(place)
        except InputError:
            continue
        took += time.perf_counter() - begin
        done += 1
    return done / took if done else None


def sizes_of_run(run: RunConfig, workers: int) -> dict[str, int]:
    """Bytes of what a run keeps in memory and on disk, but for the activations, which only training shows.

    Raises:
        D3sslError: the parts do not go together.
    """
    plan = run.plan
    learner = Learner(plan, make_backbone(replace(run, model=replace(run.model, weights=None))))
    trained = learner.trainable()
    weights = [p for module in trained for p in module.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, run.optimizer, run.train.batch_size)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    state = sum(t.nbytes for own in optimizer.state.values() for t in own.values() if isinstance(t, torch.Tensor))
    tensors = sum(t.nbytes for t in learner.state_dict().values())
    channels, part = run.canvas.channels, run.train.batch_size // run.train.accumulate
    pixels = sum(plan.views[name].size ** 2 for name in plan.used_views)
    canvas = run.canvas.size**2 * (channels + int(plan.needs_masks))
    return {
        "checkpoint_bytes": tensors + state,
        "backbone_bytes": sum(t.nbytes for t in learner.backbone.state_dict().values()),
        "weights_bytes": tensors + state + sum(w.nbytes for w in weights),
        "batch_bytes": part * (canvas + pixels * channels * _FLOAT),
        "loader_bytes": part * canvas * (_PREFETCH * workers + 1),
    }


def time_training(images: ImageSet, chosen: list[int], run: RunConfig) -> dict[str, Any]:
    """Train some steps of the run as it is configured (on a CPU with fewer images each).

    Raises:
        D3sslError: training fails.
    """
    device = choose_device(run.runtime.device)
    part = run.train.batch_size // run.train.accumulate
    batch = part if device.type == "cuda" else min(part, max(2, _CPU_PIXELS // run.views.size**2))
    few = images.subset(_spread(chosen, _TRAINED))
    train = replace(run.train, batch_size=batch, accumulate=1, steps=_STEPS + 1)
    config = replace(run, train=train, model=replace(run.model, weights=None))  # as fast, and nothing is fetched
    table = read_regions(run.regions) if run.regions is not None else _find_all(few, run)
    dataset = CanvasDataset(few, table, config.canvas, config.train.seed, masks=config.plan.needs_masks)
    trainer = Trainer(config, dataset, _STEPS + 1, device)
    each = activation_bytes(trainer, dataset)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sampler = StepSampler(0, _STEPS + 1, batch, 1, 0, 1)
    times: list[float] = []
    with loading(dataset, sampler, 0) as batches, progress("timing training", _STEPS) as ticker:
        waited = trainer.train_step(batches).waited_s  # the first step allocates and compiles
        while len(times) < _STEPS and sum(times) < _LONGEST_S:
            begin = time.perf_counter()
            waited = trainer.train_step(batches).waited_s
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin - waited)
            ticker.advance()
    rate = batch / float(np.median(times))
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "activation_bytes": part * each,
        "timed_batch": batch,
        "timed_steps": len(times),
        "training_images_per_s": rate,
        "peak_device_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _find_all(images: ImageSet, run: RunConfig) -> RegionTable:
    """Regions of a few images; those that cannot be worked on are left out."""
    found = {}
    for index, name in enumerate(images.ids):
        try:
            found[name] = find_in_file(images, index, run.proposals)
        except InputError:  # told by the scan
            continue
    return RegionTable(
        ids=tuple(found),
        sizes=np.array([one.size for one in found.values()], dtype=np.int64).reshape(-1, 2),
        boxes=[one.boxes for one in found.values()],
        label_maps=[None if one.labels is None else encode_png(one.labels) for one in found.values()],
        metadata={},
    )


def estimate(images: ImageSet, chosen: list[int], run: RunConfig, *, timed: bool) -> tuple[dict[str, Any], list[Check]]:
    """Figures as plain data, and the checks that follow from them.

    Args:
        images: all of them.
        chosen: positions of images that can be read.
        run: the run that is planned.
        timed: train some steps.
    """
    on_gpu = run.runtime.device != "cpu" and torch.cuda.is_available()
    workers = run.runtime.workers if run.runtime.workers is not None else min(12, num_cores()) if on_gpu else 1
    steps = num_steps(run.train, len(images))
    found: dict[str, Any] = {"steps": steps, "images_seen": steps * run.train.batch_size, "cores": num_cores()}
    found |= time_reading(images, chosen, run) | sizes_of_run(run, workers)
    checks = []
    if timed:
        try:
            found |= time_training(images, chosen, run)
        except torch.cuda.OutOfMemoryError:
            remedy = "lower --train.batch_size, or raise --train.accumulate."
            text = f"a batch of {run.train.batch_size // run.train.accumulate} does not fit into the GPU's memory."
            checks.append(Check(name="a training step", status="fail", finding=text, remedy=remedy))
        except D3sslError as error:
            checks.append(
                Check(name="a training step", status="fail", finding=str(error.problem), remedy=error.remedy or "")
            )
    read = found["canvases_per_s_and_core"]
    found["loading_s"] = None if read is None else found["images_seen"] / (read * max(workers, 1))
    rate = found.get("training_images_per_s")
    found["training_s"] = None if rate is None else max(found["images_seen"] / rate, found["loading_s"] or 0.0)
    return found, [*checks, *_told(found, run, timed=timed), _disk(found, run)]


def _told(found: dict[str, Any], run: RunConfig, *, timed: bool) -> list[Check]:
    checks = []
    if run.regions is None:
        rate = found["regions_per_s_and_core"]
        text = "cannot be measured: no image of the sample can be worked on"
        if rate is not None:
            text = f"{duration(found['regions_s'])} on {found['cores']} cores ({rate:.1f} images/s a core), "
            text += f"{amount(found['regions_bytes'])} on disk"
        checks.append(Check(name="time for regions", status="ok", finding=text))
    text = f"{found['steps']} steps of {run.train.batch_size} images"
    if found["training_s"] is not None:
        text += (
            f": {duration(found['training_s'])} on {found['device']} ({found['training_images_per_s']:.1f} images/s)"
        )
    elif not timed:
        text += "; --time measures how long they take here"
    slow = found["training_s"] is not None and (found["loading_s"] or 0) >= found["training_s"]
    checks.append(
        Check(
            name="time for training",
            status="warning" if slow else "ok",
            finding=text + (". Reading the images takes longest." if slow else ""),
            remedy="raise --runtime.workers, or shrink the images once." if slow else "",
        )
    )
    least = found["weights_bytes"] + found["batch_bytes"]
    if found.get("activation_bytes") and not found.get("peak_device_bytes"):
        return [*checks, _memory(found, run, least + found["activation_bytes"])]
    text = f"{amount(least)} and the activations; loader {amount(found['loader_bytes'])}"
    if found.get("peak_device_bytes"):
        text = f"{amount(found['peak_device_bytes'])} on the device at most; loader {amount(found['loader_bytes'])}"
    return [*checks, Check(name="memory", status="ok", finding=text)]


def _memory(found: dict[str, Any], run: RunConfig, least: int) -> Check:
    """On the CPU: what a step takes at least, against what is free now."""
    free = free_memory()
    text = f"a step takes {amount(least)} or more; loader {amount(found['loader_bytes'])}"
    if free is None or least <= free:
        return Check(name="memory", status="ok", finding=text)
    remedy = "raise --train.accumulate, or lower --train.batch_size or --views.size."
    return Check(name="memory", status="fail", finding=f"{text}; {amount(free)} are free.", remedy=remedy)


def _disk(found: dict[str, Any], run: RunConfig) -> Check:
    """A checkpoint is written beside the last one and the one before it, so there are three for a while."""
    needed = 3 * found["checkpoint_bytes"] + found["backbone_bytes"] + 2 * (found.get("regions_bytes") or 0)
    place = Path.cwd()
    free = shutil.disk_usage(place).free
    found |= {"disk_bytes": needed, "disk_free_bytes": free}
    text = (
        f"{amount(needed)} for the run (a checkpoint is {amount(found['checkpoint_bytes'])}); {amount(free)} are free"
    )
    if free < needed:
        remedy = "free some space, or put the run onto another disk."
        return Check(name="disk", status="warning", finding=text + f" at {place}.", remedy=remedy)
    return Check(name="disk", status="ok", finding=text)


def amount(count: int | float) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: int | float) -> str:
    """Seconds for people."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
