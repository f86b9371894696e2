"""DenseCL (arXiv 2011.09157): MoCo v2 on whole images and, beside it, on the cells of their maps."""

from __future__ import annotations

from dataclasses import dataclass

from d3ssl.errors import InputError
from d3ssl.methods.losses import InfoNce, QueueInfoNce
from d3ssl.methods.plan import Objective, Pair, Plan
from d3ssl.models.heads import Mlp
from d3ssl.models.readers import Box, Grid, Image
from d3ssl.views.ops import Crop, Photometric
from d3ssl.views.view import RegionsSpec, ViewSpec

MOCO = Photometric(saturation=0.4, blur_p=0.5)
"""MoCo v2 (arXiv 2003.04297): jitter .4, .4, .4, .1 with probability .8, grey .2, blur .5."""


@dataclass(frozen=True, kw_only=True)
class Densecl:
    """(1 − λ)·ℓ of whole images + λ·ℓ of cells, x1 → x2, each against a queue of its own.

    A cell of x1 belongs to the cell of x2 whose backbone features are most similar. De-positioning compares x3 region
    by region, with a head of its own and InfoNCE over the regions of the batch.
    """

    dense: float = 0.5
    """λ, 0..1 (DenseCL: .5)."""
    temperature: float = 0.2
    """T (DenseCL, MoCo v2: .2)."""
    queue: int = 65536
    """Keys in each queue (DenseCL, MoCo v2: 65,536). Fewer than the images, or an image meets its own keys."""
    grid: int = 7
    """S, cells per side (DenseCL: 7, the last map at 224 px)."""
    level: int = -1
    """Which map the cells are of: −1 the last (DenseCL), −2 the one before, for small images."""
    projector_hidden: int = 2048
    """Hidden units of the heads (DenseCL, MoCo v2: 2048)."""
    projector_out: int = 128
    """Size of a row (DenseCL, MoCo v2: 128)."""
    momentum: float = 0.999
    """Of the EMA teacher, the same at every step (DenseCL, MoCo v2: .999)."""
    area: tuple[float, float] = (0.2, 1.0)
    """Area of a crop as a share of the image (DenseCL, MoCo v2: .2 to 1)."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a crop, in pixels of the original image."""
    flip: float = 0.5
    """Probability of a horizontal mirror (MoCo v2: .5)."""
    photometric: Photometric = MOCO
    """Of both crops, and of x3."""
    roi_size: int = 7
    """Cells per side of RoIAlign on the last map, by which de-positioning reads x3's regions (decided here)."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        if not 0 <= self.dense <= 1:
            raise InputError(f"host.dense is {self.dense}", remedy="give a share, 0..1 (DenseCL: 0.5).")
        crop = Crop(area=self.area, aspect=self.aspect, flip=self.flip)
        head = Mlp(hidden=self.projector_hidden, out=self.projector_out, norm=False)
        loss = QueueInfoNce(temperature=self.temperature, size=self.queue)
        image = Pair(student="x1", teacher="x2", weight=1 - self.dense)
        cell = Pair(student="x1", teacher="x2", weight=self.dense, match="feature")
        grid = Grid(side=self.grid, level=self.level)
        return Plan(
            name="densecl",
            views={name: ViewSpec(size=size, crop=crop, photometric=self.photometric) for name in ("x1", "x2")},
            objectives={
                "image": Objective(reader=Image(), projector=head, loss=loss, pairs=(image,)),
                "cell": Objective(reader=grid, projector=head, loss=loss, pairs=(cell,)),
            },
            regions=regions,
            momentum=self.momentum,
            momentum_end=self.momentum,
            cut=("x1",),
            moved="x1",
            dense=Objective(
                reader=Box(path="map", roi_size=self.roi_size),
                projector=head,
                loss=InfoNce(temperature=self.temperature),
                pairs=(),
            ),
        )
