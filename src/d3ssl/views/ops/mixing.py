"""Background mixing: what does not belong to the regions of an image is replaced with another image."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.errors import InputError
from d3ssl.views.masks import Carrier, own_pixels
from d3ssl.views.ops.operation import Operation


@dataclass(frozen=True, kw_only=True)
class MixBackground(Operation):
    """Replace the surroundings of the regions with another image of the batch."""

    name: ClassVar[str] = "mix_background"
    carried_by: Carrier = "box"
    """What of a region stays: its whole box, or the pixels of its mask."""

    @property
    def needs_masks(self) -> bool:
        return self.carried_by == "mask"

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> Int64[Tensor, "B"]:
        """The partner of every image."""
        return sample_partners(len(batch.canvas), generator, batch.index)

    def apply(self, view: View, slots: Slots, drawn: Int64[Tensor, "B"], whole: Tensor) -> View:
        own = own_pixels(view, slots, self.carried_by)
        images = mix_background(view.images, own, whole[drawn])
        return dataclasses.replace(view, images=images, keep=own if view.keep is None else view.keep & own)


@dataclass(frozen=True, kw_only=True)
class FillHoles(Operation):
    """Show another image of the batch wherever the view does not show its own (after a cutout or a shift)."""

    name: ClassVar[str] = "fill_holes"

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> Int64[Tensor, "B"]:
        """The partner of every image."""
        return sample_partners(len(batch.canvas), generator, batch.index)

    def apply(self, view: View, slots: Slots, drawn: Int64[Tensor, "B"], whole: Tensor) -> View:
        if view.keep is None:
            return view
        return dataclasses.replace(view, images=mix_background(view.images, view.keep, whole[drawn]))


def sample_partners(
    batch: int, generator: torch.Generator | None = None, index: Int64[Tensor, "B"] | None = None
) -> Int64[Tensor, "B"]:
    """Draw for every image another one, so that none is its own partner and each is partner once.

    The images are put in a random ring and each takes the next one (uniform over all rings).

    Args:
        generator: None: torch's global one.
        index: which image of the data set each one is. One that is twice in the batch (at the end of an epoch) is
            passed over as its own partner; the next one in the ring takes its place.

    Returns:
        Places in the batch, on the generator's device: a permutation without fixed points if all images differ.

    Raises:
        InputError: there is one image only.
    """
    if batch < 2:
        raise InputError(
            f"background mixing needs another image, but the batch has {batch}",
            remedy="use batches of two images or more (of each process and accumulated part), or give backgrounds.",
        )
    ring = torch.randperm(batch, generator=generator, device="cpu" if generator is None else generator.device)
    partners = torch.empty_like(ring)
    partners[ring] = ring.roll(-1)
    if index is None:
        return partners
    following, index = partners.clone(), index.to(partners.device)
    for _ in range(batch):
        same = index[partners] == index
        if not same.any():
            return partners
        partners[same] = following[partners[same]]
    remedy = "use a data set of two images or more."
    raise InputError("background mixing needs another image, but the batch holds one image only", remedy=remedy)


def mix_background(
    images: Float[Tensor, "B C H W"],
    keep: Bool[Tensor, "B 1 H W"],
    backgrounds: Float[Tensor, "B C H W"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B C H W"]:
    """Replace every pixel that is not kept with the pixel of another image at the same place.

    One of D³SSL's augmentations (arXiv 2303.16947).

    Args:
        images: any range, on any device.
        keep: True where the image's own pixel stays.
        backgrounds: what to show elsewhere; None: other images of the batch (``sample_partners``).
        generator: for the choice among the batch; None: torch's global one.

    Returns:
        New images; no pixel of ``images[b]`` outside ``keep[b]`` is in image b, unless ``backgrounds`` has it.

    Raises:
        InputError: one image only and no backgrounds.
    """
    if backgrounds is None:
        backgrounds = images[sample_partners(len(images), generator).to(images.device)]
    return torch.where(keep, images, backgrounds)
