from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.images import read_image, read_reduced, reduced_size


@pytest.mark.parametrize(
    ("size", "reduced"),
    [((480, 640), (192, 256)), ((640, 481), (255, 192)), ((192, 999), (192, 999)), ((8, 9), (8, 9))],
)
def test_short_side_is_reached_and_small_images_stay(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    assert reduced_size(size, 192) == reduced


def test_a_very_long_image_keeps_a_pixel() -> None:
    assert reduced_size((4000, 30000), 16) == (16, 120)
    assert min(reduced_size((17, 10**6), 16)) == 16


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_reading_reduced_is_reading_and_averaging(tmp_path: Path, suffix: str) -> None:
    rows, columns = np.mgrid[:400, :300]
    image = np.stack([rows * 255 / 399, columns * 255 / 299, 128 + 0 * rows], axis=2).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path, quality=95)  # PNG has no such thing and does not mind
    reduced, size = read_reduced(path, 75)
    assert size == (400, 300)
    assert reduced.shape == (100, 75, 3)
    expected = image.reshape(100, 4, 75, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() < 4
    whole, _ = read_reduced(path, 300)
    np.testing.assert_array_equal(whole, read_image(path))


def test_orientation_is_applied(tmp_path: Path) -> None:
    image = np.zeros((80, 120, 3), dtype=np.uint8)
    image[:40, :60] = 255  # the upper left quarter as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif, quality=95)
    reduced, size = read_reduced(tmp_path / "a.jpg", 40)
    assert size == (120, 80)
    assert reduced.shape == (60, 40, 3)
    assert reduced[5:25, 25:35].min() > 240  # the upper right quarter now
    assert reduced[35:].max() < 15
