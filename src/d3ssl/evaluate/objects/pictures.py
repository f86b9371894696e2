"""Which classes are taken for which, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from matplotlib import pyplot as plt

from d3ssl import page
from d3ssl.files import write_atomically

_MOST_NAMED = 60
"""Classes up to which the axes carry their names."""


def draw_confusion(
    path: Path, truth: Int64[np.ndarray, "M"], named: Int64[np.ndarray, "M"], names: Sequence[str]
) -> None:
    """Write a confusion matrix as PNG: rows are the true classes that occur, scaled to sum 1; columns those named."""
    classes = np.unique(np.concatenate([truth, named]))
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (np.searchsorted(classes, truth), np.searchsorted(classes, named)), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = float(np.clip(1.5 + 0.16 * len(classes), 4, 12))
    plot, axis = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    picture = axis.imshow(shares, vmin=0, vmax=1, cmap="magma_r")
    plot.colorbar(picture, ax=axis, label="share of the true class", fraction=0.04)
    axis.set_xlabel("named")
    axis.set_ylabel("true class")
    if len(classes) <= _MOST_NAMED:
        shown = [str(names[int(label)]) for label in classes]
        axis.set_xticks(range(len(classes)), shown, rotation=90, fontsize=6)
        axis.set_yticks(range(len(classes)), shown, fontsize=6)
    with write_atomically(path) as temporary:
        temporary.write_bytes(page.plot_png(plot))
