"""iBOT (arXiv 2111.07832): a ViT tells the teacher's prototypes of whole images and of patches that it does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3ssl.errors import InputError
from d3ssl.methods.hosts.byol import BYOL_X1, BYOL_X2
from d3ssl.methods.losses import InfoNce, PrototypeCrossEntropy
from d3ssl.methods.plan import CutCopies, Objective, Pair, Plan
from d3ssl.models.heads import Mlp, PrototypeHead
from d3ssl.models.readers import Box, Patch, Token
from d3ssl.views.ops import Crop, HidePatches, MixPatches, Photometric
from d3ssl.views.view import RegionsSpec, ViewSpec

LOCAL = Photometric(blur_p=0.5)
"""iBOT's local crops."""
TEMPERATURES = PrototypeCrossEntropy()
"""iBOT's with a ViT-S: .1 for the student, .04 rising to .07 for the teacher."""


@dataclass(frozen=True, kw_only=True)
class Ibot:
    """ℓ of the [CLS] token between crops + ℓ of the hidden patches of a crop, on prototypes of one shared head.

    De-coupling follows D³SSL's public code: for some of the images a copy of each crop shows patches of another image,
    and the student tells the prototypes of the others. De-positioning compares x3 region by region (decided here), with
    a head of its own and InfoNCE over the regions of the batch.
    """

    patch: int = 16
    """Side of the network's patches, px."""
    prototypes: int = 8192
    """Outputs of the head (iBOT: 8192)."""
    projector_hidden: int = 2048
    """Hidden units of the head (iBOT: 2048)."""
    bottleneck: int = 256
    """Size of what is compared with the prototypes (iBOT: 256)."""
    fixed_length: bool = False
    """Prototypes keep unit length (iBOT: with larger ViTs than ViT-S)."""
    loss: PrototypeCrossEntropy = TEMPERATURES
    """Temperatures and centre; for [CLS] and patches alike."""
    patch_weight: float = 1.0
    """Of the patches' loss; the [CLS] token's weighs 1 (iBOT: 1)."""
    hidden: Literal["block", "rcc"] = "block"
    """Shape of what is hidden (iBOT: block; D³SSL's public code: rcc, regions in a 3 × 3 grid)."""
    hidden_ratio: float = 0.3
    """Mean share of the patches that is hidden (iBOT: .3; D³SSL's public code: .4)."""
    hidden_spread: float = 0.2
    """The share is drawn from ``hidden_ratio`` ± this (iBOT: .2)."""
    hidden_probability: float = 0.5
    """That patches of a crop are hidden at all (iBOT: .5)."""
    momentum: float = 0.996
    """Of the EMA teacher at the first step; rises to 1 along a half cosine (iBOT)."""
    area: tuple[float, float] = (0.14, 1.0)
    """Area of a global crop as a share of the image (iBOT without local crops: .14 to 1; with them: .25 to 1)."""
    local_crops: int = 0
    """Small crops for the [CLS] token (iBOT: 0 or 10; D³SSL's public code: 0)."""
    local_size: int = 96
    """Side of local crops, px (iBOT)."""
    local_area: tuple[float, float] = (0.05, 0.25)
    """Area of a local crop as a share of the image (iBOT)."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a crop, in pixels of the original image."""
    flip: float = 0.5
    """Probability of a horizontal mirror."""
    photometric_x1: Photometric = BYOL_X1
    photometric_x2: Photometric = BYOL_X2
    """Of x2, and of x3."""
    copies: float = 0.25
    """De-coupling: share of the images of which there are copies (D³SSL's public code: .25)."""
    copies_weight: float = 0.3
    """De-coupling: weight of the copies' loss (D³SSL's public code: .3)."""
    copies_ratio: float = 0.4
    """De-coupling: ρ of RCC in the copies, ± .2 (D³SSL's public code: .4)."""
    dense_hidden: int = 4096
    """De-positioning: hidden units of its head (decided here, as SoCo)."""
    dense_temperature: float = 0.2
    """De-positioning: T of InfoNCE (decided here, as DenseCL)."""
    roi_size: int = 7
    """De-positioning: cells per side of RoIAlign on the map (decided here)."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        if self.local_crops < 0 or self.patch_weight < 0 or self.copies_weight < 0:
            problem = f"local_crops {self.local_crops}, weights {self.patch_weight} and {self.copies_weight}"
            raise InputError(f"host.{problem}", remedy="give 0 or more.")
        head = PrototypeHead(
            hidden=self.projector_hidden,
            bottleneck=self.bottleneck,
            out=self.prototypes,
            fixed_length=self.fixed_length,
        )
        seen = {"x1": "x1_hidden", "x2": "x2_hidden"}
        local = [f"local{number + 1}" for number in range(self.local_crops)]
        crossed = [(seen["x1"], "x2"), (seen["x2"], "x1"), *((name, x) for name in local for x in seen)]
        token = tuple(Pair(student=a, teacher=b, weight=1 / len(crossed)) for a, b in crossed)
        patch = tuple(Pair(student=a, teacher=b, weight=self.patch_weight / 2) for b, a in seen.items())
        mixed = MixPatches(patch=self.patch, ratio=self.copies_ratio)
        return Plan(
            name="ibot",
            views=self._views(size, seen, local),
            objectives={
                "token": Objective(reader=Token(), projector=head, loss=self.loss, pairs=token),
                "patch": Objective(reader=Patch(), projector=head, projects_as="token", loss=self.loss, pairs=patch),
            },
            regions=regions,
            momentum=self.momentum,
            cut=("x1", "x2"),
            copies=CutCopies(objective="patch", operation=mixed, share=self.copies, weight=self.copies_weight),
            moved="x2",
            dense=Objective(
                reader=Box(path="map", roi_size=self.roi_size),
                projector=Mlp(hidden=self.dense_hidden),
                loss=InfoNce(temperature=self.dense_temperature),
                pairs=(),
            ),
        )

    def _views(self, size: int, seen: dict[str, str], local: list[str]) -> dict[str, ViewSpec]:
        crop = Crop(area=self.area, aspect=self.aspect, flip=self.flip)
        hide = HidePatches(
            patch=self.patch,
            shape=self.hidden,
            ratio=self.hidden_ratio,
            spread=self.hidden_spread,
            probability=self.hidden_probability,
        )
        views = {
            "x1": ViewSpec(size=size, crop=crop, photometric=self.photometric_x1),
            "x2": ViewSpec(size=size, crop=crop, photometric=self.photometric_x2),
        }
        views |= {own: ViewSpec(size=size, source=name, operations=(hide,)) for name, own in seen.items()}
        small = Crop(area=self.local_area, aspect=self.aspect, flip=self.flip)
        one = ViewSpec(size=self.local_size, crop=small, photometric=LOCAL, shows_regions=False)
        return views | dict.fromkeys(local, one)
