"""How regions are found, chosen and kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from d3ssl.errors import InputError

Method = Literal["selective-search", "contrast", "felzenszwalb", "slic", "grid", "annotations"]
PARTITIONS: tuple[Method, ...] = ("felzenszwalb", "slic", "grid")
"""Methods whose regions fill the image."""
LABEL_MAP_LIMIT = 255
"""Most regions a label map of 8 bits can hold."""


@dataclass(frozen=True, kw_only=True)
class RegionsConfig:
    """Options of ``d3ssl regions``."""

    method: Method = "selective-search"
    """What makes the regions. Boxes: selective-search. Boxes and label maps: contrast (salient: what differs from its
    surroundings), felzenszwalb, slic, grid, and annotations that have masks."""
    size: int = 192
    """Short side in px at which regions are computed; smaller images are not enlarged. Selective search at 192 px finds
    98 % of the boxes that OpenCV's finds at 480 px (benchmarks/selective_search.py)."""
    max_regions: int = 64
    """Most regions per image, 1..255. Boxes: those that together cover all proposals best come first; contrast: those
    with most of it; segments and annotations: the largest."""
    filter: bool | None = None
    """Apply SoCo's filter, the next four options. None: for selective-search and felzenszwalb only."""
    min_side: float = 32.0
    """Least side of a box, px in an image whose short side is 480 px (COCO's usual one, where SoCo's 32 px count)."""
    max_ratio: float = 3.0
    """Most a box's longer side may be in units of its shorter one (SoCo)."""
    min_share: float = 0.3
    """Least square root of a box's share of the image's area (SoCo)."""
    max_share: float = 0.8
    """Most square root of a box's share of the image's area (SoCo)."""
    colours: Literal["lab", "hsv", "both"] = "both"
    """Colour spaces of selective search; both is twice the work of one. Images other than RGB are taken as they are."""
    scales: tuple[float, ...] = (50.0, 100.0)
    """Selective search starts from one segmentation for each of these thresholds (grey levels times px at ``size``);
    contrast from the first."""
    sigma: float = 0.8
    """Smoothing before a segmentation, px at ``size`` (Felzenszwalb and Huttenlocher)."""
    min_size: int = 20
    """Least segment that selective search and contrast start from, px at ``size`` (the paper's values suit larger
    images)."""
    contrast_min: float = 0.8
    """Least contrast of the method contrast: the share of a region's colours that the segments around it lack, less the
    share of its outline on the image's border. Lower: more regions, fewer of them objects (benchmarks/regions.py)."""
    contrast_min_area: float = 0.02
    """Least region of the method contrast, share of the image."""
    contrast_max_area: float = 0.35
    """Largest region of the method contrast, share of the image."""
    segment_scale: float = 1000.0
    """Threshold of the method felzenszwalb, in grey levels times px of an image of 224×224 px (DetCon)."""
    segment_min_share: float = 0.02
    """Least segment of the method felzenszwalb, share of the image (DetCon: 1000 px of 224×224)."""
    slic_segments: int = 16
    """Segments aimed at by the method slic (DetCon: 16 masks per image)."""
    slic_compactness: float = 10.0
    """Weight of nearness against colour in the method slic (scikit-image's default)."""
    grid_rows: int = 3
    """Rows of the method grid."""
    grid_columns: int = 3
    """Columns of the method grid."""
    label_maps: bool = True
    """Keep the label maps of the methods that make them."""
    max_bad_share: float = 0.01
    """Share of unreadable images above which the work fails; up to it they are left out and listed. So are three in any
    case, if they are a tenth at most; 0 permits none."""
    workers: int = 0
    """Processes; 0: one for each core. The result is the same."""

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if not low <= value <= high:
                    problem = f"the option '{name}' of the regions is {value}"
                    raise InputError(problem, remedy=f"choose a value between {low:g} and {high:g}.")
        if not self.scales:
            raise InputError("the option 'scales' of the regions is empty", remedy="name one threshold or more.")
        if self.contrast_min_area > self.contrast_max_area:
            problem = (
                f"contrast_min_area ({self.contrast_min_area}) is above contrast_max_area ({self.contrast_max_area})"
            )
            raise InputError(problem, remedy="choose contrast_min_area below contrast_max_area.")
        if self.min_share > self.max_share:
            problem = f"the option 'min_share' ({self.min_share}) is above 'max_share' ({self.max_share})"
            raise InputError(problem, remedy="choose min_share below max_share.")

    @property
    def filtered(self) -> bool:
        """Whether SoCo's filter applies."""
        return self.method in ("selective-search", "felzenszwalb") if self.filter is None else self.filter

    @property
    def has_label_maps(self) -> bool:
        """Whether the regions come with label maps (annotations: as far as they have masks)."""
        return self.method != "selective-search" and self.label_maps

    @property
    def is_compiled(self) -> bool:
        """Whether the method is compiled at its first call, which takes some seconds."""
        return self.method in ("selective-search", "contrast", "felzenszwalb")

    def parameters(self) -> dict[str, Any]:
        """The options that the result depends on."""
        free = ("max_bad_share", "workers")
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key not in free
        }


_LIMITS = {
    "size": (16, 4096),
    "max_regions": (1, LABEL_MAP_LIMIT),
    "min_side": (0, 480),
    "max_ratio": (1, 1e6),
    "min_share": (0, 1),
    "max_share": (0, 1),
    "scales": (0, 1e6),
    "sigma": (0, 16),
    "min_size": (1, 1e6),
    "contrast_min": (-1, 1),
    "contrast_min_area": (0, 1),
    "contrast_max_area": (0, 1),
    "segment_scale": (0, 1e9),
    "segment_min_share": (0, 1),
    "slic_segments": (1, LABEL_MAP_LIMIT),
    "slic_compactness": (1e-6, 1e6),
    "grid_rows": (1, 15),
    "grid_columns": (1, 15),
    "max_bad_share": (0, 1),
    "workers": (0, 4096),
}
