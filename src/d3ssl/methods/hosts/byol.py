"""BYOL (arXiv 2006.07733): two crops of an image, compared as a whole. The image-level baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3ssl.methods.losses import InfoNce, Regression
from d3ssl.methods.plan import Objective, Pair, Plan
from d3ssl.models.heads import Mlp
from d3ssl.models.readers import Box, Image
from d3ssl.views.ops import Crop, Photometric
from d3ssl.views.view import RegionsSpec, ViewSpec

BYOL_X1 = Photometric(blur_p=1.0, solarize_p=0.0)
"""BYOL, table 6: the first crop is always blurred and never solarized."""
BYOL_X2 = Photometric(blur_p=0.1, solarize_p=0.2)


@dataclass(frozen=True, kw_only=True)
class Byol:
    """BYOL: ℓ(x1 → x2) and ℓ(x2 → x1) of the whole images, weighted ½ each.

    De-positioning compares x3 region by region, with a head of its own.
    """

    loss: Literal["regression", "info_nce"] = "regression"
    """Of a pair of rows: cosine regression (BYOL) or InfoNCE over the images of the batch."""
    temperature: float = 0.2
    """Of InfoNCE; unused by regression."""
    projector_hidden: int = 4096
    """Hidden units of projector and predictor (BYOL: 4096)."""
    projector_out: int = 256
    """Size of a row (BYOL: 256)."""
    momentum: float = 0.99
    """Of the EMA teacher at the first step; rises to 1 along a half cosine (BYOL: 0.99 for 300 epochs)."""
    area: tuple[float, float] = (0.08, 1.0)
    """Area of a crop as a share of the image (BYOL)."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a crop, in pixels of the original image."""
    flip: float = 0.5
    """Probability of a horizontal mirror."""
    photometric_x1: Photometric = BYOL_X1
    photometric_x2: Photometric = BYOL_X2
    """Of x2, and of x3."""
    roi_size: int = 7
    """Cells per side of RoIAlign on the last map, by which de-positioning reads x3's regions."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        crop = Crop(area=self.area, aspect=self.aspect, flip=self.flip)
        head = Mlp(hidden=self.projector_hidden, out=self.projector_out)
        loss = InfoNce(temperature=self.temperature) if self.loss == "info_nce" else Regression()
        pairs = tuple(Pair(student=a, teacher=b, weight=0.5) for a, b in (("x1", "x2"), ("x2", "x1")))
        dense = Box(path="map", roi_size=self.roi_size)
        return Plan(
            name="byol",
            views={
                "x1": ViewSpec(size=size, crop=crop, photometric=self.photometric_x1),
                "x2": ViewSpec(size=size, crop=crop, photometric=self.photometric_x2),
            },
            objectives={"image": Objective(reader=Image(), projector=head, predictor=head, loss=loss, pairs=pairs)},
            regions=regions,
            momentum=self.momentum,
            cut=("x1", "x2"),
            moved="x2",
            dense=Objective(reader=dense, projector=head, predictor=head, loss=loss, pairs=()),
        )
