"""All views of a training step, made from the canvas: base views, de-coupled views, the de-positioning view."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from d3ssl.contracts import CanvasBatch, View, ViewSet
from d3ssl.errors import InputError
from d3ssl.views.choice import choose, slot_boxes, slot_labels, survives
from d3ssl.views.config import ViewsConfig
from d3ssl.views.cutout import CutoutParameters, apply_context_cutout, apply_cutout, sample_cutout
from d3ssl.views.geometry import clip_boxes, map_boxes, sample_flips, sample_windows, warp, warp_labels, window_matrix
from d3ssl.views.masks import union_mask
from d3ssl.views.mixing import mix_background, sample_partners
from d3ssl.views.photometric import PhotometricParameters, apply_photometric, normalise, sample_photometric
from d3ssl.views.shift import ShiftParameters, apply_shift, sample_shift, shift_boxes, shift_matrices


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionParameters:
    """What was drawn to cut and mix one view."""

    cutout: CutoutParameters
    mix: Float[Tensor, "B"]
    """Uniform in 0..1: the surroundings are mixed where it is below ``dc_mix_p``."""
    partners: Int64[Tensor, "B"] | None
    """The other image that each one is mixed with; None in a batch of one image, where nothing can be mixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParameters:
    """Everything that was drawn for a batch. On the CPU, so that every device makes the same views."""

    matrix_x1: Float[Tensor, "B 3 3"]
    matrix_x2: Float[Tensor, "B 3 3"]
    """Canvas px → view px."""
    photometric_x1: PhotometricParameters
    photometric_x2: PhotometricParameters
    photometric_x3: PhotometricParameters
    chosen: Int64[Tensor, "B K"]
    """Number of the candidate in every slot."""
    valid: Bool[Tensor, "B K"]
    student_x1: RegionParameters
    student_x2_small: RegionParameters
    teacher_x1: RegionParameters
    teacher_x2: RegionParameters
    student_x3: RegionParameters
    shift: ShiftParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """The views before any module, and x3's source: x2's window under x3's photometric draw."""

    x1: View
    x2: View
    x2_small: View
    x3: View | None


