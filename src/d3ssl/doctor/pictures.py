"""The pictures of an examination."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from d3ssl import page
from d3ssl.data.images import read_reduced
from d3ssl.data.place import Place
from d3ssl.doctor.bias import grid_cell
from d3ssl.doctor.look import GOOD
from d3ssl.doctor.objects import ObjectReport, Objects, strongest_positions
from d3ssl.errors import InputError

_TILE, _GAP, _TEXT = 96, 4, 14
_COLUMNS = 8
_CLASSES = 25
_MAPS = 11
_CELLS = 12
_POINTS = 20_000
_MOST_COUNTED = 30


def draw_group(rows: list[list[tuple[str, Place]]]) -> bytes:
    """Rows of thumbnails with the ends of their names; of a long row the first."""
    rows = [row[:_COLUMNS] for row in rows]
    width = max(map(len, rows)) * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, len(rows) * (_TILE + _TEXT + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, row in enumerate(rows):
        for column, (name, path) in enumerate(row):
            left, top = column * (_TILE + _GAP), line * (_TILE + _TEXT + _GAP)
            sheet.paste(_thumbnail(path), (left, top))
            draw.text((left, top + _TILE + 1), name[-15:].encode("ascii", "replace").decode(), fill="black")
    return page.image_png(sheet)


def _thumbnail(path: Place) -> Image.Image:
    tile = Image.new("RGB", (_TILE, _TILE), "#ddd")
    try:
        pixels, _ = read_reduced(path, _TILE)
    except InputError:  # found, and told, by the scan
        ImageDraw.Draw(tile).text((4, _TILE // 2), "unreadable", fill="black")
        return tile
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, axis=2))
    image.thumbnail((_TILE, _TILE))
    tile.paste(image, ((_TILE - image.width) // 2, (_TILE - image.height) // 2))
    return tile


def draw_sizes(facts: Shaped[np.ndarray, "images"]) -> bytes:
    """A point for every image, or for evenly chosen ones."""
    good = facts[facts["status"] == GOOD]
    good = good[:: max(1, len(good) // _POINTS)]
    plot = Figure(figsize=(5, 4), layout="constrained")
    axes = plot.add_subplot()
    axes.scatter(good["width"], good["height"], s=6, alpha=0.4, color=page.COLOURS[2], linewidths=0)
    axes.set(xlabel="width, px", ylabel="height, px")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return page.plot_png(plot)


def draw_counts(objects: Objects) -> bytes:
    """Images by their number of objects."""
    plot = Figure(figsize=(6, 2.8), layout="constrained")
    axes = plot.add_subplot()
    values, number = np.unique(np.minimum(objects.per_image, _MOST_COUNTED), return_counts=True)
    axes.bar(values, number, color=page.COLOURS[2])
    more = f" ({_MOST_COUNTED}: that many or more)" if values.max(initial=0) == _MOST_COUNTED else ""
    axes.set(xlabel=f"objects{more}", ylabel="images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return page.plot_png(plot)


def draw_cooccurrence(report: ObjectReport) -> bytes:
    """log2 of how much more often two classes stand side by side than by chance, of the most frequent classes."""
    amounts = np.bincount(report.objects.label, minlength=len(report.objects.names))
    shown = np.argsort(-amounts, kind="stable")[:_CLASSES]
    shown = shown[amounts[shown] > 0]
    floor = 0.5 / max(len(report.objects.label), 1)
    share, expected = (
        values[np.ix_(shown, shown)] for values in (report.cooccurrence.share, report.cooccurrence.expected)
    )
    lift = np.log2((share + floor) / (expected + floor))
    plot = Figure(figsize=(8, 7), layout="constrained")
    axes = plot.add_subplot()
    picture = axes.imshow(lift, vmin=-3, vmax=3, cmap="RdBu_r")
    names = [report.objects.names[label] for label in shown]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    bar = plot.colorbar(picture, ax=axes, shrink=0.8)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["÷8", "÷4", "÷2", "chance", "×2", "×4", "×8"])
    return page.plot_png(plot)


def draw_positions(report: ObjectReport) -> bytes:
    """Maps of the centres: of all objects, then of the classes with the strongest preference."""
    objects = report.objects
    labels = strongest_positions(report, _MAPS)
    maps = [("all objects", np.ones(len(objects.label), dtype=bool))]
    maps += [
        (f"{objects.names[label]} ({report.positions.preference[label]:.2f})", objects.label == label)
        for label in labels
    ]
    rows = (len(maps) + 3) // 4
    plot = Figure(figsize=(8, 2.2 * rows), layout="constrained")
    for number, (name, which) in enumerate(maps):
        cells = grid_cell(objects.x[which], objects.y[which], _CELLS)
        axes = plot.add_subplot(rows, 4, number + 1)
        counts = np.bincount(cells, minlength=_CELLS**2).reshape(_CELLS, _CELLS)
        axes.imshow(counts, cmap="magma", vmin=0, extent=(0, 1, 1, 0))
        axes.set_title(name, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return page.plot_png(plot)
