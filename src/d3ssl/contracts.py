"""What crosses the borders between the parts of d3ssl.

Every tensor that one part hands to another is described here: its name, shape, dtype, range and coordinate
frame. The batch flows one way::

    images on disk ──decode, resize──▶ CanvasBatch ──crop, photometric, region operations──▶ ViewSet
        ──student, teacher──▶ rows (N, D) ──loss over pairs of views──▶ one number

Axis names used in shapes

    B   images in the batch of one process        C     image channels
    R   candidate regions per image (padded)      K     chosen regions per image: slots, all of them filled
    S   side of the square canvas, px             H, W  height and width of a view, px
    N   rows of one reader: B·K regions, or B     D     feature dimension

Coordinates are continuous pixels with the origin at the upper left corner of the upper left pixel: pixel (i, j)
covers [j, j + 1) × [i, i + 1). Boxes are xyxy in that frame, so a box's area is (x1 − x0)·(y1 − y0) and the whole
view is (0, 0, W, H). Matrices act on column vectors (x, y, 1) and map canvas coordinates to view coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

T = TypeVar("T")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasBatch:
    """A batch as it travels from the CPU to the device: one decode and one resize per image have been done.

    The canvas is the *whole* image stretched to a square of side S; ``image_size`` keeps the original size, so the
    true aspect ratio is known to whoever samples a crop.
    """

    canvas: UInt8[Tensor, "B C S S"]
    """0..255."""
    image_size: Float[Tensor, "B 2"]
    """Original height and width, px."""
    boxes: Float[Tensor, "B R 4"]
    """Candidate regions, xyxy, canvas px; padding rows are zero."""
    valid: Bool[Tensor, "B R"]
    """False for padding rows."""
    labels: UInt8[Tensor, "B S S"] | None
    """Label map: pixel value r + 1 belongs to candidate r, 0 to none. None if nothing needs masks."""
    index: Int64[Tensor, "B"]
    """Position of the image in its data set."""
    number: Int64[Tensor, "B R"] | None = None
    """Which of all regions of the data set each one is, −1 for padding rows; None if nothing is kept by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The regions that a step is trained on: the same ones in every view, K per image, every slot filled.

    An image with n < K surviving regions repeats them: slot k shows the region of slot ``k mod n``. An image without
    any takes the window that all its views share, with weight 0.
    """

    distinct: Bool[Tensor, "B K"]
    """The slot holds a region that no earlier slot holds: what region operations cut, keep and move."""
    source: Int64[Tensor, "B K"]
    """The distinct slot whose region this slot shows (itself where ``distinct``, or where the image has no region)."""
    weight: Float[Tensor, "B K"]
    """1 / (slots that show this region); 0 in an image without regions. The weights of one region sum to 1."""
    boxes: Float[Tensor, "B K 4"]
    """In the canvas frame: tells which regions of one image overlap."""
    index: Int64[Tensor, "B"]
    """Position of each image in its data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a network sees of a batch, with its regions in the view's own frame.

    Usually B images with K regions each. A view of single regions (see ``views.ops.alone``) holds B·K images, image by
    image, with one region each.
    """

    images: Float[Tensor, "B C H W"]
    """Normalised by the mean and standard deviation of the backbone's input."""
    boxes: Float[Tensor, "B K 4"]
    """The regions, xyxy, view px, clipped to the view."""
    matrix: Float[Tensor, "B 3 3"]
    """Canvas px → view px, as the image was sampled (before a foreground shift, which moves the boxes by itself)."""
    keep: Bool[Tensor, "B 1 H W"] | None = None
    """True where the pixel still shows the image itself (after cutout or mixing); None: everywhere."""
    labels: UInt8[Tensor, "B H W"] | None = None
    """Label map in the view: value k + 1 belongs to the region of the distinct slot k, 0 to none."""
    hidden: Bool[Tensor, "B h w"] | None = None
    """True for the patches of a ViT in whose place the network sees something else; None: none."""
    partner: Int64[Tensor, "B"] | None = None
    """Of which image of the view the hidden patches show the embeddings; None: they show the mask token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSet:
    """All views of one step that a plan's pairs name."""

    views: dict[str, View]
    slots: Slots
    kept: dict[str, dict[str, Float[Tensor, "N D"]]] = field(default_factory=dict)
    """View → head → the teacher's rows, where they were kept from an earlier visit: the view itself is not made."""
    scale: Float[Tensor, ""]
    """What a sum of weighted losses of this process's region rows is multiplied by to give the mean over the rows of
    all processes, times the number of processes (which averaging gradients over processes divides by)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Where rows come from: for a loss, those of all processes in the order of their ranks."""

    image: Int64[Tensor, "M"]
    """Position of the image in its data set: equal for regions of one image, across processes too."""
    boxes: Float[Tensor, "M 4"]
    """xyxy in the canvas frame: two rows of one image overlap where these do."""
    weight: Float[Tensor, "M"]
    """What the row counts (see ``Slots.weight``)."""
    start: int = 0
    """Number of this process's first row among them."""


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Return a copy of a contract (nested dataclasses and dicts) with ``function`` applied to every tensor in it."""
    if isinstance(value, Tensor):
        return function(value)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    return value


def to_device(value: T, device: torch.device | str) -> T:
    """Move a contract to a device (asynchronously from pinned memory)."""
    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))
