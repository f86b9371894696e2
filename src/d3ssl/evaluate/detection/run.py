"""``d3ssl evaluate detection``: what a backbone is worth to a detector that is fine-tuned from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3ssl.console import say
from d3ssl.data.image_set import ImageSet
from d3ssl.data.sources import name_of
from d3ssl.distributed import rank
from d3ssl.errors import InputError
from d3ssl.evaluate.cache import annotations_digest, weights_digest
from d3ssl.evaluate.compare import compare, make_rows
from d3ssl.evaluate.detection.coco_eval import CocoTruth, Detections, Kind, named_statistics
from d3ssl.evaluate.detection.config import DetectionConfig
from d3ssl.evaluate.detection.inference import detect
from d3ssl.evaluate.detection.network import build_detector, check_backbone
from d3ssl.evaluate.detection.pictures import draw_detections
from d3ssl.evaluate.detection.resampling import bootstrap, find_matches
from d3ssl.evaluate.detection.train import CHECKPOINT, Batches, train_detector
from d3ssl.evaluate.features import pick_device
from d3ssl.evaluate.intervals import Draws, interval, save_draws
from d3ssl.evaluate.splits import TESTED, drawn_as, open_splits, suffix
from d3ssl.evaluate.task import Measure
from d3ssl.files import digest, write_atomically
from d3ssl.models import Backbone
from d3ssl.seeds import numpy_generator

PICTURE = "detections.png"
KINDS: dict[str, Kind] = {"box": "bbox", "mask": "segm"}


class DetectionTask:
    """Fine-tune a detector from a backbone and measure COCO's statistics, for ``compare``."""

    name = "detection"
    measures: tuple[Measure, ...]
    captions: dict[str, str]

    def __init__(self, data: Any, config: DetectionConfig | None = None) -> None:
        """
        Raises:
            InputError: unusable options or data; masks that are asked for and missing; a split without objects.
        """
        self.config, self.data = config or DetectionConfig(), name_of(data)
        self.config.check()
        pick_device(self.config.device)
        splits = open_splits(data, self.config.val_share)
        self.rule = splits.rule
        self.train = _with_objects(splits.train)
        most = self.config.max_val_images
        self.tested = {name: _draw(images, most, 0, drawn_as(name)) for name, images in splits.tested.items()}
        self.masks = self._wants_masks()
        for images in self.tested.values():
            _with_objects(images, least=2)
        self.measures = _measures(self.masks, list(self.tested))
        self.captions = {
            PICTURE: f"validation images: what is annotated, and what is found (score ≥ {self.config.shown_score})"
        }

    def _wants_masks(self) -> bool:
        sets = [self.train, *self.tested.values()]
        lacking = [own for own in sets if own.annotations is None or not own.annotations.has_masks]
        if self.config.masks and lacking:
            remedy = "give data with segmentations, or use --masks false."
            raise InputError("has objects without masks", path=lacking[0].annotated.path, remedy=remedy)
        return not lacking if self.config.masks is None else self.config.masks

    def fingerprint(self) -> str:
        sets = [self.train, *self.tested.values()]
        return digest(self.name, str(self.config.outcome()), *(annotations_digest(images) for images in sets))

    def budget(self) -> str:
        config = self.config
        images = min(len(self.train), config.max_train_images or len(self.train))
        return f"{config.steps} steps of {config.batch_size} images, from {images} of {len(self.train)} with objects"

    def measure(self, backbone: Backbone, seed: int, folder: Path) -> dict[str, Any]:
        config = self.config
        check_backbone(backbone, config)
        train = _draw(self.train, config.max_train_images, seed, "train")
        detector = build_detector(backbone, len(self.train.annotated.names), self.masks, config, seed)
        batches = Batches(images=train, config=config, channels=backbone.in_channels, masks=self.masks, seed=seed)
        fingerprint = digest(self.fingerprint(), weights_digest(backbone), str(seed))
        device = pick_device(config.device)
        checkpoint = folder / CHECKPOINT
        loss = train_detector(detector, batches, device, checkpoint, fingerprint)
        metrics: dict[str, Any] = {"loss": loss, "counts": {"train_images": len(train)}}
        draws: Draws = {}
        for name, images in self.tested.items():
            positions, found = detect(detector, images, config, f"detecting in {name}")
            metrics |= self._statistics(images.subset(positions), found, name, seed, draws)
            metrics["counts"][f"tested{suffix(name)}_images"] = len(positions)
            if name == "val" and rank() == 0 and config.shown_images:
                few = min(config.shown_images, len(positions))
                picture = draw_detections(
                    images, positions[:few], found[:few], backbone.in_channels, config.shown_score
                )
                with write_atomically(folder / PICTURE) as temporary:
                    picture.save(temporary, format="PNG")
        if rank() == 0:
            save_draws(folder, draws)
            checkpoint.unlink(missing_ok=True)  # the cell is done; only its figures are kept
        metrics["protocol"] = {**config.outcome(), "splits": self.rule, "masks": self.masks}
        return metrics

    def _statistics(
        self, images: ImageSet, found: list[Detections], split: str, seed: int, draws: Draws
    ) -> dict[str, Any]:
        """COCO's twelve under ``box`` and ``mask``, the compared ones at the top, with bootstrap intervals, whose draws
        are added to ``draws``."""
        end = suffix(split)
        metrics: dict[str, Any] = {}
        truth = CocoTruth(images.annotated, self.masks)
        for name, kind in KINDS.items():
            if name == "mask" and not self.masks:
                continue
            judge = truth.evaluate(found, kind)
            values = named_statistics(judge)
            metrics[f"{name}{end}"] = values
            matches = find_matches(judge, len(images), len(images.annotated.names))
            samples = bootstrap(
                matches, self.config.draws, numpy_generator(seed, "bootstrap", name, suffix(drawn_as(split)))
            )
            for statistic, drawn in samples.items():
                key = f"{name}_{statistic}{end}"
                if any(measure.key == key for measure in self.measures):
                    metrics[key], draws[key] = values[statistic], drawn
                    metrics[f"{key}_low"], metrics[f"{key}_high"] = interval(drawn)
        return metrics


