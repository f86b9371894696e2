"""``d3ssl evaluate segmentation``: what a backbone's maps know about the class of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3ssl import page
from d3ssl.console import progress, say, warn
from d3ssl.data.semantic import IGNORED, SemanticSet
from d3ssl.data.sources import name_of
from d3ssl.distributed import rank
from d3ssl.errors import InputError
from d3ssl.evaluate.compare import compare, make_rows
from d3ssl.evaluate.features import frozen, pick_device
from d3ssl.evaluate.intervals import Draws, interval, save_draws
from d3ssl.evaluate.segmentation.config import ProtocolName, SegmentationConfig
from d3ssl.evaluate.segmentation.count import Scorer, count_pixels
from d3ssl.evaluate.segmentation.fcn import fine_tune
from d3ssl.evaluate.segmentation.features import dense_levels
from d3ssl.evaluate.segmentation.linear import fit_lbfgs, fit_sgd
from d3ssl.evaluate.segmentation.metrics import Tally
from d3ssl.evaluate.segmentation.pictures import Shown, draw_predictions
from d3ssl.evaluate.segmentation.pool import CellPool, gather_cells
from d3ssl.evaluate.segmentation.retrieval import remember
from d3ssl.evaluate.splits import TESTED, drawn_as, open_semantic, suffix
from d3ssl.evaluate.task import Measure
from d3ssl.files import digest, write_atomically
from d3ssl.models import Backbone
from d3ssl.models.backbone import check_size
from d3ssl.seeds import numpy_generator

PICTURE = "predictions.png"
_MEANING: dict[ProtocolName, tuple[str, str]] = {
    "linear": ("linear", "a linear classifier of the frozen maps' cells"),
    "retrieval": ("retrieval", "the most similar cells of the training images (Hummingbird); nothing is trained"),
    "fcn": ("fine-tuned", "backbone and a small convolutional head (FCN), trained together"),
}


class SegmentationTask:
    """Semantic segmentation, for ``compare``. What can be wrong with the data is found here, before long work: the
    validation images and those of the first seed's training images are read once."""

    name = "segmentation"
    measures: tuple[Measure, ...]
    captions: dict[str, str]

    def __init__(self, data: Any, config: SegmentationConfig) -> None:
        """
        Raises:
            InputError: unusable options or data, see ``open_semantic`` and ``SemanticSet.labels``.
        """
        config.check()
        pick_device(config.device)
        self.config, self.data = config, name_of(data)
        self.splits = open_semantic(data, config.val_share)
        self.tested = {
            name: _draw(images, config.max_val_images, config.seed, drawn_as(name))
            for name, images in self.splits.tested.items()
        }
        self.val = self.tested["val"]
        self.measures = _measures(config, self.tested)
        shown = ", ".join(_MEANING[name][0] for name in config.protocols)
        self.captions = {PICTURE: f"validation images: image, truth (white: ignored), {shown}."}
        self._chance: dict[str, float] = {}
        self._fingerprint = self._check()

    def fingerprint(self) -> str:
        return self._fingerprint

    def budget(self) -> str:
        config = self.config
        count = len(self._train_of(0))
        parts = [f"{count} of {len(self.splits.train)} training images ({self.splits.rule})"]
        if "linear" in config.protocols:
            cells = f"L-BFGS, at most {config.linear_iterations} iterations on {config.linear_cells} cells"
            sgd = f"SGD, {config.linear_epochs} epochs on {config.linear_grid} px maps"
            parts.append(f"linear: {cells if config.linear_optimizer == 'lbfgs' else sgd}")
        if "retrieval" in config.protocols:
            parts.append(f"retrieval: a memory of {config.memory} cells")
        if "fcn" in config.protocols:
            parts.append(f"fine-tuning: {config.fcn_steps} steps of {config.fcn_batch} images")
        tested = f"tested on {len(self.val)} of {len(self.splits.val)} validation images"
        return "; ".join([*parts, tested]) + "."

    def measure(self, backbone: Backbone, seed: int, folder: Path) -> dict[str, Any]:
        """See ``Task.measure``. Figures 0..1: ``PROTOCOL_miou`` and ``PROTOCOL_pixel_accuracy``, with other splits
        also ``…_SPLIT``, each with ``_low`` and ``_high`` (95 %, bootstrap over images); ``chance_miou`` and
        ``chance_pixel_accuracy``: always naming the training images' most frequent class; ``per_class_iou`` by protocol
        and class (null for a class that is neither in the truth nor predicted), ``counts`` and ``protocol``.
        """
        config = self.config
        device, size = pick_device(config.device), config.size or backbone.input_size
        check_size(backbone, (size, size))
        train = self._train_of(seed)
        found: dict[str, dict[str, Tally]] = {name: {} for name in self.tested}
        shown: list[Shown] = []
        if {"linear", "retrieval"} & set(config.protocols):
            with frozen(backbone, device):
                pool = self._pool(backbone, train, size, seed)
                scorer = self._frozen_scorer(backbone, pool, train, size, seed, device)
                names = [name for name in config.protocols if name != "fcn"]
                self._test(scorer, names, backbone, size, found, shown)
        if "fcn" in config.protocols:
            model = fine_tune(backbone, train, size, config, seed, device)
            with torch.inference_mode():
                self._test(lambda images: {"fcn": model(images)}, ["fcn"], model.backbone, size, found, shown)
        if shown and rank() == 0:
            with write_atomically(folder / PICTURE) as temporary:
                temporary.write_bytes(page.image_png(draw_predictions(shown, self.val.num_classes)))
        return self._figures(found, len(train), size, folder)

    def _train_of(self, seed: int) -> SemanticSet:
        return _draw(self.splits.train, self.config.max_train_images, seed, "train")

    def _check(self) -> str:
        """Read what will be used, and digest it."""
        train = self._train_of(0)
        learned = np.zeros(IGNORED + 1, dtype=np.int64)
        parts = [self.config.fingerprint(), self.splits.train.digest()]
        with progress("checking maps", len(train) + sum(map(len, self.tested.values()))) as ticker:
            for index in range(len(train)):
                learned += np.bincount(train.labels(index).ravel(), minlength=IGNORED + 1)
                ticker.advance()
            for name, images in self.tested.items():
                counted = np.zeros(IGNORED + 1, dtype=np.int64)
                parts += [name, images.digest()]
                for index in range(len(images)):
                    labels = images.labels(index)
                    counted += np.bincount(labels.ravel(), minlength=IGNORED + 1)
                    parts.append(digest(labels.astype(np.uint8).tobytes()))
                    ticker.advance()
                self._check_counts(name, images, learned[:IGNORED], counted[:IGNORED])
                self._set_chance(suffix(name), learned[:IGNORED], counted[:IGNORED])
        return digest(*parts)

    def _check_counts(self, name: str, images: SemanticSet, learned: np.ndarray, counted: np.ndarray) -> None:
        for which, counts in (("training", learned), (name, counted)):
            if not counts.any():
                remedy = "give maps with pixels that are not ignored."
                raise InputError(f"all pixels of the {which} images are ignored", path=images.root, remedy=remedy)
        if np.count_nonzero(learned) < 2:
            remedy = "give maps of at least two classes."
            raise InputError("the training images show one class only", path=images.root, remedy=remedy)
        unseen = [images.names[label] for label in np.flatnonzero((counted > 0) & (learned == 0))]
        if unseen:
            listed = ", ".join(unseen[:10]) + (", …" if len(unseen) > 10 else "")
            problem = f"{len(unseen)} classes of {name} are in no training image, so their IoU is 0: {listed}"
            warn(problem, "raise --max_train_images.")

    def _set_chance(self, end: str, learned: np.ndarray, counted: np.ndarray) -> None:
        """The figures of naming every pixel by the most frequent class of the training images."""
        common = int(learned.argmax())
        share = float(counted[common] / counted.sum())
        shown = int(np.count_nonzero(counted)) + int(counted[common] == 0)
        self._chance |= {f"chance_miou{end}": share / shown, f"chance_pixel_accuracy{end}": share}

    def _pool(self, backbone: Backbone, train: SemanticSet, size: int, seed: int) -> CellPool:
        config = self.config
        wanted = {"linear": config.linear_cells, "retrieval": config.memory}
        count = max(wanted[name] for name in config.protocols if name in wanted)
        return gather_cells(backbone, train, count, size, config, seed)

    def _frozen_scorer(
        self, backbone: Backbone, pool: CellPool, train: SemanticSet, size: int, seed: int, device: torch.device
    ) -> Scorer:
        config = self.config
        heads: dict[str, Callable[[Tensor], Tensor]] = {}
        for name in config.protocols:
            if name == "linear" and config.linear_optimizer == "lbfgs":
                cells = pool.draw(config.linear_cells, seed, "linear cells")
                heads[name] = fit_lbfgs(cells, config.linear_l2, config.linear_iterations, device).scores
            elif name == "linear":
                heads[name] = fit_sgd(backbone, train, pool, size, config, seed).scores
            elif name == "retrieval":
                cells = pool.draw(config.memory, seed, "memory")
                heads[name] = remember(cells, config, device).scores

        def scorer(images: Tensor) -> dict[str, Tensor]:
            maps = torch.cat(dense_levels(backbone, images, config.levels), dim=1)
            return {name: head(maps) for name, head in heads.items()}

        return scorer

    def _test(
        self,
        scorer: Scorer,
        names: Sequence[str],
        backbone: Backbone,
        size: int,
        found: dict[str, dict[str, Tally]],
        shown: list[Shown],
    ) -> None:
        """Add what a scorer gets right to ``found``, by split and protocol, and its first predictions to ``shown``."""
        for name, images in self.tested.items():
            pictures = shown if name == "val" else None
            label = f"testing on {name}"
            found[name] |= count_pixels(scorer, names, backbone, images, size, self.config, label, pictures)

    def _figures(
        self, found: dict[str, dict[str, Tally]], train_images: int, size: int, folder: Path
    ) -> dict[str, Any]:
        metrics: dict[str, Any] = dict(self._chance)
        per_class: dict[str, dict[str, float | None]] = {}
        draws: Draws = {}
        for split, tallies in found.items():
            end = suffix(split)
            for name, own in tallies.items():
                keys = (f"{name}_miou{end}", f"{name}_pixel_accuracy{end}")
                generator = numpy_generator(self.config.seed, "bootstrap", suffix(drawn_as(split)))
                drawn = own.bootstrap(self.config.draws, generator)
                draws |= dict(zip(keys, drawn, strict=True))
                for key, value, values in zip(keys, (own.miou(), own.accuracy()), drawn, strict=True):
                    metrics[key] = value
                    metrics[f"{key}_low"], metrics[f"{key}_high"] = interval(values)
                iou = zip(self.val.names, own.iou().tolist(), strict=True)
                per_class[name + end] = {label: None if np.isnan(value) else value for label, value in iou}
        if rank() == 0:
            save_draws(folder, draws)
        counts = {"train_images": train_images, "classes": self.val.num_classes}
        counts |= {f"{name}_images": len(images) for name, images in self.tested.items()}
        protocol = {"size": size, "splits": self.splits.rule, "data": self.data}
        return {**metrics, "per_class_iou": per_class, "counts": counts, "protocol": protocol}


