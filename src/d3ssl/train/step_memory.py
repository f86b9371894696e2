"""What a training step takes of memory, before the first one: a system ends what takes too much without a word."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from itertools import islice

import torch

from d3ssl.errors import InputError
from d3ssl.memory import free_memory
from d3ssl.train.loader import CanvasDataset, collate
from d3ssl.train.loop import Trainer

_TRIED = 2
"""Images of the step that is tried: batch norms take two."""


def activation_bytes(trainer: Trainer, dataset: CanvasDataset) -> int:
    """What a step keeps for its gradients, bytes an image: measured on a step of two images, which is not learned from.

    A step takes more for a moment, for the teacher and for gradients of maps, so this is the least.

    Raises:
        InputError: no image can be read.
    """
    loaded = collate([dataset[number] for number in islice(range(len(dataset)), _TRIED)] * (1 + (len(dataset) == 1)))
    if isinstance(loaded, InputError):
        raise loaded
    learner = copy.deepcopy(trainer.learner)  # so that the statistics of batch norms stay as they are
    weights = {tensor.untyped_storage().data_ptr() for tensor in learner.state_dict().values()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = learner(trainer.make_views(loaded.batch, 0), 0.0)
        assert output.loss.requires_grad  # alive, so that no memory was used twice
    return sum(kept.values()) // _TRIED


def check_memory(trainer: Trainer, dataset: CanvasDataset) -> None:
    """Refuse a step on the CPU that does not fit into the memory that is free.

    Raises:
        InputError: says how much it takes, and into how many parts a step could be divided.
    """
    free = free_memory()
    if free is None or trainer.device.type != "cpu":
        return
    train, processes = trainer.config.train, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    each, rest = activation_bytes(trainer, dataset), 3 * sum(weight.nbytes for weight in trainer.parameters)
    images = train.batch_size // (train.accumulate * world)
    needed = processes * (each * images + rest)
    if needed <= free:
        return
    problem = f"a step of {images} images takes {needed / 1e9:.1f} GB of memory or more; {free / 1e9:.1f} GB are free"
    parts = [n for n in range(1, train.batch_size // world + 1) if train.batch_size % (n * world) == 0]
    fitting = _first_fitting(parts, train.batch_size // world, each, free / processes - rest)
    remedy = "choose a smaller network, a lower --train.batch_size or a lower --views.size."
    if fitting is not None:
        remedy = f"divide a step into parts with --train.accumulate {fitting}, or {remedy}"
    raise InputError(problem, remedy=remedy)


def _first_fitting(parts: Sequence[int], images: int, each: int, room: float) -> int | None:
    """The fewest parts of at least two images that fit, with a fifth in reserve."""
    return next((n for n in parts if images // n >= 2 and 1.2 * each * images / n <= room), None)
