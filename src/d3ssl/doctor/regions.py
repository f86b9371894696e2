"""Checks of where the regions of the planned run come from."""

from __future__ import annotations

import numpy as np

from d3ssl.data.image_set import ImageSet
from d3ssl.doctor.check import MAX_LISTED, Check, Status, percent
from d3ssl.errors import InputError
from d3ssl.regions.annotations import count_without_mask
from d3ssl.regions.table import RegionTable, check_regions, read_regions
from d3ssl.train import RunConfig
from d3ssl.train.region_kinds import check_proposals


def check_region_choice(images: ImageSet, run: RunConfig) -> list[Check]:
    """A given regions file against the images; else whether the method can work on them."""
    if run.regions is not None:
        try:
            table = read_regions(run.regions)
            check_regions(table, images)
        except InputError as error:
            return [_fail(str(error).splitlines()[0], error.remedy or "")]
        return [_labels(run, any(png is not None for png in table.label_maps)), _amounts(images, table)]
    method, annotations = run.proposals.method, images.annotations
    if method == "annotations" and annotations is None:
        remedy = "give data with objects, or choose another --proposals.method."
        return [_fail("proposals.method is annotations, but these images have none.", remedy)]
    has_maps = run.proposals.has_label_maps
    if method == "annotations" and annotations is not None:
        lacking, count = count_without_mask(annotations)
        has_maps = has_maps and lacking < max(count, 1)
    found = _labels(run, has_maps)
    if found.status == "ok":
        try:
            check_proposals(run.plan, run.proposals)
        except InputError as error:
            return [_fail(f"{error.problem}.", error.remedy or "")]
    return [found]


def _fail(finding: str, remedy: str) -> Check:
    return Check(name="regions", status="fail", finding=finding, remedy=remedy)


def _labels(run: RunConfig, has_maps: bool) -> Check:
    if run.plan.needs_masks and not has_maps:
        remedy = "use --proposals.method contrast or felzenszwalb, or boxes (--dc.background, --dp.carried_by)."
        return _fail("the method needs masks, but the regions are boxes only.", remedy)
    return Check(name="regions", status="ok", finding=run.regions or f"by {run.proposals.method}")


def _amounts(images: ImageSet, table: RegionTable) -> Check:
    """An image with one region alone trains, but has nothing beside the region."""
    counts = {name: len(boxes) for name, boxes in zip(table.ids, table.boxes, strict=True)}
    own = np.array([counts.get(name, 0) for name in images.ids])
    single = own < 2
    number = int(single.sum())
    status: Status = "warning" if number > len(own) / 2 else "note" if number else "ok"
    text = f"median {np.median(own):g}" + (
        f"; {percent(number, len(own))} images have fewer than two." if number else ""
    )
    listed = tuple(images.ids[i] for i in np.flatnonzero(single)[:MAX_LISTED])
    remedy = "lower --min_share of d3ssl regions, or choose another --method." if status == "warning" else ""
    return Check(name="regions per image", status=status, finding=text, remedy=remedy, count=number, images=listed)
