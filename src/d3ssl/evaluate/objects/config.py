"""How objects are classified from frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from d3ssl.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsConfig:
    """How objects are classified from frozen features."""

    regions: Literal["box", "mask"] = "box"
    """What a feature is pooled over: the object's box, read as the backbone reads regions; or its mask, on the last
    map (each cell counts by the share of it that the mask covers)."""
    size: int | None = None
    """Side to which images are stretched, px; None: the backbone's input size (a run's views, or timm's)."""
    k: int = 20
    """Neighbours (design: the ICLR 2024 paper's object classification)."""
    temperature: float = 0.07
    """A neighbour of cosine similarity s weighs exp(s / temperature) (arXiv 2111.07832)."""
    max_train_objects: int | None = 3000
    """Images are drawn at random until they hold this many training objects; None: all. 3000: minutes on a CPU."""
    max_val_objects: int | None = 1500
    """The same for each validation split; 1500 give an interval of about ±2.5 points."""
    val_share: float = 0.2
    """Share of the images that is tested on, where DATA is one set without splits."""
    shots: tuple[int, ...] = (1, 5, 10)
    """Few-shot classification from so many training objects per class; empty: none."""
    shot_draws: int = 10
    """Draws of those objects, over which the accuracy is averaged."""
    min_side: float = 0.0
    """Objects whose shorter side in the stretched image is below this many px are passed over."""
    unknown_classes: Literal["error", "leave_out"] = "error"
    """What to do about validation objects of classes that have no training object."""
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
    workers: int = 0
    """Threads that decode images; 0: one a core."""
    max_bad_share: float = 0.01
    """Share of unreadable images above which the evaluation fails."""
    seed: int = 0
    """Decides which objects are drawn, the linear probe's held-out part and the bootstrap."""

    def reading(self) -> dict[str, Any]:
        """How ``load_backbone`` is to read a backbone."""
        return {"in_channels": self.in_channels, "region_path": self.region_path, "roi_size": self.roi_size}

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        rules = {
            "size": self.size is None or self.size >= 16,
            "k": self.k >= 1,
            "temperature": self.temperature > 0,
            "max_train_objects": self.max_train_objects is None or self.max_train_objects >= 10,
            "max_val_objects": self.max_val_objects is None or self.max_val_objects >= 10,
            "val_share": 0 < self.val_share < 1,
            "shots": all(shots >= 1 for shots in self.shots),
            "shot_draws": self.shot_draws >= 1,
            "draws": self.draws >= 100,
            "batch_size": self.batch_size >= 1,
            "roi_size": self.roi_size is None or self.roi_size >= 1,
            "in_channels": self.in_channels >= 1,
            "max_bad_share": 0 <= self.max_bad_share <= 1,
        }
        for name in (name for name, holds in rules.items() if not holds):
            problem = f"objects option {name} = {getattr(self, name)!r} is out of range"
            raise InputError(problem, remedy="see d3ssl evaluate objects --help.")