def evaluate_detection(
    backbone: Backbone | str | Path,
    data: Any,
    out: str | Path | None = None,
    config: DetectionConfig | None = None,
    *,
    baselines: Sequence[str] = (),
    seeds: int = 1,
) -> dict[str, Any]:
    """Fine-tune a detector from the backbone and measure COCO's average precision of boxes and, if any, masks.

    Args:
        backbone: a backbone (left as it is), or its spec (see ``load_backbone``).
        data: a folder of `d3ssl scenes` (train, val, val_shuffled or val_CONDITION) or one COCO set (split by a hash of
            the image id).
        out: folder for ``metrics.json``, ``report.html`` and cells; None: nothing is written.
        baselines: specs of other backbones to measure beside it; ``random``: the same network, random weights.
        seeds: each decides the new layers' weights, the order of the images, and the training images drawn.

    Returns:
        What ``metrics.json`` holds: ``box_ap``, ``box_ap50``, ``box_ap75``, with masks ``mask_ap`` and ``mask_ap50``,
        with other splits the same with ``_shuffled`` or ``_CONDITION``, each with ``_low`` and ``_high``; ``rows``
        with the figures of every backbone; ``cells`` with all of each seed, COCO's twelve statistics under ``box`` and
        ``mask``.

    Raises:
        InputError: unusable data or options, or a backbone that no detector can be built on.
        D3sslError: the fine-tuning diverges.
    """
    task = DetectionTask(data, config)
    rows = make_rows(backbone, baselines, task.config.reading(), task.config.size)
    for row in rows:
        check_backbone(row.load(0), task.config)  # of the last row too, before the first is fine-tuned
    return compare(task, rows, seeds, out)


def _measures(masks: bool, splits: Sequence[str]) -> tuple[Measure, ...]:
    what = {
        "box_ap": ("box AP", "average precision of boxes, IoU 0.5 to 0.95 (COCO)"),
        "box_ap50": ("box AP50", "the same at IoU 0.5: objects found, roughly placed"),
        "box_ap75": ("box AP75", "the same at IoU 0.75: objects found, well placed"),
    }
    if masks:
        what["mask_ap"] = ("mask AP", "average precision of masks, IoU 0.5 to 0.95 (COCO)")
        what["mask_ap50"] = ("mask AP50", "the same at IoU 0.5")
    return tuple(
        Measure(key=key + suffix(split), title=title, split=split, meaning=f"{meaning}; in {TESTED[split]}")
        for key, (title, meaning) in what.items()
        for split in splits
    )


def _with_objects(images: ImageSet, least: int = 1) -> ImageSet:
    """The images that have objects to learn from or to find (crowds aside).

    Raises:
        InputError: there are fewer than ``least``.
    """
    kept = [index for index in range(len(images)) if bool((~images.annotated.objects(index).crowd).any())]
    if len(kept) < least:
        problem = f"only {len(kept)} of {len(images)} images have objects (not crowds) to detect"
        remedy = "annotate more images; on few, a figure has no interval."
        raise InputError(problem, path=images.annotated.path, remedy=remedy)
    return images if len(kept) == len(images) else images.subset(kept)


def _draw(images: ImageSet, most: int | None, seed: int, name: str) -> ImageSet:
    if most is None or len(images) <= most:
        return images
    say(f"{name}: {most} of {len(images)} images, drawn at random")
    return images.subset(np.sort(numpy_generator(seed, "detection", name).permutation(len(images))[:most]))
