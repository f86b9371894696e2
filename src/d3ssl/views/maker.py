"""Make the views of a plan from the canvas: parameters are drawn first, on the CPU, then applied on any device."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View, ViewSet, map_tensors, to_device
from d3ssl.seeds import Draws
from d3ssl.views.choice import choose, slot_labels, survives
from d3ssl.views.colour import normalise
from d3ssl.views.geometry import clip_boxes, map_boxes, warp, warp_labels, window_matrix
from d3ssl.views.ops.photometric import PhotometricParameters
from d3ssl.views.view import RegionsSpec, ViewSpec, check_views

T = TypeVar("T", CanvasBatch, Slots, View)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnViews:
    """Everything that was drawn for a batch, by view; on the CPU, so that every device makes the same views."""

    matrices: dict[str, Float[Tensor, "B 3 3"]]
    """Canvas px → view px."""
    photometric: dict[str, PhotometricParameters]
    operations: dict[str, list[Any]]
    chosen: Int64[Tensor, "B K"]
    """Number of the candidate in every slot."""
    slots: Slots


class ViewMaker:
    """Make a ``ViewSet`` from a ``CanvasBatch``; the same draws give the same views on every device.

    ``sample`` draws (give it the batch before it goes to a GPU, else its boxes are copied back) and ``apply`` makes the
    views where the canvas is; calling the object does both.

    Args:
        views: the table of views, each made from the canvas or from an earlier one.
        regions: how regions are chosen.
        mean, std: normalisation, one value per channel, for pixels in 0..1.
        wanted: the views to return; None: all.

    Raises:
        InputError: the table cannot be made (see ``check_views``).
    """

    def __init__(
        self,
        views: Mapping[str, ViewSpec],
        regions: RegionsSpec,
        mean: Sequence[float],
        std: Sequence[float],
        wanted: Collection[str] | None = None,
    ) -> None:
        check_views(views)
        self.regions, self.mean, self.std = regions, tuple(mean), tuple(std)
        self.wanted = list(views if wanted is None else wanted)
        needed = set(self.wanted)
        for name, spec in reversed(list(views.items())):
            if name in needed and spec.source is not None:
                needed.add(spec.source)
        self.views = {name: spec for name, spec in views.items() if name in needed}

    def __call__(self, batch: CanvasBatch, draws: Draws) -> ViewSet:
        return self.apply(batch, self.sample(batch, draws))

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def sample(self, batch: CanvasBatch, draws: Draws) -> DrawnViews:
        """Draw everything.

        Raises:
            InputError: an operation needs another image to mix with, but the batch holds one image only.
        """
        windows, matrices = self._sample_geometry(batch, draws)
        photometric = {
            name: spec.photometric.sample(batch, draws.generator(name, "photometric"))
            for name, spec in self.views.items()
            if spec.photometric is not None
        }
        shown = {name: spec for name, spec in self.views.items() if spec.shows_regions}
        seen = [(matrices[name], (spec.size, spec.size)) for name, spec in shown.items()]
        alive = survives(batch.boxes.cpu(), seen, self.regions.min_visible, self.regions.min_side) & batch.valid.cpu()
        count = self.regions.regions_per_image
        chosen, slots = choose(batch, alive, count, [windows[name] for name in shown], draws.generator("regions"))
        operations: dict[str, list[Any]] = {}
        for name, spec in self.views.items():
            times: Counter[str] = Counter()
            operations[name] = []
            for operation in spec.operations:
                generator = draws.generator(name, f"{operation.name}{times[operation.name] or ''}")
                operations[name].append(operation.sample(_last(batch, spec.share), count, generator))
                times[operation.name] += 1
        return DrawnViews(matrices=matrices, photometric=photometric, operations=operations, chosen=chosen, slots=slots)

    def _sample_geometry(self, batch: CanvasBatch, draws: Draws) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The window (xyxy in 0..1 of the image) and the matrix of every view."""
        windows: dict[str, Tensor] = {}
        matrices: dict[str, Tensor] = {}
        for name, spec in self.views.items():
            if spec.crop is not None:
                within = None if spec.source is None else windows[spec.source]
                windows[name], flips = spec.crop.sample(batch, within, draws.generator(name, "crop"))
                matrices[name] = window_matrix(windows[name], flips, batch.canvas.shape[-1], (spec.size, spec.size))
            else:
                assert spec.source is not None  # check_views
                windows[name] = windows[spec.source]
                matrices[name] = self._resize_matrix(matrices[spec.source], name) @ matrices[spec.source]
        return windows, matrices

    def _resize_matrix(self, like: Float[Tensor, "B 3 3"], name: str) -> Float[Tensor, "B 3 3"]:
        """From the px of a view's source to its own."""
        spec = self.views[name]
        assert spec.source is not None
        ratio = spec.size / self.views[spec.source].size
        return torch.diag(like.new_tensor([ratio, ratio, 1])).expand_as(like)

    # ---- making -----------------------------------------------------------------------------------------------------

    def apply(self, batch: CanvasBatch, drawn: DrawnViews) -> ViewSet:
        """Make the views that ``sample`` drew, on the canvas's device."""
        device = batch.canvas.device
        slots, chosen = to_device(drawn.slots, device), to_device(drawn.chosen, device)
        labels = None if batch.labels is None else slot_labels(batch.labels, chosen, slots.distinct)
        whole = self._make_whole(batch, drawn, slots, labels)
        views = {name: self._operate(whole[name], slots, name, drawn) for name in self.wanted}
        return ViewSet(views=views, slots=slots, scale=1 / slots.weight.sum().clamp(min=1e-6))

    def _make_whole(
        self, batch: CanvasBatch, drawn: DrawnViews, slots: Slots, labels: UInt8[Tensor, "B S S"] | None
    ) -> dict[str, View]:
        """Every view before its region operations."""
        canvas = batch.canvas.float().div_(255)
        raw: dict[str, Tensor] = {}
        whole: dict[str, View] = {}
        for name, spec in self.views.items():
            same = spec.crop is None and spec.source is not None and self.views[spec.source].size == spec.size
            if spec.photometric is None and same:
                whole[name] = whole[spec.source]  # type: ignore[index]  # same implies a source
                continue
            matrix, size = drawn.matrices[name].to(canvas.device), (spec.size, spec.size)
            if spec.photometric is None:
                source = whole[spec.source]  # type: ignore[index]  # check_views
                images = warp(source.images, self._resize_matrix(matrix, name), size, padding="border")
            else:
                is_known = same and spec.source in raw
                raw[name] = raw[spec.source] if is_known else warp(canvas, matrix, size, padding="border")  # type: ignore[index]
                images = normalise(spec.photometric.apply(raw[name], drawn.photometric[name]), self.mean, self.std)
            boxes = clip_boxes(map_boxes(slots.boxes, matrix), size)[0]
            carried = None if labels is None else warp_labels(labels, matrix, size)
            whole[name] = View(images=images, boxes=boxes, matrix=matrix, labels=carried)
        return whole

    def _operate(self, whole: View, slots: Slots, name: str, drawn: DrawnViews) -> View:
        """Apply the region operations; a slot that repeats a region follows it."""
        slots, view = _last(slots, self.views[name].share), _last(whole, self.views[name].share)
        pixels = view.images
        for operation, own in zip(self.views[name].operations, drawn.operations[name], strict=True):
            view = operation.apply(view, slots, to_device(own, pixels.device), pixels)
        if view.boxes.shape[:2] == slots.source.shape:
            boxes = view.boxes.gather(1, slots.source[..., None].expand_as(view.boxes))
            view = dataclasses.replace(view, boxes=boxes)
        return view


def _last(value: T, share: float) -> T:
    """A contract with the last images of the batch only: the share of them, two or more."""
    if share == 1:
        return value
    batch = len(value.index if isinstance(value, CanvasBatch | Slots) else value.images)  # type: ignore[attr-defined]
    count = min(batch, max(2, round(share * batch)))
    return map_tensors(value, lambda tensor: tensor[-count:])
