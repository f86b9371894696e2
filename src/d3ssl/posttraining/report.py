"""The report of a post-training: one sentence, the frontier, and one object's similarity maps before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib import pyplot as plt
from torch import Tensor

from d3ssl import page
from d3ssl.contracts import CanvasBatch
from d3ssl.models.backbone import Backbone
from d3ssl.seeds import Draws
from d3ssl.views.maker import ViewMaker
from d3ssl.views.ops import Crop, Photometric
from d3ssl.views.view import RegionsSpec, ViewSpec

_SHOWN = 4


def write_report(
    path: Path, found: dict[str, Any], start: Backbone, end: Backbone, batches: Sequence[CanvasBatch], size: int
) -> None:
    """Write report.html.

    Args:
        found: what metrics.json holds.
        start, end: the network before, and as it is exported.
        batches: held-out images to show.
    """
    parts = [page.verdict([sentence(found)])]
    if found["frontier"]:
        parts += [page.figure(draw_frontier(found), "Held-out regions found again, by strength of the interpolation.")]
    if batches:
        caption = "How similar each cell of the last map is to the middle of the object (cross): before, and after."
        parts += [page.figure(draw_similarity(start, end, batches[0], size), caption)]
    measures = [name for name in ("context_sensitivity", "position_sensitivity") if name in found.get("exported", {})]
    rows = [
        [name.replace("_", " "), *(f"{found[own][name]:.2f}" for own in ("start", "exported"))] for name in measures
    ]
    if rows and "start" in found:
        note = "On procedural objects: 0, surroundings or position do not matter; 1, as much as which object it is."
        parts += [page.heading("Diagnosis"), page.table(["", "start", "exported"], rows, note=note)]
    parts += [
        page.heading("What next"),
        page.paragraph(
            "Another strength in seconds: d3ssl posttrain --out RUN --strength S. Check both ends with labels: "
            "d3ssl evaluate objects --backbone RUN --baseline START --data LABELLED."
        ),
    ]
    page.write_page(path, "Post-training", parts)


def sentence(found: dict[str, Any]) -> str:
    """The conclusion, from the figures."""
    if found["strength"] == 0:
        return "No strength above 0 helped on the held-out images, so the start is exported unchanged."
    own = {row["strength"]: row for row in found["frontier"]}
    start, best = own[0.0], own[found["strength"]]
    return (
        f"Moved onto another photograph, {best['unfamiliar']:.0%} of the held-out regions are found again "
        f"({start['unfamiliar']:.0%} before); in another crop of their own, {best['familiar']:.0%} "
        f"({start['familiar']:.0%} before)."
    )


def draw_frontier(found: dict[str, Any]) -> bytes:
    """Familiar against unfamiliar, a point for every strength."""
    plot, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    x, y = ([row[name] * 100 for row in found["frontier"]] for name in ("familiar", "unfamiliar"))
    axes.plot(x, y, "o-", color=page.COLOURS[2])
    for row, left, bottom in zip(found["frontier"], x, y, strict=True):
        mark = f"{row['strength']:g}" + (" ← exported" if row["strength"] == found["strength"] else "")
        axes.annotate(mark, (left, bottom), xytext=(6, 2), textcoords="offset points", fontsize=8)
    axes.set_xlabel("found again in another crop of the same photograph, %")
    axes.set_ylabel("found again on another photograph, %")
    return page.plot_png(plot)


@torch.no_grad()
def draw_similarity(start: Backbone, end: Backbone, batch: CanvasBatch, size: int) -> bytes:
    """Photographs with one region each, and where else the last map resembles its middle."""
    plain = Photometric(jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)
    whole = ViewSpec(size=size, crop=Crop(area=(1.0, 1.0), flip=0.0), photometric=plain)
    one = RegionsSpec(regions_per_image=1, min_visible=0.0, min_side=0.0)
    views = ViewMaker({"photograph": whole}, one, start.mean, start.std)(batch, Draws(seed=0))
    view, shown = views.views["photograph"], min(_SHOWN, len(batch.canvas))
    middle = (view.boxes[:, 0, :2] + view.boxes[:, 0, 2:]) / 2
    plot, grid = plt.subplots(shown, 3, figsize=(6, 2 * shown), layout="constrained", squeeze=False)
    for column, network in ((1, start), (2, end)):
        maps = network.eval().maps(view.images)[-1]
        for row in range(shown):
            grid[row, column].imshow(_similarity(maps, row, middle[row] / size).numpy(), vmin=0, vmax=1, cmap="viridis")
    mean, std = (view.images.new_tensor(own)[:, None, None] for own in (start.mean, start.std))
    for row in range(shown):
        picture = (view.images[row] * std + mean).clamp(0, 1)
        grid[row, 0].imshow((picture if len(picture) == 3 else picture[:1].expand(3, -1, -1)).permute(1, 2, 0).numpy())
        grid[row, 0].plot(*middle[row].tolist(), "+", color="red", markersize=12)
    for axes in grid.flat:
        axes.axis("off")
    for axes, title in zip(grid[0], ("photograph", "before", "after"), strict=True):
        axes.set_title(title, fontsize=10)
    return page.plot_png(plot)


def _similarity(maps: Float[Tensor, "B C h w"], image: int, place: Float[Tensor, "2"]) -> Float[Tensor, "h w"]:
    """Cosine of every cell with the one at a place (x, y in 0..1), both minus the mean of the batch's maps."""
    centred = maps - maps.mean((0, 2, 3), keepdim=True)
    height, width = maps.shape[2:]
    x, y = min(int(place[0] * width), width - 1), min(int(place[1] * height), height - 1)
    own = centred[image]
    return F.cosine_similarity(own, own[:, y, x][:, None, None], dim=0)
