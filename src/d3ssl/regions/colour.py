"""Colour spaces in which selective search looks at an image, as float32 planes of about 0..255."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from d3ssl.regions.compiled import compiled

ColourSpace = Literal["lab", "hsv", "rgb"]


def _linear_light() -> np.ndarray:
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _cube_root() -> np.ndarray:
    t = np.arange(_STEPS + 2) / _STEPS
    return np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29).astype(np.float32)


_STEPS = 4096
_LINEAR = _linear_light()
_ROOT = _cube_root()
# sRGB to XYZ (IEC 61966-2-1), each row divided by the D65 white point.
_XYZ = np.array(
    [
        [0.4124 / 0.95047, 0.3576 / 0.95047, 0.1805 / 0.95047],
        [0.2126, 0.7152, 0.0722],
        [0.0193 / 1.08883, 0.1192 / 1.08883, 0.9505 / 1.08883],
    ],
    dtype=np.float32,
)


def channel_planes(image: UInt8[np.ndarray, "H W C"]) -> Float32[np.ndarray, "C H W"]:
    """The channels of an image as they are, one after the other."""
    return np.ascontiguousarray(np.moveaxis(image, 2, 0), dtype=np.float32)


def convert(image: UInt8[np.ndarray, "H W 3"], space: ColourSpace) -> Float32[np.ndarray, "3 H W"]:
    """An sRGB image in another colour space, each channel scaled to 0..255.

    ``lab``: CIE L*a*b* (L stretched from 0..100 to 0..255, a and b moved by 128). ``hsv``: hue, saturation, value.
    """
    if space == "lab":
        return _lab(image, _LINEAR, _XYZ, _ROOT)
    if space == "hsv":
        return _hsv(image)
    return channel_planes(image)


@compiled
def _lab(image, linear, xyz, root):
    height, width = image.shape[:2]
    out = np.empty((3, height, width), dtype=np.float32)
    steps = np.float32(len(root) - 2)
    f = np.empty(3, dtype=np.float32)
    for i in range(height):
        for j in range(width):
            r, g, b = linear[image[i, j, 0]], linear[image[i, j, 1]], linear[image[i, j, 2]]
            for c in range(3):
                t = (xyz[c, 0] * r + xyz[c, 1] * g + xyz[c, 2] * b) * steps
                k = min(int(t), len(root) - 2)
                f[c] = root[k] + (root[k + 1] - root[k]) * (t - np.float32(k))
            out[0, i, j] = (np.float32(116) * f[1] - np.float32(16)) * np.float32(2.55)
            out[1, i, j] = np.float32(500) * (f[0] - f[1]) + np.float32(128)
            out[2, i, j] = np.float32(200) * (f[1] - f[2]) + np.float32(128)
    return out


@compiled
def _hsv(image):
    height, width = image.shape[:2]
    out = np.empty((3, height, width), dtype=np.float32)
    sixth = np.float32(255.0 / 6.0)
    for i in range(height):
        for j in range(width):
            r, g, b = np.float32(image[i, j, 0]), np.float32(image[i, j, 1]), np.float32(image[i, j, 2])
            top, low = max(r, g, b), min(r, g, b)
            spread = top - low
            hue = np.float32(0)
            if spread > 0:
                if top == r:
                    hue = (g - b) / spread
                    if hue < 0:
                        hue += np.float32(6)
                elif top == g:
                    hue = (b - r) / spread + np.float32(2)
                else:
                    hue = (r - g) / spread + np.float32(4)
            out[0, i, j] = hue * sixth
            out[1, i, j] = np.float32(255) * spread / top if top > 0 else np.float32(0)
            out[2, i, j] = top
    return out
