"""Whether the regions are of the kind that a plan reads, told before they are computed."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.errors import InputError
from d3ssl.methods.plan import Plan
from d3ssl.regions.config import PARTITIONS, RegionsConfig

_OBJECTS = "use --proposals.method contrast, or annotations with masks"


def check_proposals(plan: Plan, proposals: RegionsConfig) -> None:
    """Refuse a method of finding regions that cannot give what the plan reads.

    Raises:
        InputError: boxes for a plan that needs masks; a partition for modules that need a background, or of one
            segment per image.
    """
    if plan.needs_masks and not plan.boxes_will_do and not proposals.has_label_maps:
        why = f"--proposals.method {proposals.method}" if proposals.label_maps else "--proposals.label_maps false"
        partition = ", or a partition: felzenszwalb with --proposals.filter false"
        problem = f"the plan '{plan.name}' reads masks, and {why} gives boxes only"
        raise InputError(problem, remedy=f"{_OBJECTS}{partition if plan.partition else ''}.")
    check_partition(plan, proposals.method)
    segments = {"grid": proposals.grid_rows * proposals.grid_columns, "slic": proposals.slic_segments}
    if plan.partition and min(segments.get(proposals.method, 2), proposals.max_regions) < 2:
        _refuse_single(plan)


def check_partition(plan: Plan, method: str) -> None:
    """Refuse a partition for a plan whose modules would find no background in it.

    Raises:
        InputError: the regions of the method fill the image.
    """
    if plan.partition and plan.modules and method in PARTITIONS:
        problem = f"--proposals.method {method} fills the image with regions, so the modules would find no background"
        remedy = f"{_OBJECTS}; or set --method.decouple false --method.deposition false."
        raise InputError(problem, remedy=remedy)


def check_counts(plan: Plan, counts: Sequence[int]) -> None:
    """Refuse a partition of one segment in every image.

    Args:
        counts: regions of each image.

    Raises:
        InputError: no image has two.
    """
    if plan.partition and max(counts) < 2:
        _refuse_single(plan)


def _refuse_single(plan: Plan) -> None:
    problem = f"the plan '{plan.name}' compares the segments of an image, but a partition of one segment is the image"
    raise InputError(problem, remedy="lower --proposals.segment_scale, or give regions of two segments or more.")
