"""Annotated photographs for tests: an object's colour tells its class, and so does the background behind it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d3ssl.data.scenes import OutOfContextConfig
from d3ssl.data.scenes.write import mask_entries

OBJECTS = {"ant": (220, 30, 30), "bee": (30, 200, 30), "cat": (40, 40, 230), "dog": (230, 220, 40)}
BACKGROUNDS = {"ant": (20, 120, 120), "bee": (130, 30, 130), "cat": (150, 150, 150), "dog": (60, 30, 10)}
SIZE = (80, 100)
"""Height and width of the photographs, px."""


def noisy(colour: Sequence[int], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0, 8, (*size, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def photograph(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A disc of the class on the class's background, and its mask."""
    radius = rng.integers(16, 24)
    y, x = rng.integers(radius, SIZE[0] - radius), rng.integers(radius, SIZE[1] - radius)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    image = noisy(BACKGROUNDS[name], SIZE, rng)
    image[mask] = noisy(OBJECTS[name], SIZE, rng)[mask]
    return image, mask


def write_part(folder: Path, counts: Mapping[str, int], seed: int, masks: bool = True) -> None:
    """``counts`` photographs of each class, each with one object, in COCO format."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for label, name in enumerate(OBJECTS, start=1):
        for number in range(counts.get(name, 0)):
            image, mask = photograph(name, rng)
            file, place = f"{name}{number:03d}.png", len(images)
            Image.fromarray(image).save(folder / "images" / file)
            images.append({"id": place, "file_name": file, "height": SIZE[0], "width": SIZE[1]})
            entry = mask_entries(mask[..., None])[0]
            if not masks:
                del entry["segmentation"]
            annotations.append({"id": 1000 + place, "image_id": place, "category_id": 10 * label, **entry})
    categories = [{"id": 10 * label, "name": name} for label, name in enumerate(OBJECTS, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))


def write_data(folder: Path, train: int = 24, val: int = 20) -> Path:
    write_part(folder / "train", dict.fromkeys(OBJECTS, train), 1)
    write_part(folder / "val", dict.fromkeys(OBJECTS, val), 2)
    return folder


def write_backgrounds(folder: Path, size: tuple[int, int] = (90, 120), count: int = 8, brightness: int = 0) -> Path:
    """``count`` photographs of each class's background colour."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    for name, colour in BACKGROUNDS.items():
        for number in range(count):
            Image.fromarray(noisy([value + brightness for value in colour], size, rng)).save(
                folder / f"{name}{number}.png"
            )
    return folder


def small(data: Path, **options: Any) -> OutOfContextConfig:
    """Options that suit these photographs."""
    given = {"images": 30, "val_images": 12, "size": 64, "themes": 2, "min_side": 20.0, "min_pixels": 300}
    return OutOfContextConfig(data=str(data), image_format="png", **{"workers": 1, **given, **options})


def controlled(data: Path, **options: Any) -> OutOfContextConfig:
    """Controlled conditions of these photographs."""
    given = {"conditions": True, "images": 6000, "themes": 6}  # the latter two as nobody sets them
    return small(data, **{**given, **options})
