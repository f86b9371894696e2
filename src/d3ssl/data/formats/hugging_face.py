"""Hugging Face data sets on the disk: Arrow as ``save_to_disk`` writes it, or Parquet as the Hub keeps it.

Layout: huggingface.co/docs/datasets, "Save and export"; an image is a struct of ``bytes`` and ``path``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from d3ssl.console import progress
from d3ssl.data.coco import parse_coco
from d3ssl.data.formats.format import UNREADABLE, Format, Kind, image_sizes
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.data.place import Member
from d3ssl.data.table_images import DAMAGED, PARQUET, image_column, image_rows, read_column, read_schema
from d3ssl.errors import InputError
from d3ssl.files import read_json

_SPLIT = re.compile(r"(train|validation|valid|val|dev|test)\b")
"""How the names of Parquet files begin: ``train-00000-of-00002.parquet``."""
_VALIDATION = ("validation", "valid", "val", "dev", "test")
_LABEL_NAMES = ("category", "label", "category_id", "categories", "labels")
_ONE_FOR_ALL = ".jpg"
"""Ending of the ids of images whose name is not known. What an image is, its content decides."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Format):
    """A folder that ``save_to_disk`` wrote (one split or all), a folder of Parquet files, or one of them.

    Of several splits, the data set is ``train``. The image is the column ``image``, or the first of images. Objects
    are those of the column ``objects``: ``bbox`` (x, y, width, height, px, as COCO's) and ``category`` or ``label``.
    """

    what = "a Hugging Face data set on the disk (save_to_disk, or Parquet)"
    splits: dict[str, tuple[Path, ...]]
    split: str

    @classmethod
    def detect(cls, path: Path) -> HuggingFace | None:
        splits = _splits(path)
        if not splits:
            return None
        return cls(path=path, splits=splits, split="train" if "train" in splits else next(iter(splits)))

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        val = next((name for name in _VALIDATION if name in self.splits), None)
        if val is None or self.split != "train":
            return None
        return self, replace(self, split=val), f"the splits train and {val}"

    def images(self) -> ImageSet:
        images = self.images_alone()
        if not self._is_labelled:
            return images
        document, places = self._objects(images)
        annotations = parse_coco(self._files[0], document, self.max_bad_share, name_of=places.__getitem__)
        return replace(images, annotations=annotations)

    def images_alone(self) -> ImageSet:
        paths, names = self._images()
        return ImageSet(root=self.path, paths=paths, ids=tuple(f"{n:08d}{_ending(own)}" for n, own in enumerate(names)))

    def document(self) -> Any:
        return self._objects(self.images_alone())[0] if self._is_labelled else None

    @property
    def _is_labelled(self) -> bool:
        return "objects" in read_schema(self._files[0]).names

    @property
    def _files(self) -> tuple[Path, ...]:
        return self.splits[self.split]

    def _images(self) -> tuple[tuple[Member, ...], list[str | None]]:
        """Where each image is, and what it was called."""
        paths: list[Member] = []
        names: list[str | None] = []
        with progress("finding images", len(self._files)) as ticker:
            for file in self._files:
                column = image_column(read_schema(file))
                if column is None:
                    raise InputError("has no column of images", path=file, remedy="name a data set of images.")
                for place, name in image_rows(file, column):
                    paths.append(place)
                    names.append(name)
                ticker.advance()
        if not paths:
            raise InputError("holds no images", path=self.path, remedy="name a data set with rows.")
        return tuple(paths), names

    def _objects(self, images: ImageSet) -> tuple[dict[str, Any], list[str]]:
        """The objects as a COCO document, and where each one is."""
        file = self._files[0]
        sizes = image_sizes(images.paths, strict=False).tolist()
        rows = [row for own in self._files for row in read_column(own, "objects")]
        names = _class_names(file)
        entries, objects, places = [], [], []
        for row, (name, (height, width), value) in enumerate(zip(images.ids, sizes, rows, strict=True)):
            entries.append({"id": name, "file_name": name, "height": height, "width": width})
            for box, label, crowd in [] if (height, width) == UNREADABLE else _boxes(file, row, value):
                place = {"id": len(objects) + 1, "image_id": name, "iscrowd": crowd, "bbox": box}
                objects.append(place | {"category_id": label})
                places.append(f"object {len(objects)} (row {row} of the split {self.split or self.path.name})")
        known = names or sorted({entry["category_id"] for entry in objects}, key=str)
        number_of = {name: number for number, name in enumerate(known)}
        for entry in objects:
            label = entry["category_id"]
            entry["category_id"] = label if names and isinstance(label, int) else number_of.get(label, -1)
        categories = [{"id": number, "name": str(name)} for name, number in number_of.items()]
        return {"images": entries, "annotations": objects, "categories": categories}, places


