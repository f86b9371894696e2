"""Pictures of what a diagnosis measures, for one backbone: to be looked at, not to be counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from d3ssl import page
from d3ssl.console import progress
from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.features import REGION, prepare, probed, read_probe
from d3ssl.diagnose.receptive import Receptive, receptive_leakage
from d3ssl.diagnose.sets import Probe, ProbeSet
from d3ssl.evaluate.features import pick_device
from d3ssl.models import Backbone
from d3ssl.models.backbone import HEAD_STAGES
from d3ssl.models.regions_by_layer import layer_maps, layer_names

_BOX = "#e53e3e"
_PLACED = 2
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """PNG files."""

    places: bytes
    """The same object at all places, with its distance from itself in the middle."""
    contexts: bytes
    """Objects in their contexts, with the distance from themselves in the first one."""
    similarity: bytes | None
    """Where else a map looks like the middle of the object, in two contexts; None: the backbone has no maps."""
    receptive: bytes | None
    """Gradients; None: not measured."""


def draw_pictures(backbone: Backbone, probes: ProbeSet, config: DiagnoseConfig) -> Pictures:
    """Draw a few objects of a probe set.

    Distances are d between features centred with the mean of the objects drawn and L2-normalised, ÷ the mean d between
    different ones of these objects: 1 means as far as another object.
    """
    with probed(backbone, pick_device(config.device)):
        some = probes.context.first(_SHOWN)
        total = sum(probe.boxes[..., 0].size for probe in (probes.context, probes.position))
        total += len(some.boxes) if config.gradient_objects else 0
        with progress("pictures", total) as ticker:
            context = read_probe(backbone, probes.context, config.batch_size, ticker, None)[REGION]
            position = read_probe(backbone, probes.position, config.batch_size, ticker, None)[REGION]
            receptive = None
            if config.gradient_objects:
                centres = {REGION: context.flatten(0, 1).mean(dim=0)}
                margin = config.receptive_margin * some.images.shape[2]
                receptive = receptive_leakage(backbone, some, centres, ticker, margin=margin, keep=_SHOWN)
        maps = similarity_maps(backbone, some) if layer_names(backbone) else None
    middle = position.shape[1] // 2
    return Pictures(
        places=_draw_places(probes.position, relative_distances(position, middle), middle),
        contexts=_draw_contexts(probes.context.first(_SHOWN), relative_distances(context, 0)[:_SHOWN]),
        similarity=None if maps is None else _draw_similarity(some, maps),
        receptive=None if receptive is None else _draw_receptive(some, receptive),
    )


def relative_distances(features: Float[Tensor, "O C D"], reference: int) -> np.ndarray:
    """d of every object under every condition from itself under one, ÷ the mean d of different objects under it."""
    phi = features.double()
    phi = torch.nn.functional.normalize(phi - phi.mean(dim=(0, 1)), dim=2)
    own = 1 - (phi * phi[:, reference : reference + 1]).sum(dim=2)
    others = 1 - phi[:, reference] @ phi[:, reference].T
    count = len(phi)
    mean = float(others.sum() - others.diagonal().sum()) / max(count * (count - 1), 1)
    return (own.clamp(min=0) / max(mean, 1e-6)).numpy()


def similarity_maps(backbone: Backbone, probe: Probe) -> Float32[np.ndarray, "O 2 h w"]:
    """Cosine similarity of every cell, of the map that regions are read from, with the cell in the middle of the
    object, under the first and the last context. Cells are centred with the mean of all of them."""
    conditions = (0, probe.images.shape[1] - 1)
    images = np.concatenate([probe.images[:, condition] for condition in conditions])
    boxes = np.concatenate([probe.boxes[:, condition] for condition in conditions])
    shown, _, _ = prepare(backbone, images, boxes, None)
    stages = HEAD_STAGES[backbone.region_path]
    cells = layer_maps(backbone, shown)[-1 - stages].float()
    stride = backbone.strides[-1 - stages]
    cells = torch.nn.functional.normalize(cells - cells.mean(dim=(0, 2, 3), keepdim=True), dim=1)
    middle = torch.from_numpy((boxes[:, :2] + boxes[:, 2:]) / 2 / stride).long()
    columns, rows = middle[:, 0].clamp(max=cells.shape[3] - 1), middle[:, 1].clamp(max=cells.shape[2] - 1)
    points = cells[torch.arange(len(cells)), :, rows, columns]
    similar = torch.einsum("bchw,bc->bhw", cells, points)
    return similar.unflatten(0, (2, -1)).transpose(0, 1).contiguous().cpu().numpy()


def _draw_places(probe: Probe, distances: np.ndarray, middle: int) -> bytes:
    count, places = min(_PLACED, len(probe.images)), probe.images.shape[1]
    side = round(places**0.5)
    size = (1.3 * count * side, 1.55 * side)
    figure, axes = plt.subplots(side, count * side, figsize=size, layout="constrained", squeeze=False)
    for number in range(count):
        for place in range(places):
            axis: Any = axes[place // side, number * side + place % side]
            _show(axis, probe.images[number, place])
            _frame(axis, probe.boxes[number, place])
            axis.set_title("itself" if place == middle else f"{distances[number, place]:.2f}", fontsize=9)
    return page.plot_png(figure)


def _draw_contexts(probe: Probe, distances: np.ndarray) -> bytes:
    count, conditions = probe.images.shape[:2]
    size = (1.3 * conditions, 1.55 * count)
    figure, axes = plt.subplots(count, conditions, figsize=size, layout="constrained", squeeze=False)
    for number in range(count):
        for condition in range(conditions):
            axis = axes[number, condition]
            _show(axis, probe.images[number, condition])
            _frame(axis, probe.boxes[number, condition])
            axis.set_title("itself" if condition == 0 else f"{distances[number, condition]:.2f}", fontsize=9)
    return page.plot_png(figure)


def _draw_similarity(probe: Probe, maps: Float32[np.ndarray, "O 2 h w"]) -> bytes:
    count = min(_PLACED, len(maps))
    figure, axes = plt.subplots(count, 4, figsize=(7, 1.9 * count), layout="constrained", squeeze=False)
    size, drawn = probe.images.shape[2], None
    for number in range(count):
        for view, condition in enumerate((0, probe.images.shape[1] - 1)):
            box = probe.boxes[number, condition]
            shown, map_axis = axes[number, 2 * view], axes[number, 2 * view + 1]
            _show(shown, probe.images[number, condition])
            drawn = map_axis.imshow(maps[number, view], cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, size, size, 0))
            map_axis.set_axis_off()
            for axis in (shown, map_axis):
                _frame(axis, box)
                axis.plot((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, "k+", markersize=8)
            if number == 0:
                shown.set_title(("one context", "another")[view], fontsize=9)
                map_axis.set_title("similarity to +", fontsize=9)
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, shrink=0.8)
    return page.plot_png(figure)


def _draw_receptive(probe: Probe, receptive: Receptive) -> bytes:
    count = len(receptive.maps)
    figure, axes = plt.subplots(2, count, figsize=(2.1 * count, 4.3), layout="constrained", squeeze=False)
    size = probe.images.shape[2]
    for number in range(count):
        gradient = receptive.maps[number]
        _show(axes[0, number], probe.images[number, 0])
        heat = np.sqrt(gradient / max(float(np.quantile(gradient, 0.995)), 1e-30)).clip(0, 1)
        axes[1, number].imshow(heat, cmap="inferno", vmin=0, vmax=1, extent=(0, size, size, 0))
        axes[1, number].set_axis_off()
        axes[1, number].set_title(f"{100 * receptive.share[REGION][number]:.0f} % outside", fontsize=9)
        for axis in axes[:, number]:
            _frame(axis, probe.boxes[number, 0])
    return page.plot_png(figure)


def _show(axis: Axes, image: UInt8[np.ndarray, "S S ch"]) -> None:
    """Three channels as they are; of any other number the first, as grey. In px of the image."""
    picture: Any = image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, axis=2)
    axis.imshow(picture, extent=(0, image.shape[1], image.shape[0], 0), interpolation="nearest")
    axis.set_axis_off()


def _frame(axis: Axes, box: Sequence[float] | Float32[np.ndarray, "4"]) -> None:
    left, top, right, bottom = (float(value) for value in box)
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=_BOX, linewidth=1.2))
