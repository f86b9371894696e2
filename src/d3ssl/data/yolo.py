"""Objects in the YOLO format of Ultralytics: a ``data.yaml``, and one text file of boxes or polygons per image.

Format: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from d3ssl.data.coco import CocoAnnotations, parse_coco
from d3ssl.data.images import IMAGE_SUFFIXES, image_size
from d3ssl.errors import InputError

NAME = "data.yaml"
"""By which a folder is recognised."""
_REMEDY = "write 'path', 'train', 'val' and 'names' as Ultralytics does, with paths relative to the file's folder."


def yolo_file(root: Path) -> Path | None:
    """The data file that DATA is, or that the folder holds; None: there is none."""
    file = root / NAME if root.is_dir() else root
    return file if file.suffix.lower() in (".yaml", ".yml") and file.is_file() else None


def yolo_splits(file: Path) -> tuple[str, ...]:
    """The splits that a data file names: of train, val and test."""
    document = _read_document(file)
    return tuple(name for name in ("train", "val", "test") if document.get(name))


def yolo_annotations(file: Path, split: str = "train") -> tuple[Path, CocoAnnotations]:
    """The data's root, to which the file names are relative, and the objects of a split.

    A line is ``class x y width height``, or ``class x1 y1 x2 y2 …`` with three corners or more, all as shares of the
    upright image. An image without a text file has no objects. The box of a polygon is the one around it.

    Args:
        file: ``data.yaml``. The images of a split are a folder, several, or a text file that lists them; the labels of
            ``…/images/a.jpg`` are ``…/labels/a.txt``.
        split: ``train``, ``val`` or ``test``.

    Raises:
        InputError: names the file at fault, and the line.
    """
    document = _read_document(file)
    root = _root(file, document)
    names = _class_names(file, document)
    files = _image_files(file, root, document.get(split), split)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    origin: list[str] = []
    for name in files:
        height, width = image_size(root / name)
        images.append({"id": name, "file_name": name, "height": height, "width": width})
        labels = _label_file(root / name)
        for number, line in enumerate(_lines(labels), start=1):
            if not line.strip():
                continue
            try:
                label, found = _object(line, len(names), height, width)
            except ValueError as error:
                remedy = "a line is: class x y width height, or class x1 y1 x2 y2 x3 y3 …, as shares of the image."
                raise InputError(f"line {number}: {error}", path=labels, remedy=remedy) from error
            objects.append({"id": len(objects) + 1, "image_id": name, "category_id": label + 1, **found})
            origin.append(f"line {number} of {labels}")
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    coco = {"images": images, "annotations": objects, "categories": categories}
    return root, parse_coco(file, coco, name_of=lambda row: origin[row])


def _read_document(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(f"cannot be read as YAML ({first})", path=file, remedy=_REMEDY) from error
    if not isinstance(document, dict) or "names" not in document or "train" not in document:
        raise InputError("is not a YOLO data file: it has no 'train' or no 'names'", path=file, remedy=_REMEDY)
    return document


def _root(file: Path, document: dict[str, Any]) -> Path:
    named = document.get("path") or "."
    candidates = [file.absolute().parent / str(named), file.absolute().parent]
    return next(folder for folder in candidates if folder.is_dir())  # the second is there


def _class_names(file: Path, document: dict[str, Any]) -> tuple[str, ...]:
    named = document["names"]
    listed = list(named.values()) if isinstance(named, dict) else named
    numbers = list(named) if isinstance(named, dict) else list(range(len(named) if isinstance(named, list) else 0))
    if not isinstance(listed, list) or not listed or numbers != list(range(len(listed))):
        raise InputError("its 'names' are not classes numbered from 0", path=file, remedy=_REMEDY)
    return tuple(str(name) for name in listed)


def _image_files(file: Path, root: Path, sources: Any, split: str) -> list[str]:
    """Paths of a split's images relative to the root, with forward slashes."""
    if not sources:
        raise InputError(f"names no images for '{split}'", path=file, remedy=_REMEDY)
    found: list[str] = []
    for source in sources if isinstance(sources, list) else [sources]:
        place = Path(os.path.normpath(root / str(source)))
        if place.is_dir():
            own = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        elif place.suffix == ".txt" and place.is_file():
            own = [Path(os.path.normpath(root / line.strip())) for line in _lines(place) if line.strip()]
        else:
            raise InputError(f"names {source!r} for '{split}', which is not in {root}", path=file, remedy=_REMEDY)
        outside = [path for path in own if not path.is_relative_to(root)]
        if outside:
            remedy = "set 'path' to a folder that holds all images."
            raise InputError(f"names images outside {root}, such as {outside[0]}", path=file, remedy=remedy)
        found += [path.relative_to(root).as_posix() for path in own]
    if not found:
        raise InputError(f"its images for '{split}' are not there: no image in {sources!r}", path=file, remedy=_REMEDY)
    return found


def _label_file(image: Path) -> Path:
    """``…/images/a.jpg`` → ``…/labels/a.txt``: the last folder of that name counts."""
    parts = list(PurePosixPath(image.as_posix()).parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", path=file, remedy="write it as UTF-8 text.") from error


def _object(line: str, classes: int, height: int, width: int) -> tuple[int, dict[str, Any]]:
    """Label, and box and polygon in px.

    Raises:
        ValueError: says what is wrong.
    """
    words = line.split()
    values = np.array([float(word) for word in words])
    if len(values) < 5 or len(values) % 2 == 0:
        raise ValueError(f"it has {len(values)} numbers")
    label = int(values[0])
    if label != values[0] or not 0 <= label < classes:
        raise ValueError(f"class {words[0]} is not one of 0 to {classes - 1}")
    if not np.isfinite(values).all() or values[1:].min() < -0.01 or values[1:].max() > 1.01:
        raise ValueError("it has numbers outside 0 to 1")
    scale = np.array([width, height], dtype=np.float64)
    points = values[1:].reshape(-1, 2) * scale
    if len(points) == 2:
        corner = points[0] - points[1] / 2
        return label, {"bbox": [*corner.tolist(), *points[1].tolist()], "iscrowd": 0}
    points = np.clip(points, 0, scale)
    low, high = points.min(0), points.max(0)
    box = [*low.tolist(), *(high - low).tolist()]
    return label, {"bbox": box, "segmentation": [points.flatten().tolist()], "iscrowd": 0}
