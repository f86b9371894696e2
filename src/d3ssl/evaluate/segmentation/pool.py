"""Cells of the training images, drawn at random: what frozen protocols learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from d3ssl.console import progress
from d3ssl.data.semantic import SemanticSet
from d3ssl.errors import InputError
from d3ssl.evaluate.encode import to_images
from d3ssl.evaluate.features import check_features
from d3ssl.evaluate.segmentation.config import SegmentationConfig
from d3ssl.evaluate.segmentation.features import (
    cells_of,
    dense_levels,
    gather,
    own_part,
    read_samples,
    soft_labels,
)
from d3ssl.models import Backbone
from d3ssl.seeds import numpy_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPool:
    """Cells with the classes of their pixels, on the CPU."""

    x: Float32[Tensor, "N D"]
    """Features, all levels side by side."""
    y: Float32[Tensor, "N classes"]
    """Shares of the classes among the pixels that are not ignored."""
    weight: Float32[Tensor, "N"]
    """Share of the pixels that are not ignored, above 0."""
    widths: tuple[int, ...]
    """Features of each level."""

    def draw(self, count: int, *seed: int | str) -> CellPool:
        """``count`` cells drawn at random; all of them if they are no more."""
        if count >= len(self.x):
            return self
        chosen = np.sort(numpy_generator(*seed).permutation(len(self.x))[:count])
        rows = torch.from_numpy(chosen)
        return CellPool(x=self.x[rows], y=self.y[rows], weight=self.weight[rows], widths=self.widths)


def gather_cells(
    backbone: Backbone,
    images: SemanticSet,
    count: int,
    size: int,
    config: SegmentationConfig,
    seed: int,
) -> CellPool:
    """About ``count`` cells, the same number from every image, of those that are not wholly ignored. Call it inside
    ``frozen``. Several processes share the images out and all get all cells.

    Raises:
        InputError: an image or map cannot be used, or all pixels are ignored.
        D3sslError: features are not finite or all the same.
    """
    share = math.ceil(count / len(images))
    widths = tuple(backbone.channels[-config.levels :])
    x = [np.zeros((0, sum(widths)), dtype=np.float32)]
    y = [np.zeros((0, images.num_classes), dtype=np.float32)]
    weight = [np.zeros(0, dtype=np.float32)]
    mine = own_part(len(images))
    batches = read_samples(
        images,
        mine,
        size=size,
        channels=backbone.in_channels,
        workers=config.workers,
        batch_size=config.batch_size,
    )
    with progress("features of train", len(mine)) as ticker:
        for batch in batches:
            maps = dense_levels(backbone, to_images(backbone, [one.canvas for one in batch]), config.levels)
            joined: Float[Tensor, "B D h w"] = torch.cat(maps, dim=1)
            height, width = joined.shape[2:]
            for sample, own in zip(batch, joined.split(1), strict=True):
                stride = max(1, round(size / height))
                classes, known_share = soft_labels(sample.labels, height, width, stride, images.num_classes)
                known = np.flatnonzero(known_share)
                order = numpy_generator(seed, "cells", images.ids[sample.index]).permutation(len(known))
                chosen = known[order[:share]]
                x.append(cells_of(own)[torch.from_numpy(chosen).to(own.device)].float().cpu().numpy())
                y.append(classes[chosen])
                weight.append(known_share[chosen])
            ticker.advance(len(batch))
    features, shares, counted = (gather(torch.from_numpy(np.concatenate(part))) for part in (x, y, weight))
    if not len(features):
        remedy = "give maps with pixels that are not ignored."
        raise InputError("all pixels of the training images are ignored", path=images.root, remedy=remedy)
    check_features(features, "cells")
    return CellPool(x=features, y=shares, weight=counted, widths=widths)
