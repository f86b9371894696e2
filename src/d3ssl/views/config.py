"""What the views of a training step are made of; every choice is an option."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from d3ssl.errors import InputError
from d3ssl.views.geometry import GeometryConfig
from d3ssl.views.photometric import SOCO_X1, SOCO_X2, PhotometricConfig


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The base views x1, x2, x2-small, and what the two modules do to them."""

    size: int = 224
    """Side of x1, x2 and x3, px (SoCo)."""
    small_ratio: float = 0.5
    """Side of x2-small as a share of ``size`` (the authors' figure: 112 of 224 px)."""
    regions_per_image: int = 4
    """K: regions drawn from the candidates that survive in every view (SoCo)."""
    min_visible: float = 0.5
    """Share of a region's area that every view must show (decided here)."""
    min_side: float = 8.0
    """px: shortest side of the visible part of a region in any view, so above all in x2-small (decided here: SoCo's
    32 px of 480 are 7.5 px at 112)."""
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    photometric_x1: PhotometricConfig = SOCO_X1
    photometric_x2: PhotometricConfig = SOCO_X2
    """Of x2, x2-small (the same draw) and x3."""

    cutout_ratio: float = 0.3
    """ρ of Region Collaborative Cutout (D³SSL)."""
    cutout_where: Literal["regions", "context", "both"] = "regions"
    """What is cut from the student's x1 and x2-small: the regions (D³SSL), their surroundings, or both by ρ each."""
    cutout_fill: Literal["mean", "mix"] = "mean"
    """What cut pixels of x1 and x2 show: the mean colour (0 after normalisation), or another image of the batch."""
    dc_background: Literal["keep", "mix"] = "keep"
    """Surroundings of the regions in x1 and x2-small as the student sees them: their own, or another image's."""
    dc_mix_p: float = 1.0
    """Probability of that, for every image by itself; only with ``dc_background: mix``."""
    dc_carries: Literal["box", "mask"] = "box"
    """What of a region stays then: its whole box, or the pixels of its mask (needs ``canvas.labels``)."""
    teacher_sees: Literal["whole", "cut"] = "whole"
    """With the de-coupling module: whole views, or views cut like the student's with draws of their own."""

    shift_mode: Literal["union", "each", "none"] = "each"
    """How x3's foreground is moved: all regions together (the authors' figure), each by itself, or not at all."""
    shift_scale: tuple[float, float] = (0.6, 1.0)
    """Factor by which the moved foreground is rescaled (decided here; (1, 1): moved only)."""
    shift_carries: Literal["box", "mask"] = "box"
    """What moves with a region: its whole box, or the pixels of its mask (needs ``canvas.labels``)."""
    x3_background: Literal["mix", "mean"] = "mix"
    """What x3 shows outside its foreground: another image of the batch, or the mean colour."""
    x3_cutout: bool = True
    """Cut x3's regions by RCC before they move; the holes show the new background."""
    x3_background_cutout: bool = False
    """Cut the regions of the image that becomes x3's background as well, filled with the mean colour."""
    x3_photometric: Literal["fresh", "same"] = "fresh"
    """Photometric draw of x3: its own, or x2's."""

    def __post_init__(self) -> None:
        for name in ("min_visible", "cutout_ratio", "dc_mix_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"views.{name} is {getattr(self, name)}", remedy="give a share, 0..1.")
        if not 0 < self.small_ratio <= 1:
            raise InputError(f"views.small_ratio is {self.small_ratio}", remedy="give a share above 0, at most 1.")
        if self.size < 8 or self.small_size < 8:
            problem = f"views.size {self.size} px with small_ratio {self.small_ratio} gives a view below 8 px"
            raise InputError(problem, remedy="raise either.")
        if self.regions_per_image < 1:
            raise InputError(f"views.regions_per_image is {self.regions_per_image}", remedy="give 1 or more.")
        if self.min_side < 0:
            raise InputError(f"views.min_side is {self.min_side}", remedy="give 0 or more px.")
        if not 0 < self.shift_scale[0] <= self.shift_scale[1]:
            raise InputError(f"views.shift_scale is {self.shift_scale}", remedy="give 0 < low ≤ high.")
        if self.dc_mix_p != 1 and self.dc_background == "keep":
            raise InputError("views.dc_mix_p has no effect", remedy="set views.dc_background to mix.")
        if self.dc_carries == "mask" and self.dc_background == "keep":
            raise InputError("views.dc_carries has no effect", remedy="set views.dc_background to mix.")
        if self.x3_background_cutout and self.x3_background == "mean":
            raise InputError("views.x3_background_cutout has no effect", remedy="set views.x3_background to mix.")

    @property
    def small_size(self) -> int:
        """Side of x2-small, px."""
        return round(self.size * self.small_ratio)
