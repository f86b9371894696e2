"""What is embedded, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from d3ssl.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedConfig:
    """What is embedded, and how."""

    of: Literal["images", "boxes", "masks"] | None = None
    """What a row is: an image (the mean of the map), a box (RoIAlign on the map, its mean), or a mask (the mean of the
    map's cells, each by the share of it that the mask covers). None: boxes if regions are given, else images."""
    regions: str | None = None
    """Regions file of d3ssl regions, for boxes or masks; None: the objects that DATA annotates."""
    level: int = -1
    """Which of the backbone's maps: −1 the last, −2 the one before."""
    size: int | None = None
    """Side to which images are stretched, px; None: the backbone's input size (a run's views, or timm's)."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the features in the file; float16 takes half the space and keeps three digits."""
    batch_size: int = 64
    """Images at a time. Another size may change the last digits."""
    channels: int = 3
    """Of the images, for a backbone from timm; a run knows its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    workers: int = 0
    """Threads that decode images; 0: one a core. The file does not depend on it."""
    max_bad_share: float = 0.01
    """Share of unreadable images above which the command fails; up to it they are left out and named."""

    @property
    def kind(self) -> Literal["images", "boxes", "masks"]:
        """What a row is."""
        return self.of or ("images" if self.regions is None else "boxes")

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        rules = {
            "size": self.size is None or self.size >= 1,
            "batch_size": self.batch_size >= 1,
            "channels": self.channels >= 1,
            "workers": self.workers >= 0,
            "max_bad_share": 0 <= self.max_bad_share <= 1,
        }
        for name in (name for name, holds in rules.items() if not holds):
            raise InputError(f"{name} is {getattr(self, name)!r}", remedy="see d3ssl embed --help.")
        if self.kind == "images" and self.regions is not None:
            problem = "a regions file is given, but features of whole images are asked for"
            raise InputError(problem, remedy="choose --of boxes or --of masks, or leave out --regions.")

    def outcome(self, size: int, device: str) -> dict[str, Any]:
        """The options that the features depend on, as they are kept with them.

        Args:
            size: side of the images, px.
            device: ``cpu`` or ``cuda``.
        """
        same = {name: getattr(self, name) for name in ("level", "dtype", "batch_size")}
        return {"of": self.kind, "size": size, "device": device} | same
