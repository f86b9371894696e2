"""Post-training: what a network says of an object alone is taught to it for the object in its surroundings.

Ours (docs/method.md). Related: CLIPSelf (arXiv 2310.01403) teaches a region the frozen network's feature of its crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3ssl.errors import InputError
from d3ssl.methods.losses import InfoNce, Regression
from d3ssl.methods.plan import Objective, Pair, Plan
from d3ssl.models.readers import Box, Cells, Mask, ReaderConfig
from d3ssl.views.ops import Alone, Crop, PasteObjects, Photometric
from d3ssl.views.view import RegionsSpec, ViewSpec

MILD = Photometric(blur_p=0.1)
"""SoCo's jitter and grey without its strong blur and without solarizing: the weights are kept close to photographs."""
PLAIN = Photometric(jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)
"""The pixels as they are."""


@dataclass(frozen=True, kw_only=True)
class Posttrain:
    """A frozen copy of the start sees each region alone; the student sees it in its surroundings. No heads.

    InfoNCE over the regions of the batch, on features minus the teacher's running mean; and a term that keeps the
    student's map of the whole photograph where the start's is, cell by cell.
    """

    teacher: Literal["alone", "whole"] = "alone"
    """What the teacher sees of a region: its own pixels on the mean colour, or all of x1 and x2."""
    reader: Literal["map", "c4", "mask"] = "map"
    """How regions are read: RoIAlign on the maps as they are, the C4 head, or mask pooling on the maps."""
    levels: tuple[int, ...] = (-1,)
    """Which maps are trained, each with a loss of its own: −1 the last, −2 the one before."""
    roi_size: int = 7
    """Cells per side of RoIAlign."""
    temperature: float = 0.1
    """Of InfoNCE."""
    frozen_stride: int = 0
    """The layers up to the map of this stride, px, keep the start's weights, which makes steps cheaper; 0: none."""
    keep: float = 1.0
    """Weight of 1 − cosine between student's and start's map of the whole view x1, per cell; 0: none."""
    paste: bool = False
    """Paste objects of another image into the student's views (copy-paste)."""
    small_ratio: float = 0.75
    """Side of x2_small as a share of the size."""
    x2_area: tuple[float, float] = (0.6, 1.0)
    """Area of x2's window as a share of the image."""
    flip: float = 0.5
    """Probability of a horizontal mirror."""
    photometric: Photometric = MILD
    """Of the student's views."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        if not self.levels or self.keep < 0:
            raise InputError(f"host.levels {self.levels}, host.keep {self.keep}", remedy="give a level, and 0 or more.")
        x1 = ViewSpec(size=size, crop=Crop(area=(1.0, 1.0), flip=self.flip), photometric=self.photometric)
        x2 = ViewSpec(
            size=size, source="x1", crop=Crop(area=self.x2_area, flip=self.flip), photometric=self.photometric
        )
        views = {"x1": x1, "x2": x2, "x2_small": ViewSpec(size=round(size * self.small_ratio), source="x2")}
        seen = {"x1": "x1", "x2_small": "x2_small"}
        if self.paste:
            seen = {name: f"{name}_paste" for name in seen}
            views |= {
                f"{name}_paste": ViewSpec(size=views[name].size, source=name, operations=(PasteObjects(),))
                for name in ("x1", "x2_small")
            }
        if self.teacher == "alone":
            views["photograph"] = ViewSpec(size=size, crop=Crop(area=(1.0, 1.0), flip=0.0), photometric=PLAIN)
            views["alone"] = ViewSpec(size=size, source="photograph", operations=(Alone(),), kept=True)
            pairs = [(seen["x1"], "alone"), (seen["x2_small"], "alone")]
        else:
            pairs = [(seen["x1"], "x2"), (seen["x2_small"], "x1")]
        loss = InfoNce(temperature=self.temperature)
        share = 0.5 / len(self.levels)
        weighted = tuple(Pair(student=a, teacher=b, weight=share) for a, b in pairs)
        objectives = {
            f"region{level}": Objective(reader=self._reader(level), loss=loss, pairs=weighted, centre=True)
            for level in self.levels
        }
        if self.keep:
            kept = (Pair(student="x1", teacher="x1", weight=self.keep / 2),)  # the loss is 2 − 2·cosine
            objectives["keep"] = Objective(reader=Cells(), loss=Regression(), pairs=kept, centre=True, intact=True)
        return Plan(
            name="posttrain",
            views=views,
            objectives=objectives,
            regions=regions,
            momentum=1.0,
            freeze_norm=True,
            frozen_stride=self.frozen_stride,
            boxes_will_do=True,
            # x1 stays whole for the term that keeps its map: that is one pass less than cutting a copy of it
            cut=(seen["x2_small"],),
            moved="x2",
        )

    def _reader(self, level: int) -> ReaderConfig:
        if self.reader == "mask":
            return Mask(level=level)
        return Box(path="c4" if self.reader == "c4" else "map", roi_size=self.roi_size, level=level)
