"""What a backbone is probed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from d3ssl.errors import InputError

PaddingMode = Literal["zeros", "circular", "reflect", "replicate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnoseConfig:
    """Probe images: objects cut out and pasted onto controlled contexts and at controlled places."""

    size: int | None = None
    """Side of the probe images, px; None: the backbone's input size (a run's views, or timm's)."""
    objects: int = 64
    """Objects of each probe set, drawn evenly from the classes. With three sets and a timm test_resnet at 96 px: under
    a minute on one core, most of it for ``layers``."""
    seeds: int = 3
    """Probe sets, each with other objects, contexts and neighbours."""
    object_side: float = 0.4
    """Longer side of every probed object, share of the image."""
    contexts: int = 5
    """Contexts of each object; it stays in the middle."""
    uniform_contexts: int = 1
    """How many of the contexts are of one colour; the others are crops of other images."""
    neighbours: int = 2
    """Objects of other classes beside the probed one in every context, 0..8."""
    neighbour_side: float = 0.26
    """Longer side of a neighbour, share of the image: at this one it does not reach the object."""
    neighbour_classes: int = 4
    """Classes of neighbours that are to be read from the object's feature (neighbour leakage): those with the most
    objects. 0: not measured."""
    other_sides: tuple[float, ...] = (0.2,)
    """Further sizes of the objects (longer side, share of the image) at which context and position sensitivity are
    measured."""
    grid: int = 3
    """Places a side at which an object stands on grey; it is always inside the image as a whole."""
    place_step: int | None = None
    """Move the places towards the middle until they are whole multiples of this from it, px. With a multiple of the
    stride of the map that regions are read from, an object lies on the map's cells alike everywhere, and what is left
    of position sensitivity is the place itself. None: from border to border."""
    min_side: int = 16
    """Least longer side of an object in its original image, px."""
    layers: bool = True
    """Measure every map of the network too, and every object by its mask beside its box."""
    blocks: int = 4
    """Of a ViT, how many of its blocks, evenly spaced."""
    gradient_objects: int = 16
    """Objects of each probe set whose gradients are computed for receptive leakage. 0: not measured."""
    receptive_margin: float = 0.0
    """Width of a border around the box that counts as inside it in receptive leakage, share of the image."""
    padding: tuple[PaddingMode, ...] = ()
    """What if the convolutions padded differently? Position sensitivity under each of these modes, without training."""
    draws: int = 2000
    """Bootstrap samples of the intervals."""
    batch_size: int = 64
    """Images at a time."""
    region_path: Literal["c3", "c4", "map"] | None = None
    """How regions are read (see ``d3ssl pretrain``); None: as the run was trained; from timm: c4, or map for ViTs. Give
    a baseline from timm what the run has, or the comparison is not fair."""
    roi_size: int | None = None
    """Cells a side of RoIAlign; None: as the run was trained; from timm: 7."""
    in_channels: int = 3
    """Of the images, for a backbone from timm; a run knows its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    max_bad_share: float = 0.01
    """Share of unreadable images, of those tried for a probe set, above which the diagnosis fails. Up to it they are
    left out and named; so are three in any case, if they are a tenth at most."""
    seed: int = 0
    """Decides objects, contexts, places of neighbours and the bootstrap."""

    def reading(self) -> dict[str, Any]:
        """How ``load_backbone`` is to read a backbone."""
        return {"in_channels": self.in_channels, "region_path": self.region_path, "roi_size": self.roi_size}

    def check(self) -> None:
        """Raise InputError for values with which no probes can be made."""
        inner = (1 - self.object_side) / 2
        largest = 0.8 if self.neighbours == 0 else 1 - 2 * self.neighbour_side
        rules = {
            "size": self.size is None or self.size >= 32,
            "objects": self.objects >= 4,
            "seeds": self.seeds >= 1,
            "object_side": 0.05 <= self.object_side <= 0.8,
            "contexts": self.contexts >= 2,
            "uniform_contexts": 0 <= self.uniform_contexts <= self.contexts,
            "neighbours": 0 <= self.neighbours <= 8,
            "neighbour_side": 0.05 <= self.neighbour_side <= inner or self.neighbours == 0,
            "neighbour_classes": self.neighbour_classes == 0 or self.neighbour_classes >= 2,
            "other_sides": all(0.05 <= side <= largest for side in self.other_sides),
            "grid": self.grid >= 2,
            "place_step": self.place_step is None or self.place_step >= 1,
            "min_side": self.min_side >= 2,
            "blocks": self.blocks >= 1,
            "gradient_objects": self.gradient_objects >= 0,
            "receptive_margin": 0 <= self.receptive_margin < 1,
            "padding": len(set(self.padding)) == len(self.padding),
            "draws": self.draws >= 100,
            "batch_size": self.batch_size >= 1,
            "roi_size": self.roi_size is None or self.roi_size >= 1,
            "in_channels": self.in_channels >= 1,
            "max_bad_share": 0 <= self.max_bad_share <= 1,
        }
        for name in (name for name, holds in rules.items() if not holds):
            problem = f"diagnose option {name} = {getattr(self, name)!r} is out of range"
            more = f" It fits beside the object up to {inner:.2f}." if name == "neighbour_side" else ""
            raise InputError(problem, remedy="see d3ssl diagnose --help." + more)
