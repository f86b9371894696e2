"""Features of objects: images through the backbone, one row an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from d3ssl.console import Ticker, progress, warn
from d3ssl.data.ahead import read_ahead
from d3ssl.data.bad_images import too_many_bad
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.distributed import collective_device, gather_list, gather_rows, rank, world_size
from d3ssl.errors import D3sslError, InputError
from d3ssl.evaluate.encode import encode_masks, encode_regions
from d3ssl.models import Backbone
from d3ssl.models.modes import evaluating


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFeatures:
    """The objects of a set of images."""

    x: Float[Tensor, "N D"]
    """Features, float32 on the CPU, as pooled (not centred, not normalised)."""
    y: Int64[Tensor, "N"]
    """Labels, 0..number of categories − 1."""
    image: Int64[Tensor, "N"]
    """Position of the object's image in the image set."""
    skipped: tuple[str, ...] = ()
    """What was wrong with the images that were left out."""

    def __len__(self) -> int:
        return len(self.x)


def pick_device(wanted: str) -> torch.device:
    """``auto``: a GPU if torch sees one.

    Raises:
        InputError: ``cuda`` without a GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is cuda, but torch sees no GPU", remedy="check the driver, or use --device cpu.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def frozen(backbone: Backbone, device: torch.device) -> Iterator[None]:
    """The backbone in evaluation mode on the device, without gradients; modes of its parts and place are restored."""
    home = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    backbone.to(device)
    try:
        with evaluating(backbone), torch.inference_mode():
            yield
    finally:
        backbone.to(home)


def check_finite(x: Float[Tensor, "N D"], of: str) -> None:
    """Raise D3sslError if features are not finite."""
    if not bool(torch.isfinite(x).all()):
        problem = f"the backbone gives features of {of} that are not finite (NaN or infinite)"
        raise D3sslError(problem, remedy="its weights are damaged or its training diverged; look at the run's log.")


def check_features(x: Float[Tensor, "N D"], of: str) -> None:
    """Make sure that features tell anything at all.

    Raises:
        D3sslError: they are not finite, or the same for all ``of`` them.
    """
    check_finite(x, of)
    x = x.double()
    spread, scale = (x - x.mean(dim=0)).norm(dim=1).max(), x.norm(dim=1).max()
    if bool(spread <= 1e-6 * scale):
        problem = f"the backbone gives all {of} the same feature, so nothing can be measured"
        raise D3sslError(problem, remedy="its training has collapsed; look at the embeddings' spread in the run's log.")


def extract_objects(
    backbone: Backbone,
    images: ImageSet,
    *,
    size: int,
    regions: Literal["box", "mask"] = "box",
    batch_size: int = 64,
    min_side: float = 0.0,
    device: str = "auto",
    workers: int = 0,
    max_bad_share: float = 0.01,
    label: str = "features",
) -> ObjectFeatures:
    """Pool a feature from the box (or mask) of every object (not of crowds), in the order of the images.

    With several processes each reads a share of the images, and all of them get all features.

    Args:
        size: every image is stretched to a square of this side, px, as in training.
        regions: ``box``: as the backbone reads regions. ``mask``: the mean of the last map over the mask; a cell counts
            by the share of it that the mask covers.
        min_side: objects whose shorter side is below this many px of the stretched image are passed over.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: threads that decode; 0: one a core.
        max_bad_share: share of the images that may be unreadable or of another size than annotated; they are left
            out and named.

    Raises:
        InputError: no annotations, no objects, or too many bad images.
    """
    wanted = _usable(images, size, min_side)
    if not wanted:
        remedy = "annotate objects (not crowds), or lower --min_side."
        raise InputError("has no objects to evaluate", path=images.annotated.path, remedy=remedy)
    mine = wanted[rank() :: world_size()]
    features: list[Tensor] = []
    read: list[tuple[int, np.ndarray]] = []
    skipped: list[str] = []
    with frozen(backbone, pick_device(device)), progress(label, len(mine)) as ticker:
        jobs = (partial(_read_item, images, index, rows, size, backbone.in_channels) for index, rows in mine)
        items = read_ahead(jobs, workers, 2 * batch_size)
        for batch in _batches(items, batch_size, skipped, ticker):
            canvases = np.stack([canvas for _, canvas, _, _ in batch])
            if regions == "box":
                features.append(encode_regions(backbone, canvases, [boxes for *_, boxes, _ in batch]))
            else:
                features.append(encode_masks(backbone, canvases, [_masks(images, n, rows) for n, *_, rows in batch]))
            read += [(index, rows) for index, _, _, rows in batch]
    skipped = sorted(gather_list(skipped))
    _check_skipped(images, skipped, len(wanted), max_bad_share)
    labels = [images.annotated.objects(index).labels[rows] for index, rows in read]
    of_image = [np.full(len(rows), index) for index, rows in read]
    return _together(features, labels, of_image, tuple(skipped), backbone)


def _together(
    features: list[Tensor],
    labels: list[np.ndarray],
    of_image: list[np.ndarray],
    skipped: tuple[str, ...],
    backbone: Backbone,
) -> ObjectFeatures:
    """What all processes have read, in the order of the images."""
    none = torch.zeros(0, dtype=torch.int64)
    y = torch.from_numpy(np.concatenate(labels)) if labels else none
    image = torch.from_numpy(np.concatenate(of_image)) if labels else none
    x = torch.cat(features) if features else torch.zeros(0, backbone.num_features)
    if world_size() > 1:
        x, y, image = (gather_rows(part.to(collective_device())).cpu() for part in (x, y, image))
        order = image.argsort(stable=True)
        x, y, image = x[order], y[order], image[order]
    return ObjectFeatures(x=x, y=y, image=image, skipped=skipped)


def _masks(images: ImageSet, index: int, rows: np.ndarray) -> Bool[np.ndarray, "K H W"]:
    return images.annotated.masks(index)[rows]


def _usable(images: ImageSet, size: int, min_side: float) -> list[tuple[int, np.ndarray]]:
    """The images that have objects to evaluate, each with the places of these in its list of objects."""
    found = []
    for index in range(len(images)):
        objects, (height, width) = images.annotated.objects(index), images.annotated.sizes[index]
        sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]) * size / np.array([width, height])
        rows = np.flatnonzero(~objects.crowd & (sides.min(axis=1, initial=np.inf) >= min_side))
        if len(rows):
            found.append((index, rows))
    return found


Item = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Image, canvas (S, S, C), boxes (K, 4) in canvas px, places of the boxes in the image's list of objects."""


