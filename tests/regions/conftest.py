"""Small pictures with objects in known places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.image_set import ImageSet
from d3ssl.data.sources import open_images


def draw(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A noisy background with three rectangles."""
    generator = np.random.default_rng(seed)
    image = np.full((height, width, 3), generator.integers(60, 200, 3), dtype=np.float64)
    for _ in range(3):
        y, x = generator.integers(0, height // 2), generator.integers(0, width // 2)
        h, w = generator.integers(height // 4, height // 2), generator.integers(width // 4, width // 2)
        image[y : y + h, x : x + w] = generator.integers(0, 256, 3)
    return np.clip(image + generator.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> ImageSet:
    """Seven images of different sizes and kinds."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        image = Image.fromarray(draw(number, 50 + 6 * number, 90 - 4 * number))
        image.save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
    return open_images(folder)