def _splits(path: Path) -> dict[str, tuple[Path, ...]]:
    """Name → files; empty: it is no such data set."""
    if path.is_file():
        return {"": (path,)} if path.suffix == PARQUET and image_column(read_schema(path)) else {}
    if (path / "dataset_dict.json").is_file():
        said = read_json(path / "dataset_dict.json")
        names = said.get("splits") if isinstance(said, dict) else None
        if not isinstance(names, list) or not all((path / str(name) / "state.json").is_file() for name in names):
            raise InputError("names splits that are not there", path=path / "dataset_dict.json", remedy=DAMAGED)
        return {name: _arrow_files(path / name) for name in names}
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return {"": _arrow_files(path)}
    found: dict[str, tuple[Path, ...]] = {}
    for file in (*sorted(path.glob(f"*{PARQUET}")), *sorted(path.glob(f"data/*{PARQUET}"))):
        if image_column(read_schema(file)):  # a file of regions may lie beside images
            named = _SPLIT.match(file.name)
            name = named[0] if named else "train"
            found[name] = (*found.get(name, ()), file)
    return found


def _arrow_files(folder: Path) -> tuple[Path, ...]:
    """What ``state.json`` names."""
    file = folder / "state.json"
    said = read_json(file)
    try:
        names = [Path(entry["filename"]).name for entry in said["_data_files"]]
    except (TypeError, KeyError) as error:
        raise InputError("names no data files", path=file, remedy=DAMAGED) from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names or said.get("_indices_data_files"):
        problem = f"names files that are not there: {', '.join(missing)}" if missing else "names no whole data files"
        raise InputError(problem, path=file, remedy=DAMAGED)
    return tuple(folder / name for name in names)


def _ending(name: str | None) -> str:
    suffix = Path(name or "").suffix.lower()
    return suffix if suffix in IMAGE_SUFFIXES else _ONE_FOR_ALL


def _boxes(file: Path, row: int, value: Any) -> list[tuple[Any, Any, int]]:
    """Box, label and crowd of every object of a row: a struct of lists, or a list of structs."""
    if not value:
        return []
    if isinstance(value, list):
        value = {key: [own.get(key) for own in value] for key in value[0]}
    label = next((key for key in _LABEL_NAMES if key in value), None)
    boxes, labels = value.get("bbox"), value.get(label)
    if boxes is None or labels is None or len(boxes) != len(labels):
        remedy = "objects have a 'bbox' (x, y, width, height in px) and a 'category' each."
        raise InputError(f"row {row} has objects without 'bbox' or 'category'", path=file, remedy=remedy)
    crowds = value.get("iscrowd") or [0] * len(boxes)
    return [(box, label, int(bool(crowd))) for box, label, crowd in zip(boxes, labels, crowds, strict=True)]


def _class_names(file: Path) -> list[str]:
    """Of the objects, from what the library writes into the file; none: they are not known."""
    try:
        said = json.loads((read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
        waiting = [said.get("info", {}).get("features", {}).get("objects")]
    except (ValueError, AttributeError) as error:
        raise InputError(f"has damaged metadata ({error})", path=file, remedy=DAMAGED) from error
    while waiting:
        own = waiting.pop()
        if isinstance(own, dict) and isinstance(own.get("names"), list):
            return [str(name) for name in own["names"]]
        waiting += own.values() if isinstance(own, dict) else own if isinstance(own, list) else []
    return []