def _read_item(images: ImageSet, index: int, rows: np.ndarray, size: int, channels: int) -> Item:
    canvas, found = read_canvas(images.paths[index], size, channels)
    check_size_annotated(images, index, found)
    scale = np.array([size / found[1], size / found[0]] * 2, dtype=np.float32)
    return index, canvas, images.annotated.objects(index).boxes[rows] * scale, rows


def check_size_annotated(images: ImageSet, index: int, found: tuple[int, int]) -> None:
    """Raise InputError if an image is not (height, width) as large as its annotations say."""
    height, width = (int(side) for side in images.annotated.sizes[index])
    if found != (height, width):
        problem = f"is {found[1]}×{found[0]} px, but its annotations say {width}×{height}"
        raise InputError(
            problem, path=images.paths[index], remedy="annotate this image itself, not one of another size."
        )


def _batches(
    items: Iterable[Item | InputError], batch_size: int, skipped: list[str], ticker: Ticker
) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        if isinstance(item, InputError):
            skipped.append(str(item))
            ticker.advance()
            continue
        batch.append(item)
        if len(batch) == batch_size:
            yield batch
            ticker.advance(len(batch))
            batch = []
    if batch:
        yield batch
        ticker.advance(len(batch))


def _check_skipped(images: ImageSet, skipped: list[str], total: int, max_bad_share: float) -> None:
    if not skipped:
        return
    remedy = "repair or remove them, or raise --max_bad_share."
    if too_many_bad(len(skipped), total, max_bad_share):
        problem = f"{len(skipped)} of {total} images cannot be used. The first: {skipped[0]}"
        raise InputError(problem, path=images.root, remedy=remedy)
    warn("\n  ".join([f"{len(skipped)} of {total} images are left out:", *skipped[:20]]))
