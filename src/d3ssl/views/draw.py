"""Draw what is trained on: the canvas with its regions, and every view with the chosen regions, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d3ssl.contracts import CanvasBatch, View, ViewSet
from d3ssl.errors import InputError

_SLOT_COLOURS = ((230, 60, 50), (40, 150, 60), (30, 110, 220), (245, 170, 20), (160, 70, 190), (20, 180, 190))
_CANDIDATE = (200, 200, 200)
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_GAP, _LINE_HEIGHT, _FONT_SIZE = 12, 16, 12


def slot_colour(slot: int) -> tuple[int, int, int]:
    """The RGB colour of a region's slot: the same in every panel; they repeat after six."""
    return _SLOT_COLOURS[slot % len(_SLOT_COLOURS)]


def draw_view_set(
    batch: CanvasBatch,
    views: ViewSet,
    mean: Sequence[float],
    std: Sequence[float],
    image: int,
    *,
    panel: int = 224,
) -> Image.Image:
    """One picture of all views of one image.

    First the canvas at the image's true aspect, with all candidate regions (thin, grey) and the chosen ones (slot
    colours); then each view by its name, with the chosen regions. A slot has one colour in every panel; slots that
    repeat a region are not drawn. Views are shown magnified to ``panel`` px of height, pixels unsmoothed, so that
    the true resolution is seen.

    Args:
        batch, views: of one step, on any device.
        mean, std: what the views were normalised with, a value a channel.
        image: number in the batch.
        panel: height of the panels, px.

    Returns:
        RGB. Of images with other than three channels: one or two as grey (the first), more as their first three.

    Raises:
        InputError: no such image in the batch.
    """
    if not 0 <= image < len(batch.canvas):
        raise InputError(
            f"there is no image {image} in a batch of {len(batch.canvas)}", remedy="choose a smaller number."
        )
    valid = views.slots.distinct[image].cpu()
    candidates = int(batch.valid[image].sum())
    count = f"{int(valid.sum())} of {candidates} regions chosen"
    panels = [(_draw_canvas(batch, views, image, panel), ["image", count])]
    for name, view in views.views.items():
        height, width = view.images.shape[2:]
        caption = [name, f"{width} x {height} px{_kept_share(view, image)}"]
        single = len(view.images) // len(batch.canvas)  # a view of single regions holds several images for each
        place = image - len(batch.canvas) + len(view.images)  # a view may show the last images only
        if single <= 1 and place >= 0:
            panels.append((_draw_view(view, valid, mean, std, place, panel), caption))
        for slot in range(single) if single > 1 else ():
            own = valid[slot : slot + 1]
            picture = _draw_view(view, own, mean, std, image * single + slot, panel, slot)
            panels.append((picture, [f"{name} {slot}", caption[1]]))
    return _in_a_row(panels)


def _kept_share(view: View, image: int) -> str:
    return "" if view.keep is None else f", {view.keep[image].float().mean().item():.0%} kept"


def _draw_canvas(batch: CanvasBatch, views: ViewSet, image: int, panel: int) -> Image.Image:
    side = batch.canvas.shape[-1]
    height, width = batch.image_size[image].tolist()
    size = (max(1, round(panel * width / height)), panel)
    picture = _to_picture(batch.canvas[image].cpu().float() / 255).resize(size, Image.Resampling.BILINEAR)
    stretch = torch.tensor([size[0] / side, size[1] / side]).repeat(2)
    candidates, valid = batch.boxes[image].cpu(), batch.valid[image].cpu()
    _outline(picture, candidates * stretch, valid, [_CANDIDATE] * len(valid), width=1)
    chosen, valid = views.slots.boxes[image].cpu(), views.slots.distinct[image].cpu()
    _outline(picture, chosen * stretch, valid, _colours(len(valid)), width=2)
    return picture


def _draw_view(
    view: View,
    valid: Bool[Tensor, "K"],
    mean: Sequence[float],
    std: Sequence[float],
    image: int,
    panel: int,
    slot: int = 0,
) -> Image.Image:
    """``slot``: that of the first box."""
    pixels = _seen_pixels(view, image).detach().cpu().float()
    pixels = pixels * pixels.new_tensor(std)[:, None, None] + pixels.new_tensor(mean)[:, None, None]
    height, width = pixels.shape[1:]
    size = (max(1, round(panel * width / height)), panel)
    picture = _to_picture(pixels).resize(size, Image.Resampling.NEAREST)
    stretch = torch.tensor([size[0] / width, size[1] / height]).repeat(2)
    colours = _colours(slot + len(valid))[slot:]
    _outline(picture, view.boxes[image].detach().cpu().float() * stretch, valid, colours, width=2)
    return picture


def _seen_pixels(view: View, image: int) -> Float[Tensor, "C H W"]:
    """The image's; where patches are hidden, the mean colour or those of the image that is shown there."""
    own = view.images[image]
    if view.hidden is None:
        return own
    other = torch.zeros_like(own) if view.partner is None else view.images[view.partner[image]]
    hidden = F.interpolate(view.hidden[image][None, None].float(), own.shape[1:])[0]
    return torch.where(hidden > 0, other, own)


def _colours(slots: int) -> list[tuple[int, int, int]]:
    return [slot_colour(slot) for slot in range(slots)]


def _to_picture(pixels: Float[Tensor, "C H W"]) -> Image.Image:
    """0..1 to RGB; what lies outside is clipped."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    array = (shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(np.ascontiguousarray(array))


def _outline(
    picture: Image.Image,
    boxes: Float[Tensor, "K 4"],
    valid: Bool[Tensor, "K"],
    colours: Sequence[tuple[int, int, int]],
    width: int,
) -> None:
    """Rectangles just inside the boxes: a box's last pixel is the one before its edge."""
    draw = ImageDraw.Draw(picture)
    for box, colour, drawn in zip(boxes.round().int().tolist(), colours, valid.tolist(), strict=True):
        if drawn:
            x0, y0, x1, y1 = box
            draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=width)


def _in_a_row(panels: Sequence[tuple[Image.Image, Sequence[str]]]) -> Image.Image:
    """Panels from left to right, each with its caption below; a narrow panel gets room for its caption."""
    font = ImageFont.load_default(_FONT_SIZE)
    room = [max(picture.width, *(int(font.getlength(line)) + 1 for line in lines)) for picture, lines in panels]
    height = max(picture.height for picture, _ in panels)
    lines_high = max(len(lines) for _, lines in panels) * _LINE_HEIGHT
    sheet = Image.new("RGB", (sum(room) + _GAP * (len(panels) + 1), height + lines_high + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for (picture, lines), width in zip(panels, room, strict=True):
        sheet.paste(picture, (left, _GAP))
        for number, line in enumerate(lines):
            draw.text((left, _GAP + height + 3 + number * _LINE_HEIGHT), line, fill=_INK, font=font)
        left += width + _GAP
    return sheet
