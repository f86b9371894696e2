"""Predictions against the truth, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from d3ssl.console import progress
from d3ssl.data.semantic import SemanticSet
from d3ssl.evaluate.encode import to_images
from d3ssl.evaluate.segmentation.config import SegmentationConfig
from d3ssl.evaluate.segmentation.features import (
    Sample,
    gather,
    labels_at,
    name_pixels,
    own_part,
    read_samples,
)
from d3ssl.evaluate.segmentation.metrics import Tally, confusion_matrix, count_classes, tally
from d3ssl.evaluate.segmentation.pictures import Shown
from d3ssl.models import Backbone

Scorer = Callable[[Float[Tensor, "B C S S"]], dict[str, Float[Tensor, "B classes h w"]]]
"""Normalised images → protocol → scores of the cells."""


def count_pixels(
    scorer: Scorer,
    names: Sequence[str],
    backbone: Backbone,
    images: SemanticSet,
    size: int,
    config: SegmentationConfig,
    label: str,
    shown: list[Shown] | None,
) -> dict[str, Tally]:
    """What each protocol of a scorer names rightly: scores are upsampled bilinearly to the truth, and a pixel has the
    class of the greatest. Several processes share the images out and all get all counts.

    Args:
        names: of the protocols that the scorer gives.
        backbone: says how images are normalised, and where.
        size: side to which images are stretched, px.
        label: of the progress.
        shown: gets the predictions of the first ``config.pictures`` images (of them, those that this process deals
            with); None: of none.

    Raises:
        InputError: an image or map cannot be used.
    """
    counts = {name: [np.zeros((0, 3, images.num_classes), dtype=np.int64)] for name in names}
    mine = own_part(len(images))
    batches = read_samples(
        images,
        mine,
        size=size,
        channels=backbone.in_channels,
        workers=config.workers,
        batch_size=config.batch_size,
    )
    with progress(label, len(mine)) as ticker:
        for batch in batches:
            scores = scorer(to_images(backbone, [one.canvas for one in batch]))
            for place, sample in enumerate(batch):
                truth = _truth(sample.labels, config.truth_size)
                named = {name: name_pixels(own[place], *truth.shape) for name, own in scores.items()}
                for name in names:
                    matrix = confusion_matrix(truth, named[name], images.num_classes)
                    counts[name].append(count_classes(matrix)[None])
                if shown is not None and sample.index < config.pictures:
                    _show(shown, sample, truth, named)
            ticker.advance(len(batch))
    return {name: tally(gather(torch.from_numpy(np.concatenate(own))).numpy()) for name, own in counts.items()}


def _truth(labels: Int64[np.ndarray, "H W"], side: int | None) -> Int64[np.ndarray, "H2 W2"]:
    return labels if side is None else labels_at(labels, side, side)


def _show(shown: list[Shown], sample: Sample, truth: np.ndarray, named: dict[str, np.ndarray]) -> None:
    if sample.index == len(shown):
        shown.append(Shown(canvas=sample.canvas, truth=truth))
    shown[sample.index].predicted.update(named)
