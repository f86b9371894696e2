"""Every method on pictures whose objects are known."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from skimage import data

from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.regions.config import Method, RegionsConfig
from d3ssl.regions.find import find_in_file, find_regions
from d3ssl.regions.segments import grid_segments, segment_boxes
from d3ssl.regions.selective_search import selective_search

TILINGS = ("felzenszwalb", "slic", "grid")


def scene(noise: float = 6.0, stripes: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Two striped objects on a noisy ground, 128 × 160 px, and their boxes."""
    generator = np.random.default_rng(5)
    image = np.full((128, 160, 3), (90, 120, 80), dtype=np.float64)
    boxes = np.array([[10, 20, 70, 80], [90, 50, 145, 118]])
    for (x0, y0, x1, y1), colour in zip(boxes, ((200, 60, 50), (40, 60, 190)), strict=True):
        image[y0:y1, x0:x1] = np.array(colour) + stripes * (np.arange(x0, x1) // 6 % 2)[None, :, None]
    return np.clip(image + generator.normal(0, noise, image.shape), 0, 255).astype(np.uint8), boxes


def best_iou(boxes: np.ndarray, target: np.ndarray) -> float:
    low, high = np.maximum(boxes[:, :2], target[:2]), np.minimum(boxes[:, 2:], target[2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    return float((common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (target[2:] - target[:2]).prod() - common)).max())


def test_selective_search_finds_the_objects() -> None:
    image, objects = scene()
    found = find_regions(image, image.shape[:2], RegionsConfig())
    assert found.labels is None
    assert found.boxes.dtype == np.float32
    for target in objects:
        assert best_iou(found.boxes, target) > 0.9


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_selective_search_takes_any_number_of_channels(channels: int) -> None:
    image, objects = scene()
    many = np.stack([image[..., c % 3] for c in range(channels)], axis=2)
    found = find_regions(many, image.shape[:2], RegionsConfig())
    assert min(best_iou(found.boxes, target) for target in objects) > 0.8


@pytest.mark.parametrize("colours", ["lab", "hsv"])
def test_one_colour_space_finds_less_than_both(colours: Literal["lab", "hsv"]) -> None:
    image = np.array(Image.fromarray(data.coffee()).resize((144, 96)))
    one, both = (set(map(tuple, selective_search(image, RegionsConfig(colours=c)).tolist())) for c in (colours, "both"))
    assert one < both
    assert (0, 0, 144, 96) in one  # the last region of every hierarchy


def test_boxes_are_in_the_frame_of_the_original() -> None:
    image, objects = scene()
    found = find_regions(image, (1280, 800), RegionsConfig())
    scaled = objects * np.array([5, 10, 5, 10])
    assert min(best_iou(found.boxes, target) for target in scaled) > 0.9
    assert found.boxes[:, [0, 2]].max() <= 800
    assert found.boxes[:, [1, 3]].max() <= 1280


@pytest.mark.parametrize("method", ["selective-search", *TILINGS])
def test_photograph_gives_filtered_regions_and_always_the_same(method: Method) -> None:
    image = np.array(Image.fromarray(data.coffee()).resize((288, 192)))
    config = RegionsConfig(method=method)
    found, again = (find_regions(image, (400, 600), config) for _ in range(2))
    np.testing.assert_array_equal(found.boxes, again.boxes)
    assert 1 <= len(found.boxes) <= config.max_regions
    assert len(np.unique(found.boxes, axis=0)) == len(found.boxes)
    if config.filtered:
        width, height = found.boxes[:, 2] - found.boxes[:, 0], found.boxes[:, 3] - found.boxes[:, 1]
        share = np.sqrt(width * height / (400 * 600))
        assert ((share >= 0.3) & (share <= 0.8) & (width <= 3 * height) & (height <= 3 * width)).all()


@pytest.mark.parametrize("method", TILINGS)
def test_label_maps_agree_with_boxes(method: Method) -> None:
    image = np.array(Image.fromarray(data.chelsea()).resize((144, 96)))
    found = find_regions(image, (300, 451), RegionsConfig(method=method, max_regions=6))
    assert found.labels is not None
    assert found.labels.shape == (96, 144)
    assert np.unique(found.labels[found.labels > 0]).tolist() == list(range(1, len(found.boxes) + 1))
    areas = np.bincount(found.labels.ravel(), minlength=len(found.boxes) + 1)[1:]
    assert (np.diff(areas) <= 0).all()  # the largest first
    for number, box in enumerate(found.boxes):
        rows, columns = np.nonzero(found.labels == number + 1)
        tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(box, tight * np.array([451 / 144, 300 / 96] * 2), rtol=1e-6)


def test_felzenszwalb_separates_plain_objects() -> None:
    image, objects = scene(stripes=0)
    found = find_regions(image, image.shape[:2], RegionsConfig(method="felzenszwalb"))
    assert min(best_iou(found.boxes, target) for target in objects) > 0.9


def test_grid_tiles_the_image() -> None:
    labels = grid_segments((7, 11), RegionsConfig(grid_rows=2, grid_columns=3))
    boxes, areas = segment_boxes(labels)
    assert boxes.tolist() == [[0, 0, 4, 4], [4, 0, 8, 4], [8, 0, 11, 4], [0, 4, 4, 7], [4, 4, 8, 7], [8, 4, 11, 7]]
    assert areas.sum() == 77
    assert len(find_regions(np.zeros((1, 2, 3), np.uint8), (1, 2), RegionsConfig(method="grid")).boxes) == 2


def test_without_a_region_the_whole_image_is_one() -> None:
    flat = np.full((40, 200, 3), 77, dtype=np.uint8)
    for method in ("selective-search", "felzenszwalb"):
        found = find_regions(flat, (80, 400), RegionsConfig(method=method))
        assert found.boxes.tolist() == [[0, 0, 400, 80]]
        assert found.labels is None or (found.labels == 1).all()


def coco_folder(folder: Path, *, masks: bool, size: tuple[int, int] = (40, 60)) -> Path:
    """One image with a large object, a small one in front of it, and a group."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(folder / "images" / "a.png")
    objects = [(10, 10, 8, 6, 0), (5, 4, 40, 30, 0), (0, 0, 60, 40, 1)]
    annotations = []
    for number, (x, y, w, h, crowd) in enumerate(objects):
        entry = {"id": number, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "iscrowd": crowd, "area": w * h}
        if masks:
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(entry)
    image = {"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}
    document = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def test_annotations_with_masks(tmp_path: Path) -> None:
    images = open_images(coco_folder(tmp_path, masks=True))
    found = find_in_file(images, 0, RegionsConfig(method="annotations", size=20))
    assert found.boxes.tolist() == [[5, 4, 45, 34], [10, 10, 18, 16]]
    assert found.labels is not None
    assert found.labels.shape == (20, 30)
    assert (found.labels[5:8, 5:9] == 2).all()  # the small object is in front
    assert (found.labels == 2).sum() == 12
    assert (found.labels == 1).sum() == 20 * 15 - 12


def test_annotations_without_masks_give_boxes_only(tmp_path: Path) -> None:
    images = open_images(coco_folder(tmp_path, masks=False))
    found = find_in_file(images, 0, RegionsConfig(method="annotations", max_regions=1))
    assert found.boxes.tolist() == [[5, 4, 45, 34]]
    assert found.labels is None


def test_annotations_of_another_size_are_an_error(tmp_path: Path) -> None:
    images = open_images(coco_folder(tmp_path, masks=False, size=(80, 120)))
    with pytest.raises(InputError, match="120×80 px, the file has 60×40"):
        find_in_file(images, 0, RegionsConfig(method="annotations"))


@pytest.mark.parametrize(
    "options", [{"size": 8}, {"max_regions": 256}, {"scales": ()}, {"scales": (50.0, -1.0)}, {"min_share": 0.9}]
)
def test_impossible_options_are_errors(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        RegionsConfig(**options)
