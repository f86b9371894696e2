"""DetCon (arXiv 2103.10957): the segments of an image, told apart from each other and from those of other images."""

from __future__ import annotations

from dataclasses import dataclass

from d3ssl.errors import InputError
from d3ssl.methods.hosts.byol import BYOL_X1, BYOL_X2
from d3ssl.methods.losses import InfoNce
from d3ssl.methods.plan import Objective, Pair, Plan
from d3ssl.models.heads import Mlp
from d3ssl.models.readers import Mask
from d3ssl.views.ops import Crop, Photometric
from d3ssl.views.view import RegionsSpec, ViewSpec

SAME = 0.99
"""IoU of two boxes of one image above which they are the same segment in two slots. The segments of a partition do not
overlap, although their boxes do, so all others are negatives (DetCon, equation 2)."""


@dataclass(frozen=True, kw_only=True)
class Detcon:
    """DetCon-B: ℓ(x1 → x2) and ℓ(x2 → x1) of the segments' features, weighted ½ each.

    The regions are the segments of a partition of the image, up to ``views.regions_per_image`` (DetCon: 16). A
    partition leaves no background, so with a module the regions have to be objects.
    """

    temperature: float = 0.1
    """Of InfoNCE (DetCon, section 3)."""
    projector_hidden: int = 4096
    """Hidden units of projector and predictor (DetCon-B, as BYOL)."""
    projector_out: int = 256
    """Size of a row (DetCon-B, as BYOL)."""
    momentum: float = 0.996
    """Of the EMA teacher at the first step; rises to 1 along a half cosine (DetCon-B)."""
    area: tuple[float, float] = (0.08, 1.0)
    """Area of a crop as a share of the image (DetCon, as BYOL)."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a crop, in pixels of the original image."""
    flip: float = 0.5
    """Probability of a horizontal mirror."""
    photometric_x1: Photometric = BYOL_X1
    photometric_x2: Photometric = BYOL_X2
    """Of x2, and of x3."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        if regions.regions_per_image < 2:
            problem = "a partition with one segment per image is the image itself"
            raise InputError(problem, remedy="set --views.regions_per_image to 2 or more (DetCon: 16).")
        crop = Crop(area=self.area, aspect=self.aspect, flip=self.flip)
        head = Mlp(hidden=self.projector_hidden, out=self.projector_out)
        segment = Objective(
            reader=Mask(),
            projector=head,
            predictor=head,
            loss=InfoNce(temperature=self.temperature, max_iou=SAME),
            pairs=tuple(Pair(student=a, teacher=b, weight=0.5) for a, b in (("x1", "x2"), ("x2", "x1"))),
        )
        return Plan(
            name="detcon",
            views={
                "x1": ViewSpec(size=size, crop=crop, photometric=self.photometric_x1),
                "x2": ViewSpec(size=size, crop=crop, photometric=self.photometric_x2),
            },
            objectives={"segment": segment},
            regions=regions,
            momentum=self.momentum,
            partition=True,
            cut=("x1", "x2"),
            moved="x2",
        )
