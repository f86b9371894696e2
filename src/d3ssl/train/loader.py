"""From files to canvas batches. The order of the images, and the candidates drawn for each visit, are a pure function
of (seed, step, rank): a resumed run sees what an uninterrupted one would have seen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from d3ssl.console import warn
from d3ssl.contracts import CanvasBatch, map_tensors
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.errors import InputError
from d3ssl.methods.plan import Plan
from d3ssl.regions.table import RegionTable
from d3ssl.seeds import numpy_generator
from d3ssl.train.config import CanvasConfig


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch and the files that could not be read while it was made (others took their places)."""

    batch: CanvasBatch
    bad: tuple[str, ...]

    def pin_memory(self) -> LoadedBatch:
        """As the loader asks of what it hands to a GPU."""
        return LoadedBatch(map_tensors(self.batch, lambda tensor: tensor.pin_memory()), self.bad)


Loaded = LoadedBatch | InputError
"""An error is handed over as a value: raised in a loader process, its text would drown in a foreign traceback."""


class EpochOrder:
    """Which of ``count`` images is number g of the training (0, 1, 2, … across epochs), each epoch in its own order."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, number: int) -> int:
        epoch, place = divmod(number, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, numpy_generator(self.seed, "order", epoch).permutation(self.count)
        return int(self._order[place])


def masks_travel(plan: Plan, regions: RegionTable) -> bool:
    """Whether label maps travel with the canvas: the plan reads masks and, if boxes will do, there are any."""
    if plan.needs_masks and plan.boxes_will_do and all(own is None for own in regions.label_maps):
        remedy = "use --proposals.method contrast, or annotations with masks: what surrounds an object is left out."
        warn("the regions have no masks, so they count by their boxes", remedy)
        return False
    return plan.needs_masks


class CanvasDataset(Dataset):
    """Image number ``g`` of the training (0, 1, 2, … across epochs) → its canvas and candidate regions.

    The images of every epoch come in an order of their own; an unreadable image is replaced with the one behind it
    in the epoch's order and reported.

    Args:
        masks: label maps travel with the canvas.
        held_out: the images that training never sees, instead of the others.
    """

    def __init__(
        self,
        images: ImageSet,
        regions: RegionTable,
        config: CanvasConfig,
        seed: int,
        *,
        masks: bool = False,
        held_out: bool = False,
    ) -> None:
        row_of = {image_id: row for row, image_id in enumerate(regions.ids)}
        self.positions = [index for index, image_id in enumerate(images.ids) if image_id in row_of]
        if not self.positions:
            raise InputError("the regions file holds none of these images", remedy="compute the regions again.")
        if config.held_out >= len(self.positions):
            problem = f"{config.held_out} of {len(self.positions)} images are held out, so none is left to train on"
            raise InputError(problem, remedy="lower --canvas.held_out, or give more images.")
        drawn = numpy_generator(seed, "held out").permutation(len(self.positions))[: config.held_out]
        kept = np.isin(np.arange(len(self.positions)), drawn, invert=not held_out)
        self.positions = [index for index, is_kept in zip(self.positions, kept, strict=True) if is_kept]
        self.rows = [row_of[images.ids[index]] for index in self.positions]
        if masks and all(regions.label_maps[row] is None for row in self.rows):
            remedy = (
                "use --proposals.method contrast, felzenszwalb or annotations (with label maps), or boxes: "
                "--dc.background outside_boxes, --dp.carried_by box."
            )
            raise InputError("the method needs masks, but the regions are boxes only", remedy=remedy)
        self.masks = masks
        counts = [len(regions.boxes[row]) for row in self.rows]
        self.first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        """Number of each image's first region among all."""
        self.images, self.regions, self.config, self.seed = images, regions, config, seed
        self.place = EpochOrder(seed, len(self.positions))
        """Place in ``positions`` of the training's image ``number``."""

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray], list[str]] | InputError:
        try:
            return self.load(number)
        except InputError as error:
            return error

    def load(self, number: int) -> tuple[dict[str, np.ndarray], list[str]]:
        """Canvas, candidates and the messages of unreadable images that were passed over.

        Raises:
            InputError: the regions were made for images of another size, or no image can be read.
        """
        bad: list[InputError] = []
        for attempt in range(min(len(self), 100)):
            place = self.place(number + attempt)
            path = self.images.paths[self.positions[place]]
            try:
                canvas, size = read_canvas(path, self.config.size, self.config.channels)
            except InputError as error:
                bad.append(error)
                continue
            return self._item(number, place, canvas, size), [str(error) for error in bad]
        problem = f"{len(bad)} images in a row cannot be used; the first {bad[0].problem}"
        remedy = bad[0].remedy or "check the disk and the data folder."
        raise InputError(problem, path=bad[0].path, remedy=remedy)

    def _item(self, number: int, place: int, canvas: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
        config, row = self.config, self.rows[place]
        self.regions.check_size(row, size, self.images.paths[self.positions[place]])
        count = len(self.regions.boxes[row])
        chosen = numpy_generator(self.seed, "candidates", number).permutation(count)[: config.max_candidates]
        scale = np.array([config.size / size[1], config.size / size[0]] * 2, dtype=np.float32)
        boxes = np.zeros((config.max_candidates, 4), dtype=np.float32)
        boxes[: len(chosen)] = self.regions.boxes[row][chosen] * scale
        item = {
            "canvas": canvas,
            "image_size": np.array(size, dtype=np.float32),
            "boxes": boxes,
            "valid": np.arange(config.max_candidates) < len(chosen),
            "number": np.pad(self.first[place] + chosen, (0, config.max_candidates - len(chosen)), constant_values=-1),
            "index": np.array(self.positions[place], dtype=np.int64),
        }
        if self.masks:
            item["labels"] = self._labels(row, chosen)
        return item

    def _labels(self, row: int, chosen: np.ndarray) -> np.ndarray:
        labels = self.regions.label_map(row, self.config.size)
        if labels is None:  # an image without any mask among others: its regions count by their boxes
            return np.zeros((self.config.size, self.config.size), dtype=np.uint8)
        renumber = np.zeros(256, dtype=np.uint8)
        renumber[chosen + 1] = np.arange(1, len(chosen) + 1)
        return renumber[labels]


class StepSampler:
    """The image numbers of this process's batches, from a step on: part a of step s of rank r holds the numbers
    ``s·batch + (r·accumulate + a)·b … + b``."""

    def __init__(self, start: int, steps: int, batch_size: int, accumulate: int, rank: int, world: int) -> None:
        self.start, self.steps, self.batch_size, self.accumulate, self.rank = start, steps, batch_size, accumulate, rank
        self.part = batch_size // (accumulate * world)

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            for part in range(self.accumulate):
                first = step * self.batch_size + (self.rank * self.accumulate + part) * self.part
                yield list(range(first, first + self.part))


def collate(found: list[tuple[dict[str, np.ndarray], list[str]] | InputError]) -> Loaded:
    """Stack items into a canvas batch; the canvas becomes channels first. The first error among them wins."""
    items = [item for item in found if not isinstance(item, InputError)]
    if len(items) < len(found):
        return next(item for item in found if isinstance(item, InputError))

    def stack(key: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([item[key] for item, _ in items]))

    batch = CanvasBatch(
        canvas=stack("canvas").permute(0, 3, 1, 2),
        image_size=stack("image_size"),
        boxes=stack("boxes"),
        valid=stack("valid"),
        number=stack("number"),
        labels=stack("labels") if "labels" in items[0][0] else None,
        index=stack("index"),
    )
    return LoadedBatch(batch, tuple(message for _, bad in items for message in bad))


@contextmanager
def loading(
    dataset: CanvasDataset, sampler: StepSampler, workers: int, pin_memory: bool = False
) -> Iterator[Iterator[Loaded]]:
    """Batches in the sampler's order, whatever the number of workers. The loader processes end with the block.

    They ignore signals, so they would outlive an error whose traceback keeps the iterator alive, and the program would
    wait for them when it ends, forever.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,  # type: ignore[arg-type]  # anything that iterates over lists of numbers will do
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
    )
    batches = iter(loader)
    try:
        yield batches
    finally:
        if workers:
            _end(batches)


def _end(batches: Any) -> None:
    """Let the loader processes end as PyTorch lets them when the iterator is deleted; end by force what then lives."""
    batches._shutdown_workers()
    for process in batches._workers:
        process.kill()
        process.join()


def _ignore_signals(_: int) -> None:
    """A signal to the process group must not end the loaders: the training process decides when to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
