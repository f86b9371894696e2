"""The plots of the data card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from d3ssl.data.open_images.classes import BoxableClasses
from d3ssl.data.open_images.select import Pool
from d3ssl.data.open_images.statistics import SplitStatistics
from d3ssl.files import write_atomically
from d3ssl.page import COLOURS, plot_png

_TOP = 25
"""Classes in the plot of co-occurrence."""
_GREY, _ORANGE, _BLUE = COLOURS[:3]


def draw_plots(
    folder: Path, statistics: SplitStatistics, pool: Pool, classes: BoxableClasses, kept: np.ndarray
) -> dict[str, str]:
    """Draw the plots of one split as PNG files.

    Returns:
        File name → caption.
    """
    names = [classes.names[number] for number in np.flatnonzero(kept)]
    plots = {
        "objects.png": (_objects(statistics), "Objects per image."),
        "classes.png": (
            _classes(statistics, pool),
            "Objects of each class, from the most frequent on: among all images that satisfy the rule, and chosen.",
        ),
        "cooccurrence.png": (
            _cooccurrence(statistics, names),
            f"Co-occurrence of the {min(_TOP, len(names))} classes shown by most images: "
            "share of the images of the row's class that also show the column's.",
        ),
        "sizes.png": (_sizes(statistics), "Size of objects: √(width·height), share of the image."),
        "places.png": (
            _places(statistics),
            "Places: centres of objects in the image (left); place entropy of each class, 1 = anywhere (right).",
        ),
    }
    for name, (figure, _) in plots.items():
        with write_atomically(folder / name) as temporary:
            temporary.write_bytes(plot_png(figure, dpi=120))
    return {name: caption for name, (_, caption) in plots.items()}


def _figure(width: float = 6.4, height: float = 3.2) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _objects(statistics: SplitStatistics) -> Figure:
    figure = _figure()
    axes = figure.add_subplot()
    most = 30
    axes.bar(*np.unique(np.minimum(statistics.objects_per_image, most), return_counts=True), color=_BLUE)
    axes.set(xlabel=f"objects ({most}: that many or more)", ylabel="images")
    return figure


def _classes(statistics: SplitStatistics, pool: Pool) -> Figure:
    figure = _figure()
    axes = figure.add_subplot()
    for amounts, colour, label in (
        (pool.class_objects, _GREY, "all that satisfy the rule"),
        (statistics.class_objects, _ORANGE, "chosen"),
    ):
        amounts = np.sort(amounts[amounts > 0])[::-1]
        axes.step(np.arange(1, len(amounts) + 1), amounts, where="mid", color=colour, label=label)
    axes.set(xlabel="rank of the class", ylabel="objects", yscale="log")
    axes.legend(frameon=False)
    return figure


def _cooccurrence(statistics: SplitStatistics, names: list[str]) -> Figure:
    shown = np.argsort(-np.diag(statistics.together), kind="stable")[:_TOP]
    together = statistics.together[np.ix_(shown, shown)]
    share = together / np.maximum(np.diag(together), 1)[:, None]
    figure = _figure(8.0, 7.0)
    axes = figure.add_subplot()
    picture = axes.imshow(share, vmin=0, vmax=1, cmap="viridis")
    listed = [names[place] for place in shown]
    axes.set_xticks(range(len(listed)), listed, rotation=90, fontsize=7)
    axes.set_yticks(range(len(listed)), listed, fontsize=7)
    figure.colorbar(picture, ax=axes, shrink=0.8)
    return figure


def _sizes(statistics: SplitStatistics) -> Figure:
    figure = _figure()
    axes = figure.add_subplot()
    axes.hist(statistics.sides, bins=np.linspace(0, 1, 51).tolist(), color=_BLUE)
    axes.set(xlabel="√(width·height), share of the image", ylabel="objects")
    return figure


def _places(statistics: SplitStatistics) -> Figure:
    figure = _figure(7.0, 3.2)
    left, right = figure.subplots(1, 2)
    left.imshow(statistics.places, extent=(0, 1, 1, 0), cmap="magma", vmin=0)
    left.set(xlabel="x", ylabel="y")
    entropy = statistics.place_entropy
    right.hist(entropy[np.isfinite(entropy)], bins=np.linspace(0, 1, 26).tolist(), color=_BLUE)
    right.set(xlabel="place entropy (3×3)", ylabel="classes")
    return figure
