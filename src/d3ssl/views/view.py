"""A view as data: a chain from the canvas, or from an earlier view, to what a network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from d3ssl.errors import InputError, nearest
from d3ssl.views.ops.crop import Crop
from d3ssl.views.ops.operation import Operation
from d3ssl.views.ops.photometric import Photometric


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Source → crop → resize → photometric → region operations.

    A view with a photometric draw of its own starts from the canvas, in its source's window; one without starts from
    its source's pixels as they are before that one's region operations.
    """

    size: int
    """Side, px."""
    source: str | None = None
    """An earlier view; None: the canvas."""
    crop: Crop | None = None
    """Inside the source's window; None: that window itself."""
    photometric: Photometric | None = None
    """None: the source's pixels."""
    operations: tuple[Operation, ...] = ()
    share: float = 1.0
    """Of the images of a batch (of each process and part) that the view shows, 0..1: the last ones, two or more. Such a
    view has no regions."""
    shows_regions: bool = True
    """Regions are chosen among those that the view shows; False: it has none, such as a small crop for whole images."""
    kept: bool = False
    """Nothing in the chain is random, so a frozen teacher's rows of a region are the same at every visit: they are
    computed at the first one and kept."""

    @property
    def hides_patches(self) -> bool:
        """Whether a network sees something else in place of some patches."""
        return any(operation.patch_size is not None for operation in self.operations)


@dataclass(frozen=True, kw_only=True)
class RegionsSpec:
    """Which regions a step is trained on: a random few of the candidates that every view shows."""

    regions_per_image: int = 4
    """K (SoCo: 4)."""
    min_visible: float = 0.5
    """Share of a region's area that every view must show, 0..1 (decided here)."""
    min_side: float = 8.0
    """px: shortest side of the visible part of a region in any view (decided here: SoCo's 32 px of 480 are 7.5 px at
    112)."""

    def __post_init__(self) -> None:
        if self.regions_per_image < 1:
            raise InputError(f"views.regions_per_image is {self.regions_per_image}", remedy="give 1 or more.")
        if not 0 <= self.min_visible <= 1:
            raise InputError(f"views.min_visible is {self.min_visible}", remedy="give a share, 0..1.")
        if self.min_side < 0:
            raise InputError(f"views.min_side is {self.min_side}", remedy="give 0 or more px.")


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(RegionsSpec):
    """What the views of every host have in common."""

    size: int = 224
    """Side of the full views, px (SoCo, BYOL)."""


def check_views(views: Mapping[str, ViewSpec]) -> None:
    """Refuse a table of views that cannot be made.

    Raises:
        InputError: a view made from one that does not exist or comes later, one without pixels, or one below 8 px.
    """
    earlier: list[str] = []
    for name, spec in views.items():
        if spec.source is not None and spec.source not in earlier:
            later = "a later view" if spec.source in views else "a view that does not exist"
            remedy = "put it before this one." if spec.source in views else nearest(spec.source, earlier)
            raise InputError(f"view '{name}' is made from {later}, '{spec.source}'", remedy=remedy)
        if spec.source is None and (spec.crop is None or spec.photometric is None):
            remedy = "give it a crop and a photometric draw, or a source."
            raise InputError(f"view '{name}' is made from the canvas without a crop or a photometric", remedy=remedy)
        if spec.crop is not None and spec.photometric is None:
            remedy = "give it a photometric draw of its own."
            raise InputError(f"view '{name}' crops, but takes its pixels from '{spec.source}'", remedy=remedy)
        if not 0 < spec.share <= 1:
            raise InputError(f"view '{name}' shows a share of {spec.share}", remedy="give a share above 0, at most 1.")
        if spec.size < 8:
            raise InputError(f"view '{name}' is {spec.size} px", remedy="raise --views.size: 8 px or more.")
        earlier.append(name)
