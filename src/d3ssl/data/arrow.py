"""A Hugging Face data set saved by ``save_to_disk``: images are read in place, from their bytes in the Arrow files.

Layout: the package ``datasets`` writes ``dataset_info.json`` (the features), ``state.json`` (the files in order) and
Arrow IPC streams; with several splits, a ``dataset_dict.json`` above a folder for each.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from d3ssl.data.coco import CocoAnnotations, parse_coco
from d3ssl.data.images import image_size
from d3ssl.data.place import Member, Place
from d3ssl.errors import InputError
from d3ssl.files import read_json

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_AGAIN = "save the data set again: datasets.load_dataset(…).save_to_disk(FOLDER)."


def arrow_folder(root: Path, split: str = "train") -> Path | None:
    """The folder of a saved split: DATA itself, or the one named ``split`` in a saved dictionary; None: no such data.

    Raises:
        InputError: a dictionary of splits without this one.
    """
    if (root / _STATE).is_file() and (root / _INFO).is_file():
        return root
    if not (root / _SPLITS).is_file():
        return None
    if split in arrow_splits(root):
        return root / split
    listed = ", ".join(arrow_splits(root)) or "none"
    raise InputError(f"has no split '{split}'; it has: {listed}", path=root, remedy="name one: its own folder.")


def arrow_splits(root: Path) -> tuple[str, ...]:
    """Names of the splits of a saved dictionary; none for other data."""
    file = root / _SPLITS
    found = _read(file).get("splits") if file.is_file() else []
    if not isinstance(found, list):
        raise InputError("names no splits", path=file, remedy=_AGAIN)
    return tuple(str(name) for name in found)


def open_arrow(folder: Path) -> tuple[dict[str, Place], CocoAnnotations | None]:
    """Id → where the image lies, in the order of the rows; and the objects, if the features have them.

    The image column is the first feature of type ``Image``. Ids are the names that it keeps, if all are there and
    differ; else the numbers of the rows, eight digits. Objects are a feature ``objects`` with ``bbox`` (x, y, width,
    height, px, as COCO's) and ``category`` or ``label`` of type ``ClassLabel``.

    Raises:
        InputError: names the file at fault.
    """
    features = _read(folder / _INFO).get("features")
    column = _image_column(folder, features)
    labels = _class_names(features)
    places: list[Member] = []
    names: list[str | None] = []
    objects: list[dict[str, Any]] = []
    for file in _files(folder):
        if not file.stat().st_size:
            raise InputError("is empty", path=file, remedy=_AGAIN)
        with pa.memory_map(str(file)) as mapped:
            content = mapped.read_buffer()
            for batch in _batches(file, content):
                own = _members(file, content, batch, column, len(places))
                names += (
                    batch.column(column).field("path").to_pylist() if _has_path(batch, column) else [None] * len(own)
                )
                places += own
                if labels is not None:
                    objects += batch.column("objects").to_pylist()
    if not places:
        raise InputError("holds no images", path=folder, remedy=_AGAIN)
    ids = _ids(names)
    found: dict[str, Place] = dict(zip(ids, places, strict=True))
    return found, None if labels is None else _annotations(folder, found, objects, labels)


def _read(file: Path) -> dict[str, Any]:
    document = read_json(file)
    if not isinstance(document, dict):
        raise InputError("is not what save_to_disk writes", path=file, remedy=_AGAIN)
    return document


def _image_column(folder: Path, features: Any) -> str:
    kinds = features if isinstance(features, dict) else {}
    found = [name for name, kind in kinds.items() if isinstance(kind, dict) and kind.get("_type") == "Image"]
    if not found:
        listed = ", ".join(kinds) or "none"
        remedy = "cast a column: dataset.cast_column('image', datasets.Image()), then save_to_disk."
        raise InputError(f"has no image column; its columns: {listed}", path=folder / _INFO, remedy=remedy)
    return found[0]


def _class_names(features: dict[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """Field of the class of an object, and the names of the classes; None: no objects."""
    kind = features.get("objects")
    own = kind.get("feature", kind) if isinstance(kind, dict) else None
    if not isinstance(own, dict) or "bbox" not in own:
        return None
    for field in ("category", "label", "category_id"):
        label = own.get(field)
        label = label.get("feature", label) if isinstance(label, dict) else None
        if isinstance(label, dict) and label.get("_type") == "ClassLabel":
            return field, tuple(label["names"])
    return None


def _files(folder: Path) -> list[Path]:
    listed = _read(folder / _STATE).get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(own, dict) and "filename" in own for own in listed):
        raise InputError("names no data files", path=folder / _STATE, remedy=_AGAIN)
    found = [folder / str(own["filename"]) for own in listed]
    for file in found:
        if file.parent != folder or not file.is_file():
            raise InputError("is named by state.json and not there", path=file, remedy=_AGAIN)
    return found


def _batches(file: Path, content: pa.Buffer) -> list[pa.RecordBatch]:
    try:
        return list(pa.ipc.open_stream(pa.BufferReader(content)))
    except (pa.ArrowException, OSError, EOFError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(f"is not a whole Arrow stream ({first})", path=file, remedy=_AGAIN) from error


def _has_path(batch: pa.RecordBatch, column: str) -> bool:
    return batch.schema.field(column).type.get_field_index("path") >= 0


def _members(file: Path, content: pa.Buffer, batch: pa.RecordBatch, column: str, first: int) -> list[Member]:
    """Where each row's bytes lie in the file."""
    if batch.schema.get_field_index(column) < 0 or not pa.types.is_struct(batch.schema.field(column).type):
        raise InputError(f"has no column '{column}' of images", path=file, remedy=_AGAIN)
    values = batch.column(column).field("bytes")
    if values.null_count:
        problem = f"row {first + values.is_null().index(True).as_py()} holds the path of an image, not its bytes"
        raise InputError(problem, path=file, remedy="give the folder of images instead, or embed them and save again.")
    wide = pa.types.is_large_binary(values.type)
    _, ends, data = values.buffers()
    start = data.address - content.address
    if not 0 <= start <= content.size:
        remedy = "save it without compression, as save_to_disk does."
        raise InputError("is compressed, so its images cannot be read in place", path=file, remedy=remedy)
    offsets = np.frombuffer(ends, np.int64 if wide else np.int32)[values.offset : values.offset + len(values) + 1]
    return [
        Member(file, f"row {first + row}", start + int(begin), int(end - begin))
        for row, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    ]


def _ids(names: list[str | None]) -> list[str]:
    counts = Counter(names)
    if None not in counts and max(counts.values()) == 1 and all(name and name.isprintable() for name in names):
        return [str(name) for name in names]
    return [f"{row:08d}" for row in range(len(names))]


def _annotations(
    folder: Path, places: dict[str, Place], rows: list[Any], labels: tuple[str, tuple[str, ...]]
) -> CocoAnnotations:
    field, names = labels
    images, objects, origin = [], [], []
    for row, (name, place) in enumerate(places.items()):
        height, width = image_size(place)
        images.append({"id": name, "file_name": name, "height": height, "width": width})
        own = rows[row]
        if isinstance(own, list):  # a list of objects, as datasets ≥ 4 keeps it
            own = {key: [one[key] for one in own] for key in (own[0] if own else ())}
        for box, label in zip((own or {}).get("bbox", []), (own or {}).get(field, []), strict=True):
            entry = {"id": len(objects) + 1, "image_id": name, "category_id": label + 1, "bbox": box, "iscrowd": 0}
            objects.append(entry)
            origin.append(f"an object of row {row}")
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    coco = {"images": images, "annotations": objects, "categories": categories}
    return parse_coco(folder / _INFO, coco, name_of=lambda row: origin[row])
