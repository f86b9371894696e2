"""64 small photographs, cut from those that scikit-image and scikit-learn bring along."""

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE, COUNT = 72, 64


def write_photographs(folder: Path) -> Path:
    """Tiles of 72 px as PNG files, each another place."""
    folder.mkdir(parents=True)
    photographs = [
        skimage.data.astronaut(),
        skimage.data.chelsea(),
        skimage.data.coffee(),
        *load_sample_images().images,
    ]
    for number in range(COUNT):
        photograph = photographs[number % len(photographs)][..., :3]
        place = number // len(photographs)  # of 13, in a grid of tiles of 72 px with a gap
        row, column = divmod(place, 4)
        top, left = 8 + row * 73, 8 + column * 100
        tile = photograph[top : top + SIDE, left : left + SIDE]
        assert tile.shape == (SIDE, SIDE, 3)
        Image.fromarray(np.ascontiguousarray(tile)).save(folder / f"{number:02d}.png")
    return folder
