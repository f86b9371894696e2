import numpy as np
from skimage.color import rgb2hsv, rgb2lab

from d3ssl.regions.colour import convert


def every_colour() -> np.ndarray:
    levels = np.array([0, 1, 7, 30, 64, 100, 128, 180, 220, 254, 255], dtype=np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(len(levels), -1, 3)


def test_lab_equals_scikit_image() -> None:
    image = every_colour()
    expected = np.moveaxis(rgb2lab(image), 2, 0) * np.array([2.55, 1, 1])[:, None, None]
    expected += np.array([0, 128, 128])[:, None, None]
    np.testing.assert_allclose(convert(image, "lab"), expected, atol=0.1)


def test_hsv_equals_scikit_image() -> None:
    image = every_colour()
    np.testing.assert_allclose(convert(image, "hsv"), np.moveaxis(rgb2hsv(image), 2, 0) * 255, atol=0.01)


def test_rgb_is_the_image() -> None:
    image = every_colour()
    np.testing.assert_array_equal(convert(image, "rgb"), np.moveaxis(image, 2, 0))
