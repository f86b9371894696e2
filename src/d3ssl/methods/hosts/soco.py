"""SoCo (arXiv 2106.02637): the same region in two views, read by RoIAlign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3ssl.errors import InputError
from d3ssl.methods.losses import InfoNce, Regression
from d3ssl.methods.plan import Objective, Pair, Plan
from d3ssl.models.heads import Mlp
from d3ssl.models.readers import Box, Pyramid
from d3ssl.views.ops import Crop, Photometric
from d3ssl.views.ops.photometric import SOCO_X1, SOCO_X2
from d3ssl.views.view import RegionsSpec, ViewSpec


@dataclass(frozen=True, kw_only=True)
class Soco:
    """SoCo as in D³SSL's figure: ℓ(x1 → x2) and ℓ(x2_small → x1), weighted ½ each.

    ``three_views`` is SoCo's own FPN variant: four pairs, weighted ¼ each.
    """

    region_path: Literal["c3", "c4", "map", "fpn"] = "c4"
    """c4: RoIAlign before the last stage, which then runs on each region (SoCo's C4 variant; CNNs). c3: before the
    last two, for small images (decided here). map: RoIAlign on the last map (ViTs). fpn: feature pyramid and
    convolutional head (SoCo's FPN variant; CNNs)."""
    roi_size: int = 7
    """Cells per side of RoIAlign. SoCo's C4 uses 14; with 7 the region head costs a quarter (decided here)."""
    three_views: bool = False
    """Compare x1 with x2 and with x2_small, both ways, as SoCo's FPN variant does with its V1, V2 and V3."""
    loss: Literal["regression", "info_nce"] = "regression"
    """Of a pair of rows: cosine regression (SoCo, BYOL) or InfoNCE over the regions of the batch."""
    temperature: float = 0.2
    """Of InfoNCE (DenseCL: 0.2); unused by regression."""
    predictor: bool = True
    """Pass the student's rows through a predictor (needed by regression, or it collapses)."""
    projector_hidden: int = 4096
    """Hidden units of projector and predictor (SoCo, BYOL: 4096)."""
    projector_out: int = 256
    """Size of a row (SoCo, BYOL: 256)."""
    momentum: float = 0.99
    """Of the EMA teacher at the first step; rises to 1 along a half cosine (SoCo)."""
    small_ratio: float = 0.5
    """Side of x2_small as a share of the size (the authors' figure: 112 of 224 px)."""
    x1_area: tuple[float, float] = (1.0, 1.0)
    """Area of x1's window as a share of the image; (1, 1) is the whole image whatever its aspect (SoCo's V1)."""
    x2_area: tuple[float, float] = (0.6, 1.0)
    """Area of x2's window as a share of x1's window (SoCo's V2 for C4; SoCo FPN uses 0.5)."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a window, in pixels of the original image."""
    flip: float = 0.5
    """Probability of a horizontal mirror, drawn for every view by itself."""
    photometric_x1: Photometric = SOCO_X1
    photometric_x2: Photometric = SOCO_X2
    """Of x2 and x2_small (the same draw), and of x3."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        if not 0 < self.small_ratio <= 1:
            raise InputError(f"host.small_ratio is {self.small_ratio}", remedy="give a share above 0, at most 1.")
        if self.loss == "regression" and not self.predictor:
            remedy = "set --host.predictor true, or --host.loss info_nce."
            raise InputError("cosine regression without a predictor collapses", remedy=remedy)
        window = {"aspect": self.aspect, "flip": self.flip}
        head = Mlp(hidden=self.projector_hidden, out=self.projector_out)
        pairs = [("x1", "x2"), ("x2_small", "x1")]
        pairs += [("x2", "x1"), ("x1", "x2_small")] if self.three_views else []
        region = Objective(
            reader=Pyramid(roi_size=self.roi_size)
            if self.region_path == "fpn"
            else Box(path=self.region_path, roi_size=self.roi_size),
            projector=head,
            predictor=head if self.predictor else None,
            loss=InfoNce(temperature=self.temperature) if self.loss == "info_nce" else Regression(),
            pairs=tuple(Pair(student=student, teacher=teacher, weight=1 / len(pairs)) for student, teacher in pairs),
        )
        return Plan(
            name="soco",
            views={
                "x1": ViewSpec(size=size, crop=Crop(area=self.x1_area, **window), photometric=self.photometric_x1),
                "x2": ViewSpec(
                    size=size, source="x1", crop=Crop(area=self.x2_area, **window), photometric=self.photometric_x2
                ),
                "x2_small": ViewSpec(size=round(size * self.small_ratio), source="x2"),
            },
            objectives={"region": region},
            regions=regions,
            momentum=self.momentum,
            cut=("x1", "x2", "x2_small") if self.three_views else ("x1", "x2_small"),
            moved="x2",
        )
