"""What a segmenter sees: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw

from d3ssl.data.semantic import IGNORED

_GAP = 4
_HEAD = 16
_IGNORED_COLOUR = (255, 255, 255)


@dataclass(slots=True, kw_only=True)
class Shown:
    """One image of the picture."""

    canvas: UInt8[np.ndarray, "S S C"]
    truth: Int64[np.ndarray, "H W"]
    predicted: dict[str, Int64[np.ndarray, "H W"]] = field(default_factory=dict)
    """Protocol → classes."""


def colours(num_classes: int) -> UInt8[np.ndarray, "256 3"]:
    """A colour for every label: black, then Pascal VOC's palette (the bits of a label, from the lowest on, are dealt to
    the highest bits of red, green and blue in turn); white for 255, what is ignored."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for label in range(min(num_classes, 255)):
        rest = label
        for bit in range(8):
            for channel in range(3):
                palette[label, channel] |= ((rest >> channel) & 1) << (7 - bit)
            rest >>= 3
    palette[IGNORED] = _IGNORED_COLOUR
    return palette


def draw_predictions(shown: Sequence[Shown], num_classes: int, tile: int = 128) -> Image.Image:
    """A row an image: the image, the truth (white: ignored), and what each protocol says.

    Args:
        tile: height of a row, px; the aspect of the image is kept.
    """
    names = ["image", "truth", *shown[0].predicted]
    palette = colours(num_classes)
    widths = [max(1, round(tile * one.truth.shape[1] / one.truth.shape[0])) for one in shown]
    column = max(widths) + _GAP
    sheet = Image.new("RGB", (column * len(names), _HEAD + (tile + _GAP) * len(shown)), "#d0d0d0")
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(names):
        draw.text((number * column + _GAP, 2), name, fill="black")
    for row, (one, width) in enumerate(zip(shown, widths, strict=True)):
        photo = one.canvas if one.canvas.shape[2] == 3 else np.repeat(one.canvas[..., :1], 3, axis=2)
        top = _HEAD + row * (tile + _GAP)
        sheet.paste(Image.fromarray(photo).resize((width, tile), Image.Resampling.BILINEAR), (0, top))
        for place, labels in enumerate([one.truth, *one.predicted.values()], start=1):
            picture = Image.fromarray(palette[labels]).resize((width, tile), Image.Resampling.NEAREST)
            sheet.paste(picture, (place * column, top))
    return sheet
