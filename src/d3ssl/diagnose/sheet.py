"""A contact sheet: what a backbone was probed with, to be looked at."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from d3ssl.diagnose.sets import Probe, ProbeSet

_GAP = 4
_HEAD = 16
_BOX = (255, 60, 60)


def draw_sheet(probes: ProbeSet, objects: int = 6, tile: int = 96) -> Image.Image:
    """One row an object: its contexts, then its places, each with the probed box.

    Args:
        objects: rows.
        tile: side of a picture, px.
    """
    rows = min(objects, len(probes.labels))
    left = _strip(probes.context, rows, tile)
    right = _strip(probes.position, rows, tile)
    sheet = Image.new("RGB", (left.width + right.width + 4 * _GAP, left.height + _HEAD), "white")
    sheet.paste(left, (0, _HEAD))
    sheet.paste(right, (left.width + 4 * _GAP, _HEAD))
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 2), "the same object in several contexts", fill="black")
    draw.text((left.width + 5 * _GAP, 2), "and at several places", fill="black")
    return sheet


def _strip(probe: Probe, rows: int, tile: int) -> Image.Image:
    conditions = probe.images.shape[1]
    strip = Image.new("RGB", (conditions * (tile + _GAP), rows * (tile + _GAP)), "white")
    for row in range(rows):
        for condition in range(conditions):
            picture = _picture(probe.images[row, condition]).resize((tile, tile), Image.Resampling.BILINEAR)
            scale = tile / probe.images.shape[2]
            box = [round(float(value) * scale) for value in probe.boxes[row, condition]]
            ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=_BOX)
            strip.paste(picture, (condition * (tile + _GAP), row * (tile + _GAP)))
    return strip


def _picture(image: UInt8[np.ndarray, "S S ch"]) -> Image.Image:
    """Three channels as they are; of any other number the first, as grey."""
    return Image.fromarray(image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, axis=2))