def _draw(images: SemanticSet, most: int | None, seed: int, name: str) -> SemanticSet:
    if most is None or len(images) <= most:
        return images
    order = numpy_generator(seed, "segmentation", name).permutation(len(images))
    return images.subset(np.sort(order[:most]))


def _measures(config: SegmentationConfig, splits: Iterable[str]) -> tuple[Measure, ...]:
    made = []
    for split in splits:
        for key, figure, meaning in (
            ("miou", "mIoU", "overlap of prediction and truth ÷ their union, mean over classes"),
            ("pixel_accuracy", "pixel accuracy", "share of the pixels that are named rightly"),
        ):
            for name in config.protocols:
                title, how = _MEANING[name]
                made.append(
                    Measure(
                        key=f"{name}_{key}{suffix(split)}",
                        title=f"{title} {figure}",
                        meaning=f"{how}; {meaning}; objects in {TESTED[split]}.",
                        split=split,
                    )
                )
    return tuple(made)


def evaluate_segmentation(
    backbone_spec: str,
    data: Any,
    out: str | Path | None = None,
    config: SegmentationConfig | None = None,
    baselines: Sequence[str] = (),
    seeds: int = 1,
) -> dict[str, Any]:
    """Measure a backbone and its baselines at semantic segmentation.

    Args:
        backbone_spec: see ``load_backbone``.
        data: see ``open_semantic``: scenes, COCO (instances or panoptic), a VOC or an ADE20K tree.
        out: folder for ``metrics.json`` and ``report.html``; None: nothing is written.
        baselines: specs, or ``random``: the same network with random weights.
        seeds: each draws other training images, cells and initial heads; several give an interval over them.

    Returns:
        What ``metrics.json`` holds; see ``compare`` and ``SegmentationTask.measure``.

    Raises:
        InputError: unusable data, options or backbones.
        D3sslError: features, weights or losses that are not finite, or features that are all the same.
    """
    config = config or SegmentationConfig()
    config.check()
    rows = make_rows(backbone_spec, baselines, config.reading(), config.size)
    task = SegmentationTask(data, config)
    say(f"every backbone gets: {task.budget()}")
    return compare(task, rows, seeds, out)
