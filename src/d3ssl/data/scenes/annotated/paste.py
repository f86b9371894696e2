"""Pasting without a trace that tells anything: what an object's edges are, and what fills the place it was cut from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from d3ssl.data.scenes.config import Blend
from d3ssl.data.scenes.objects import Sprite

FEATHER = 2
"""Pixels over which a feathered edge fades."""
SIGMA = 1.0
"""Standard deviation of a gaussian edge, px."""


class Cut(NamedTuple):
    """An object cut from a canvas."""

    hard: Sprite
    """Its mask's pixels."""
    soft: Sprite
    """The same with the edges of a blend."""
    left: int
    """Where it was, px."""
    top: int


def shrunk_mask(mask: Bool[np.ndarray, "H W"], size: int, least: float) -> Bool[np.ndarray, "S S"]:
    """A mask stretched to a square canvas as its photograph is: the pixels of which it covers a share ≥ ``least``; of
    an object that is too thin for that, those of which it covers most.

    Args:
        least: 0..1; 0: any share.
    """
    plane = Image.fromarray(mask.astype(np.float32))
    share = np.asarray(plane.resize((size, size), Image.Resampling.BOX))
    return (share > 0) & (share >= min(least, float(share.max())))


def blended(image: UInt8[np.ndarray, "S S 3"], mask: Bool[np.ndarray, "S S"], blend: Blend) -> Cut:
    """Cut an object from a canvas. Edges fade inwards, so that nothing of its own surroundings comes along."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside, pixels = mask[window], image[window]
    hard, soft = (_sprite(pixels, alpha) for alpha in (inside.astype(float), _alpha(inside, blend)))
    return Cut(hard, soft, int(columns[0]), int(rows[0]))


def _alpha(mask: Bool[np.ndarray, "h w"], blend: Blend) -> Float[np.ndarray, "h w"]:
    if blend == "none":
        return mask.astype(float)
    around = np.pad(mask, 4)  # at the border of a photograph, where it is cut off, an object fades too
    if blend == "feathered":
        alpha = np.minimum(np.asarray(distance_transform_edt(around)) / (FEATHER + 1), 1)
    else:  # half of a straight edge's blur lies inside: from 0 at the edge to 1
        alpha = np.clip(2 * gaussian_filter(around.astype(float), SIGMA) - 1, 0, 1) * around
    return alpha[4:-4, 4:-4]


def _sprite(pixels: UInt8[np.ndarray, "h w 3"], alpha: Float[np.ndarray, "h w"]) -> Sprite:
    levels = np.round(255 * alpha).astype(np.uint16)
    colour = (pixels * levels[..., None] + 127) // 255
    return Sprite(colour.astype(np.uint8), levels.astype(np.uint8))


def paint_over(image: UInt8[np.ndarray, "S S 3"], hole: Bool[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S 3"]:
    """The image with a hole filled smoothly from around it (biharmonic inpainting); all else as it was."""
    from skimage.restoration import inpaint_biharmonic  # slow to import, and only these scenes need it

    if not hole.any():
        return image
    if hole.all():  # nothing to fill it from
        return np.broadcast_to(image.mean(axis=(0, 1)).astype(np.uint8), image.shape).copy()
    filled = np.round(255 * inpaint_biharmonic(image, hole, channel_axis=2)).astype(np.uint8)
    return np.where(hole[..., None], filled, image)
