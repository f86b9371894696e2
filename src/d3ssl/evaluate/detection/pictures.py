"""What was there beside what was found, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Float32, Int64, UInt8
from PIL import Image, ImageDraw

from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.evaluate.detection.coco_eval import Detections

_TILE = 240
_GAP = 6
_COLOURS = ((230, 60, 60), (60, 140, 230), (40, 170, 90), (220, 150, 30), (150, 80, 210), (0, 160, 170))


def draw_detections(
    images: ImageSet, positions: Sequence[int], found: Sequence[Detections], channels: int, score: float
) -> Image.Image:
    """A row for each image: its annotated objects, then the detections of at least ``score``."""
    names = images.annotated.names
    sheet = Image.new("RGB", (2 * _TILE + 3 * _GAP, len(positions) * (_TILE + _GAP) + _GAP), "white")
    for line, (index, own) in enumerate(zip(positions, found, strict=True)):
        canvas, size = read_canvas(images.paths[index], _TILE, channels)
        objects = images.annotated.objects(index)
        kept = own.scores >= score
        masks = [mask for mask, good in zip(own.masks, kept, strict=True) if good] if own.masks is not None else []
        texts = [f"{names[label]} {value:.2f}" for label, value in zip(own.labels[kept], own.scores[kept], strict=True)]
        truth = _tile(canvas, size, objects.boxes, objects.labels, [names[label] for label in objects.labels], [])
        shown = _tile(canvas, size, own.boxes[kept], own.labels[kept], texts, masks)
        top = _GAP + line * (_TILE + _GAP)
        sheet.paste(truth, (_GAP, top))
        sheet.paste(shown, (2 * _GAP + _TILE, top))
    return sheet


def _tile(
    canvas: UInt8[np.ndarray, "S S ch"],
    size: tuple[int, int],
    boxes: Float32[np.ndarray, "n 4"],
    labels: Int64[np.ndarray, "n"],
    texts: Sequence[str],
    masks: Sequence[dict],
) -> Image.Image:
    picture = Image.fromarray(canvas if canvas.shape[2] == 3 else np.repeat(canvas[..., :1], 3, axis=2))
    for mask, label in zip(masks, labels, strict=False):
        veil = Image.fromarray((rle.decode(mask) * 110).astype(np.uint8)).resize(picture.size)
        picture.paste(Image.new("RGB", picture.size, _COLOURS[int(label) % len(_COLOURS)]), mask=veil)
    draw = ImageDraw.Draw(picture)
    for box, label, text in zip(boxes, labels, texts, strict=True):
        colour = _COLOURS[int(label) % len(_COLOURS)]
        x0, y0 = float(box[0]) * _TILE / size[1], float(box[1]) * _TILE / size[0]
        x1, y1 = float(box[2]) * _TILE / size[1], float(box[3]) * _TILE / size[0]
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=2)
        draw.text((x0 + 3, y0 + 2), text, fill="white", stroke_width=1, stroke_fill=colour)
    return picture
