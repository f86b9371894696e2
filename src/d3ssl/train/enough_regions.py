"""Whether the images have regions that a training can learn from, told before the first step."""

from __future__ import annotations

import numpy as np

from d3ssl.console import warn
from d3ssl.distributed import rank
from d3ssl.errors import InputError
from d3ssl.train.config import RunConfig
from d3ssl.train.loader import CanvasDataset
from d3ssl.train.region_kinds import check_counts, check_partition

LEAST = 2
"""Images with regions below which there is nothing to compare."""
USUAL = 0.5
"""Share of the images with regions below which it is told (decided here)."""


def check_enough_regions(config: RunConfig, dataset: CanvasDataset) -> None:
    """Refuse data without regions, and warn where most images have none.

    Counted for plans that read regions and whose teacher is a frozen copy of the start: it teaches what it says of
    each region. Where none was found, the whole image stands for one, of which a frozen teacher says nothing new; a
    region whose sides are below ``views.min_side`` in the smallest view is never chosen.

    Raises:
        InputError: fewer than two of the images that are trained on have a region, or a plan that reads a partition
            gets none that it can use.
    """
    plan = config.plan
    check_partition(plan, str(dataset.regions.metadata.get("method")))
    check_counts(plan, [len(dataset.regions.boxes[row]) for row in dataset.rows])
    if not plan.is_frozen or all(o.reader.rows != "region" for o in plan.objectives.values()):
        return
    side = min(plan.views[name].size for name in plan.used_views)
    found, large = 0, 0
    for row in dataset.rows:
        height, width = dataset.regions.sizes[row]
        boxes = dataset.regions.boxes[row]
        share = (boxes[:, 2:] - boxes[:, :2]) / np.array([width, height])
        is_part = (share < 1 - 1e-3).any(1)  # smaller than the image
        found += bool(is_part.any())
        large += bool((is_part & (share.min(1) * side >= config.views.min_side)).any())
    if large >= max(LEAST, USUAL * len(dataset)):
        return
    small = f"; {found - large} have only regions that a view shows below {config.views.min_side:g} px"
    count = f"{large or 'none'} of the {len(dataset)} training images"
    problem = f"{count} {'has' if large == 1 else 'have'} a region to learn from"
    problem += small if found > large else ""
    remedy = _remedy(config, is_found=found >= max(LEAST, USUAL * len(dataset)))
    if large < LEAST:
        raise InputError(problem, path=config.data, remedy=remedy)
    if rank() == 0:
        warn(f"{config.data}: {problem}; the others teach nothing", remedy)


def _remedy(config: RunConfig, *, is_found: bool) -> str:
    """What gives more regions: smaller ones if there are some, else those of another method."""
    if is_found:
        return f"lower --views.min_side, now {config.views.min_side:g} px, or raise --views.size; see `d3ssl views`."
    annotated = "--proposals.method annotations where the data has objects"
    if config.regions is not None:
        return (
            f"make the regions file {config.regions} again by another method: d3ssl regions {config.data} --out FILE "
            "--method contrast, or --method annotations where the data has objects."
        )
    if config.proposals.method == "contrast":
        lower = f"--proposals.contrast_min {config.proposals.contrast_min - 0.3:.1f}"
        return f"find more with {lower} or --proposals.method felzenszwalb; or {annotated}."
    return f"--proposals.method contrast, or {annotated}."
