"""YOLO labels: a ``data.yaml`` that names the splits, and for every image a text file with a line for each object."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from d3ssl.data.coco import parse_coco
from d3ssl.data.formats.folder import walk
from d3ssl.data.formats.format import UNREADABLE, Format, Kind, image_sizes
from d3ssl.data.image_set import ImageSet, named_images
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.errors import InputError, one_line
from d3ssl.files import read_text

DEFAULT_FILE = "data.yaml"
_REMEDY = "write 'train:', 'val:' (folders of images, or lists of them) and 'names:', as ultralytics documents it."
_LINE_REMEDY = "a line is: class x_centre y_centre width height, or class x1 y1 x2 y2 x3 y3 …, as shares of the image."


@dataclass(frozen=True, kw_only=True)
class Yolo(Format):
    """A ``data.yaml``, or the folder with one. As a whole it is its ``train``.

    The labels of ``…/images/NAME.jpg`` are in ``…/labels/NAME.txt``, or beside images whose path has no ``images``:
    ``class x y w h`` with the box's centre, or ``class x1 y1 x2 y2 …`` with a polygon, in shares of width and height.
    An image without a file of labels has no objects. Layout: docs.ultralytics.com/datasets/detect and /segment.
    """

    what = "YOLO labels (data.yaml, or the folder with it)"
    file: Path
    said: dict[str, Any]
    """What the file says."""
    split: str = "train"

    @classmethod
    def detect(cls, path: Path) -> Yolo | None:
        file = path / DEFAULT_FILE if path.is_dir() else path
        if file.suffix.lower() not in (".yaml", ".yml") or not file.is_file():
            return None
        try:
            said = yaml.safe_load(read_text(file))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = one_line(error, None)
            raise InputError(f"is not valid YAML ({reason})", path=file, remedy=_REMEDY) from error
        if not isinstance(said, dict) or not {"train", "names"} <= said.keys():
            if path.is_dir():
                return None
            raise InputError("has no 'train' or no 'names'", path=file, remedy=_REMEDY)
        return cls(path=path, file=file, said=said)

    def images(self) -> ImageSet:
        top, names = self._found()
        if not any(_label_file(top / name).is_file() for name in names):
            return named_images(self.file, top, names)
        document, lines = self._objects(top, names)
        annotations = parse_coco(self.file, document, self.max_bad_share, name_of=lines.__getitem__)
        return named_images(self.file, top, annotations)

    def images_alone(self) -> ImageSet:
        return named_images(self.file, *self._found())

    def document(self) -> Any:
        return self._objects(*self._found())[0]

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        val = next((name for name in ("val", "test") if self.said.get(name)), None)
        return None if val is None else (self, replace(self, split=val), f"train and {val} of {self.file.name}")

    def _root(self) -> Path:
        root = self.file.parent / str(self.said.get("path") or ".")
        return root if root.is_dir() else self.file.parent  # written for another machine's folder of data sets

    def _names(self) -> dict[int, str]:
        names = self.said["names"]
        found = dict(enumerate(names)) if isinstance(names, list) else names
        whole = isinstance(found, dict) and found and all(type(number) is int for number in found)
        if not whole or self.said.get("nc", len(found)) != len(found):
            problem = "its 'names' are no list and no numbers with names, or not as many as 'nc' says"
            raise InputError(problem, path=self.file, remedy=_REMEDY)
        return {number: str(found[number]) for number in sorted(found)}

    def _found(self) -> tuple[Path, tuple[str, ...]]:
        """A folder, and the split's images below it."""
        given, root = self.said[self.split], self._root()
        places = [_place(self.file, root, self.split, own) for own in (given if isinstance(given, list) else [given])]
        files = [file for place in places for file in (_listed(place) if place.suffix == ".txt" else walk(place))]
        if not files:
            raise InputError(f"its '{self.split}' holds no images", path=self.file, remedy=_REMEDY)
        paths = sorted({Path(os.path.abspath(file)) for file in files})
        top = Path(os.path.abspath(root))
        if not all(path.is_relative_to(top) for path in paths):
            top = Path(os.path.commonpath([path.parent for path in paths]))
        return top, tuple(path.relative_to(top).as_posix() for path in paths)

    def _objects(self, top: Path, found: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
        """The objects as a COCO document, and where each is written."""
        names = self._names()
        sizes = image_sizes([top / name for name in found], strict=False).tolist()
        images, objects, lines = [], [], []
        for name, (height, width) in zip(found, sizes, strict=True):
            images.append({"id": name, "file_name": name, "height": height, "width": width})
            file = _label_file(top / name)
            if (height, width) == UNREADABLE or not file.is_file():
                continue
            for number, label, values in _read_labels(file, names):
                place = {"id": len(objects) + 1, "image_id": name, "category_id": label}
                objects.append(place | _in_pixels(values, width, height))
                lines.append(f"line {number} of {file}")
        categories = [{"id": number, "name": name} for number, name in names.items()]
        return {"images": images, "annotations": objects, "categories": categories}, lines


def _place(file: Path, root: Path, split: str, given: Any) -> Path:
    """A folder or a list of images. ``../train/images`` in a file beside ``train/`` is how Roboflow writes it."""
    for place in (root / str(given), root / str(given).removeprefix("../")):
        if place.exists():
            return place
    problem = f"its '{split}' is {given!r}, which is not there"
    raise InputError(problem, path=file, remedy=f"paths are relative to 'path', or to {file.absolute().parent}.")


def _listed(file: Path) -> list[Path]:
    """The images that a list names: relative to it, or with whole paths."""
    lines = [line.strip() for line in read_text(file).splitlines()]
    found = [file.parent / line for line in lines if line]
    for number, path in enumerate(found, start=1):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            problem = f"line {number}: there is no image {path}"
            raise InputError(problem, path=file, remedy="paths are relative to the list's folder; correct the list.")
    return found


def _label_file(image: Path) -> Path:
    """``a/images/b/c.jpg`` → ``a/labels/b/c.txt``: the last folder of that name counts."""
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_labels(file: Path, names: dict[int, str]) -> list[tuple[int, int, list[float]]]:
    """Number of the line, class, and the other numbers of every object."""
    found = []
    try:
        lines = read_text(file).splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"is no file of labels ({error})", path=file, remedy=_LINE_REMEDY) from error
    for number, line in enumerate(lines, start=1):
        try:
            values = [float(word) for word in line.split()]
        except ValueError as error:
            raise InputError(f"line {number}: {error}", path=file, remedy=_LINE_REMEDY) from error
        if not values:
            continue
        if not (len(values) == 5 or (len(values) >= 7 and len(values) % 2)) or not all(map(math.isfinite, values)):
            raise InputError(f"line {number} has {len(values)} numbers: {line[:60]!r}", path=file, remedy=_LINE_REMEDY)
        if values[0] not in names:
            problem = f"line {number} has the class {values[0]:g}, which 'names' does not have"
            raise InputError(problem, path=file, remedy="correct the label, or add the class to data.yaml.")
        found.append((number, int(values[0]), values[1:]))
    return found


def _in_pixels(values: list[float], width: int, height: int) -> dict[str, Any]:
    """Box and, of a polygon, segmentation as COCO has them."""
    if len(values) == 4:
        x, y, w, h = values
        return {"bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]}
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    polygon = [value for point in zip(xs, ys, strict=True) for value in point]
    return {"bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], "segmentation": [polygon]}