class D3Views:
    """Make a ``ViewSet`` from a ``CanvasBatch``; the same generator state gives the same views on every device.

    As D³SSL's figure (arXiv 2303.16947): x1 is a window of the image, x2 a crop of x1's window, x2-small is x2 at half
    size. With de-coupling the student sees x1 and x2-small after Region Collaborative Cutout. With de-positioning it
    also sees x3: x2 after Region Collaborative Cutout, its foreground moved, all else replaced with another image.
    The draws of the base views do not depend on the modules: host and D³SSL see the same ones.

    ``sample`` draws (on the CPU; give it the batch before it goes to a GPU, else its boxes are copied back) and
    ``apply`` makes the views where the canvas is; calling the object does both.

    Args:
        config: what the views are made of.
        mean, std: normalisation, a value a channel, for pixels in 0..1.
        decouple, deposition: switch the two modules.
    """

    def __init__(
        self, config: ViewsConfig, mean: Sequence[float], std: Sequence[float], *, decouple: bool, deposition: bool
    ) -> None:
        self.config = config
        self.mean, self.std = tuple(mean), tuple(std)
        self.decouple, self.deposition = decouple, deposition
        self._size = (config.size, config.size)
        self._small = (config.small_size, config.small_size)

    def __call__(self, batch: CanvasBatch, generator: torch.Generator) -> ViewSet:
        return self.apply(batch, self.sample(batch, generator))

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def sample(self, batch: CanvasBatch, generator: torch.Generator) -> ViewParameters:
        """Draw everything.

        Args:
            generator: on the CPU.

        Raises:
            InputError: one image only, but the options need another one to mix with; masks are asked for, but the
                batch has no label maps.
        """
        config, count, slots = self.config, len(batch.canvas), self.config.regions_per_image
        self._check(batch)
        matrix_x1, matrix_x2 = self._sample_geometry(batch, generator)
        photometric_x1 = sample_photometric(count, config.photometric_x1, generator)
        photometric_x2 = sample_photometric(count, config.photometric_x2, generator)
        seen = [(matrix_x1, self._size), (matrix_x2, self._size), (self._shrink(matrix_x2), self._small)]
        alive = survives(batch.boxes.cpu(), seen, config.min_visible, config.min_side) & batch.valid.cpu()
        chosen, valid = choose(alive, slots, generator)
        return ViewParameters(
            matrix_x1=matrix_x1,
            matrix_x2=matrix_x2,
            photometric_x1=photometric_x1,
            photometric_x2=photometric_x2,
            chosen=chosen,
            valid=valid,
            student_x1=_sample_regions(batch, slots, generator),
            student_x2_small=_sample_regions(batch, slots, generator),
            teacher_x1=_sample_regions(batch, slots, generator),
            teacher_x2=_sample_regions(batch, slots, generator),
            student_x3=_sample_regions(batch, slots, generator),
            shift=sample_shift(count, slots, generator),
            photometric_x3=self._sample_photometric_x3(photometric_x2, count, generator),
        )

    def _check(self, batch: CanvasBatch) -> None:
        config = self.config
        mixes = self.deposition and config.x3_background == "mix"
        mixes = mixes or (self.decouple and "mix" in (config.cutout_fill, config.dc_background))
        if mixes and len(batch.canvas) < 2:
            problem = "views are mixed with other images of the batch, but it has one only"
            raise InputError(problem, remedy="use two images or more (of each process and accumulated part).")
        masked = {
            "shift_carries": self.deposition and config.shift_carries == "mask",
            "dc_carries": self.decouple and config.dc_carries == "mask",
        }
        for name in (name for name, wanted in masked.items() if wanted and batch.labels is None):
            problem = f"views.{name} is mask, but the regions come without label maps"
            raise InputError(problem, remedy=f"set canvas.labels to true, or views.{name} to box.")

    def _sample_geometry(
        self, batch: CanvasBatch, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 3 3"]]:
        geometry, count, side = self.config.geometry, len(batch.canvas), batch.canvas.shape[-1]
        window_x1 = sample_windows(batch.image_size, geometry.x1_area, geometry.aspect, generator)
        window_x2 = sample_windows(batch.image_size, geometry.x2_area, geometry.aspect, generator, within=window_x1)
        flip_x1 = sample_flips(count, geometry.flip, generator)
        flip_x2 = sample_flips(count, geometry.flip, generator)
        matrix_x1 = window_matrix(window_x1, flip_x1, side, self._size)
        return matrix_x1, window_matrix(window_x2, flip_x2, side, self._size)

    def _sample_photometric_x3(
        self, photometric_x2: PhotometricParameters, count: int, generator: torch.Generator
    ) -> PhotometricParameters:
        if self.config.x3_photometric == "same":
            return photometric_x2
        return sample_photometric(count, self.config.photometric_x2, generator)

    def _shrink(self, matrix: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3 3"]:
        """The matrix of a view of full size followed by the step to x2-small."""
        ratio = self._small[0] / self._size[0]
        return matrix * matrix.new_tensor([ratio, ratio, 1])[:, None]

    # ---- making -----------------------------------------------------------------------------------------------------

    def apply(self, batch: CanvasBatch, parameters: ViewParameters) -> ViewSet:
        """Make the views that ``sample`` drew, on the canvas's device."""
        device = batch.canvas.device
        chosen, valid = (value.to(device, non_blocking=True) for value in (parameters.chosen, parameters.valid))
        boxes = slot_boxes(batch.boxes, chosen, valid)
        labels = None if batch.labels is None else slot_labels(batch.labels, chosen, valid)
        base = self._make_base(batch, boxes, labels, parameters)
        teacher_x1, teacher_x2, student_x1, small = base.x1, base.x2, base.x1, base.x2_small
        if self.decouple:
            student_x1 = self._decouple(base.x1, valid, parameters.student_x1)
            small = self._decouple(base.x2_small, valid, parameters.student_x2_small)
        if self.decouple and self.config.teacher_sees == "cut":
            teacher_x1 = self._decouple(base.x1, valid, parameters.teacher_x1)
            teacher_x2 = self._decouple(base.x2, valid, parameters.teacher_x2)
        return ViewSet(
            teacher_x1=teacher_x1,
            teacher_x2=teacher_x2,
            student_x1=student_x1,
            student_x2_small=small,
            student_x3=None if base.x3 is None else self._deposition(base.x3, valid, parameters),
            valid=valid,
            canvas_boxes=boxes,
            index=batch.index,
        )

    def _make_base(
        self,
        batch: CanvasBatch,
        boxes: Float[Tensor, "B K 4"],
        labels: UInt8[Tensor, "B S S"] | None,
        parameters: ViewParameters,
    ) -> _Base:
        canvas = batch.canvas.float().div_(255)
        matrix_x1, matrix_x2 = (m.to(canvas.device) for m in (parameters.matrix_x1, parameters.matrix_x2))
        raw_x1 = warp(canvas, matrix_x1, self._size, padding="border")
        raw_x2 = warp(canvas, matrix_x2, self._size, padding="border")
        x1 = self._view(raw_x1, parameters.photometric_x1, matrix_x1, boxes, labels)
        x2 = self._view(raw_x2, parameters.photometric_x2, matrix_x2, boxes, labels)
        x3 = None
        if self.deposition:
            same = self.config.x3_photometric == "same"
            x3 = x2 if same else self._view(raw_x2, parameters.photometric_x3, matrix_x2, boxes, labels)
        return _Base(x1=x1, x2=x2, x2_small=self._make_small(x2, boxes, labels), x3=x3)

    def _view(
        self,
        raw: Float[Tensor, "B C H W"],
        photometric: PhotometricParameters,
        matrix: Float[Tensor, "B 3 3"],
        boxes: Float[Tensor, "B K 4"],
        labels: UInt8[Tensor, "B S S"] | None,
    ) -> View:
        size = raw.shape[2], raw.shape[3]
        images = normalise(apply_photometric(raw, photometric), self.mean, self.std)
        return _with_regions(images, matrix, boxes, labels, size)

    def _make_small(self, x2: View, boxes: Float[Tensor, "B K 4"], labels: UInt8[Tensor, "B S S"] | None) -> View:
        """x2 at the smaller size, so with its photometric draw."""
        step = self._shrink(torch.eye(3, device=x2.images.device).expand_as(x2.matrix))
        images = warp(x2.images, step, self._small, padding="border")
        return _with_regions(images, self._shrink(x2.matrix), boxes, labels, self._small)

    def _decouple(self, view: View, valid: Bool[Tensor, "B K"], drawn: RegionParameters) -> View:
        """Cut the view, and replace its surroundings where that was drawn."""
        config, images, size = self.config, view.images, (view.images.shape[2], view.images.shape[3])
        kept = torch.ones_like(images[:, :1], dtype=torch.bool)
        if config.cutout_where != "context":
            kept = kept & apply_cutout(view.boxes, valid, size, config.cutout_ratio, drawn.cutout)
        if config.cutout_where != "regions":
            kept = kept & apply_context_cutout(view.boxes, valid, size, config.cutout_ratio, drawn.cutout)
        own = torch.ones_like(kept)
        if config.dc_background == "mix":
            mixed = (drawn.mix < config.dc_mix_p).to(images.device)[:, None, None, None]
            own = ~mixed | self._own_pixels(view, valid)
        if config.cutout_fill == "mix":
            shown = mix_background(images, kept & own, _partners(images, drawn))
        else:
            shown = images if config.dc_background == "keep" else mix_background(images, own, _partners(images, drawn))
            shown = shown * kept
        return dataclasses.replace(view, images=shown, keep=kept & own)

    def _own_pixels(self, view: View, valid: Bool[Tensor, "B K"]) -> Bool[Tensor, "B 1 H W"]:
        """The pixels of the regions: of their boxes or of their masks."""
        if self.config.dc_carries == "box" or view.labels is None:
            return union_mask(view.boxes, valid, (view.images.shape[2], view.images.shape[3]))
        return (view.labels > 0)[:, None]

    def _deposition(self, view: View, valid: Bool[Tensor, "B K"], parameters: ViewParameters) -> View:
        """Cut the regions, move them, and fill everything else with another image."""
        config, drawn, images = self.config, parameters.student_x3, view.images
        kept = torch.ones_like(images[:, :1], dtype=torch.bool)
        cut = kept
        if config.x3_cutout or config.x3_background_cutout:
            cut = apply_cutout(view.boxes, valid, self._size, config.cutout_ratio, drawn.cutout)
        matrices = shift_matrices(
            view.boxes, valid, self._size, parameters.shift, mode=config.shift_mode, scale=config.shift_scale
        )
        foreground = cut if config.x3_cutout else kept
        masked = config.shift_carries == "mask"
        moved, keep, labels = apply_shift(images, foreground, view.boxes, valid, matrices, view.labels, masked=masked)
        if config.x3_background == "mix":
            others = _partners(images * cut if config.x3_background_cutout else images, drawn)
            moved = mix_background(moved, keep, others)
        return View(
            images=moved,
            boxes=shift_boxes(view.boxes, valid, matrices, self._size),
            matrix=view.matrix,
            keep=keep,
            labels=labels,
        )


def _sample_regions(batch: CanvasBatch, slots: int, generator: torch.Generator) -> RegionParameters:
    count = len(batch.canvas)
    has_others = bool((batch.index != batch.index[0]).any())
    return RegionParameters(
        cutout=sample_cutout(count, slots, generator),
        mix=torch.rand(count, generator=generator),
        partners=sample_partners(count, generator, batch.index) if has_others else None,
    )


def _partners(images: Float[Tensor, "B C H W"], drawn: RegionParameters) -> Float[Tensor, "B C H W"]:
    """The other image for each one."""
    if drawn.partners is None:
        raise InputError("a batch of one image cannot be mixed", remedy="use two images or more.")
    return images[drawn.partners.to(images.device)]


def _with_regions(
    images: Float[Tensor, "B C H W"],
    matrix: Float[Tensor, "B 3 3"],
    boxes: Float[Tensor, "B K 4"],
    labels: UInt8[Tensor, "B S S"] | None,
    size: tuple[int, int],
) -> View:
    """A view with its regions carried through the same matrix; slots that are not valid stay zero."""
    mapped, _ = clip_boxes(map_boxes(boxes, matrix), size)
    mapped = mapped * (boxes[..., 2:] > boxes[..., :2]).all(dim=-1, keepdim=True)
    carried = None if labels is None else warp_labels(labels, matrix, size)
    return View(images=images, boxes=mapped, matrix=matrix, labels=carried)
