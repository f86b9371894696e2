"""``d3ssl embed``: images through a frozen backbone, block by block, into one Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import d3ssl
from d3ssl.console import say
from d3ssl.data.image_set import ImageSet
from d3ssl.data.sources import open_images
from d3ssl.embedding.blocks import Work, make_parts
from d3ssl.embedding.config import EmbedConfig
from d3ssl.embedding.plan import begin
from d3ssl.embedding.regions import open_regions
from d3ssl.embedding.table import FORMAT, join
from d3ssl.errors import InputError
from d3ssl.evaluate.cache import weights_digest
from d3ssl.evaluate.features import frozen, pick_device
from d3ssl.models import Backbone
from d3ssl.models.artifact import describe
from d3ssl.models.backbone import check_size
from d3ssl.models.load import load_backbone, manifest_of_spec
from d3ssl.models.readers.box import require_level


def embed(
    backbone: str | Path | nn.Module,
    data: str | Path | ImageSet,
    out: str | Path,
    config: EmbedConfig | None = None,
    *,
    resume: bool = False,
) -> Path:
    """Write the features of images or of regions to a Parquet file, in the order of the data.

    Columns: ``id`` (of the image); of regions also ``region`` (from 0) and ``box`` (xyxy, px of the original image); of
    annotated objects also ``annotation_id`` and ``class_name``; ``feature`` (a list of fixed size). Unreadable images
    are left out, warned of, and named in the file's metadata (``embedding.table.read_about``).

    Args:
        backbone: as ``d3ssl.load_backbone`` takes it; left as it was.
        data: as every command takes it, or an image set.
        out: the file to write.
        config: options; None: features of whole images.
        resume: continue a run that was stopped; nothing is done if ``out`` is whole.

    Returns:
        ``out``.

    Raises:
        InputError: before the work where possible: no such map, images too small for it, regions of other data, a file
            that is there already, other backbone, data or options than the run that is continued; or too many
            unreadable images.
        D3sslError: features that are not finite or too large, or a full disk.
    """
    config, out = config or EmbedConfig(), Path(out)
    config.check()
    network = load_backbone(backbone, in_channels=config.channels)
    images = open_images(data)
    size = config.size or network.input_size
    _check_level(network, config, size)
    regions = None
    if config.kind != "images":
        regions = open_regions(images, config.regions, masks=config.kind == "masks")
    work = Work(backbone=network, images=images, regions=regions, config=config, size=size)
    about = _about(work, describe(network) | (manifest_of_spec(backbone) or {}))
    with begin(out, about, resume) as begun:
        if begun is not None:
            paths, skipped = make_parts(work, begun.folder)
            count = join(out, paths, work.layout, begun.about | {"skipped": skipped})
            say(f"{out}: {count} features of {work.layout.dim} numbers")
    return out


def _about(work: Work, manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "backbone": {"digest": weights_digest(work.backbone), "manifest": manifest},
        "data": {
            "images": len(work.images),
            "digest": work.images.digest(),
            "regions_digest": None if work.regions is None else work.regions.digest(),
        },
        "options": work.config.outcome(work.size, pick_device(work.config.device).type),
        "versions": {"d3ssl": d3ssl.__version__, "torch": torch.__version__, "timm": timm.__version__},
    }


def _check_level(backbone: Backbone, config: EmbedConfig, size: int) -> None:
    """Raise InputError if there is no such map, or if images of this size are too small for it."""
    level = require_level(backbone, config.level)
    check_size(backbone, (size, size))
    name, stride = backbone.timm_name, backbone.strides[level]
    cells = size // stride
    finer = f", or take a finer map: --level {level - 1}" if -level < len(backbone.strides) else ""
    if config.kind != "images" and cells < 2:
        problem = f"images of {size} px are too small for regions: map {level} of '{name}' has one cell of {stride} px"
        raise InputError(problem, remedy=f"set --size {2 * stride} or more{finer}.")
    if cells < 1:
        problem = f"images of {size} px are too small for map {level} of '{name}', whose cells have {stride} px"
        raise InputError(problem, remedy=f"set --size {stride} or more{finer}.")
    try:
        with frozen(backbone, torch.device("cpu")):
            backbone.maps(torch.zeros(1, backbone.in_channels, size, size))
    except RuntimeError as error:  # convolutions without padding
        problem = f"images of {size} px do not pass through '{name}' ({str(error).splitlines()[0]})"
        remedy = f"set another --size; {backbone.input_size} is what it was trained with."
        raise InputError(problem, remedy=remedy) from error
