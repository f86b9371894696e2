from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 small photographs with two coloured discs each, so that regions stand out."""
    folder = tmp_path_factory.mktemp("tiles")
    drawn = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for number in range(80):
        image = drawn.integers(90, 130, (64, 64, 3), dtype=np.uint8)
        for left in (17, 47):
            centre, radius = (int(drawn.integers(20, 44)), left), int(drawn.integers(9, 14))
            image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = drawn.integers(0, 255, 3)
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder
