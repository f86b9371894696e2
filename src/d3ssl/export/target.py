"""What a target of ``d3ssl export`` is: which backbones it holds, how it is written, and how it is read back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from d3ssl.errors import D3sslError
from d3ssl.models.backbone import Backbone
from d3ssl.seeds import torch_generator

TOLERANCE = 1e-4
"""Largest difference of maps with which an export counts as verified, in units of ``compare_maps``."""
_SMALL = 64
"""Side of the images that maps are compared on, px, where the network takes any size."""

MapsReader = Callable[[Tensor], Sequence[Tensor]]
"""Images (B, C, H, W) → the deepest maps as the target's tool gives them, (B, C_i, h_i, w_i) each, the deepest last."""
Sizes = Sequence[tuple[int, int, int]]
"""Number of images, height and width, px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of a backbone beside its weights, for what is written with them."""

    spec: str
    """What was given to ``load_backbone``."""
    run: Path | None = None
    """The run's folder."""
    licence: str | None = None
    """Of the weights, as the user states it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How an export was found to be right."""

    how: str
    """One phrase: what was compared."""
    difference: float | None = None
    """Largest difference of the maps (see ``compare_maps``). None: no maps were compared."""


class Target(ABC):
    """A tool's format. One instance stands in the table of targets."""

    what: ClassVar[str]
    """One line for the help."""
    endings: ClassVar[tuple[str, ...]] = ()
    """Of the file's name. Empty: it is a folder."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that writing or verifying imports and that d3ssl does not depend on."""
    install: ClassVar[str] = ""
    """The pip command that installs them."""

    @abstractmethod
    def refuse(self, backbone: Backbone) -> str | None:
        """Why the target cannot hold this backbone; None: it can."""

    @abstractmethod
    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        """Write the file, or make the folder."""

    @abstractmethod
    def verify(self, path: Path, backbone: Backbone) -> Verified:
        """Read it back.

        Raises:
            D3sslError: it is not what it should be.
        """

    @abstractmethod
    def loading(self, backbone: Backbone, path: Path) -> str:
        """The lines that load it."""


def any_sizes(backbone: Backbone) -> Sizes:
    """Two batches of small images that are not square; one, if the network is limited to a size."""
    if backbone.layout.fixed_size is not None:
        return [(2, *backbone.layout.fixed_size)]
    stride = max(backbone.strides)
    side = stride * math.ceil(_SMALL / stride)
    return [(2, side, side + stride), (1, side + stride, side)]


def compare_maps(read: MapsReader, backbone: Backbone, sizes: Sizes) -> Verified:
    """Compare the tool's maps with ours on random images.

    The difference of two maps is the largest absolute one, divided by the largest absolute value of our map where that
    is above 1: what rounding does grows with the values.

    Raises:
        D3sslError: other shapes, or a difference above ``TOLERANCE``.
    """
    largest, count = 0.0, 0
    remedy = "nothing was kept; this is a fault of d3ssl or of the tool's version: please report it."
    for size in sizes:
        images = torch.randn(size[0], backbone.in_channels, *size[1:], generator=torch_generator("export", *size))
        with torch.no_grad():
            own, theirs = backbone.maps(images), list(read(images))
        own, count = own[-len(theirs) :], len(theirs)
        shapes = [tuple(found.shape) for found in own], [tuple(found.shape) for found in theirs]
        if not theirs or shapes[0] != shapes[1]:
            raise D3sslError(f"the exported maps have the shapes {shapes[1]} instead of {shapes[0]}", remedy=remedy)
        for one, other in zip(own, theirs, strict=True):
            scale = max(1.0, float(one.abs().max()))
            found = float((one - other).abs().max()) / scale
            largest = found if math.isnan(found) else max(largest, found)
    if not largest <= TOLERANCE:
        problem = f"the exported maps differ from the backbone's by {largest:.1e}, more than {TOLERANCE:.0e}"
        raise D3sslError(problem, remedy=remedy)
    maps = f"{count} of {len(backbone.channels)} maps" if count < len(backbone.channels) else "all maps"
    shown = " and ".join(f"{size[0]} × {backbone.in_channels} × {size[1]} × {size[2]}" for size in sizes)
    return Verified(how=f"{maps} compared on images of {shown}", difference=largest)
