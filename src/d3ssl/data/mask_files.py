"""Masks that another program made for images: of SAM or any segmenter, as a COCO file or as a folder of label maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.coco import parse_coco
from d3ssl.data.formats.format import UNREADABLE, image_sizes
from d3ssl.data.image_set import ImageSet
from d3ssl.data.number_png import read_map
from d3ssl.data.segment_files import SegmentFiles
from d3ssl.errors import InputError, first_names, one_line
from d3ssl.files import read_json
from d3ssl.memory import without_collector

_REMEDY = (
    "give a COCO results file (a list of image_id and segmentation), a COCO instances file, or a folder with a PNG of "
    "numbers for each image: 0 for none, 1, 2, … for its masks."
)


def with_masks(images: ImageSet, masks: str | Path) -> ImageSet:
    """The images with the masks as their objects, all of one class, instead of what was annotated.

    In a COCO file an image is named by its id in the images' own annotations, by its id here (its path), or by that
    without its ending; in a folder the map of ``a/b.jpg`` is ``a/b.png``. Images without masks have no objects.

    Args:
        masks: a results file, an instances file, or a folder.

    Raises:
        InputError: there is no such thing, it is malformed, or it has masks of none of the images.
    """
    path = Path(masks)
    if path.is_dir():
        return replace(images, annotations=_from_folder(images, path))
    if path.suffix.lower() != ".json":
        raise InputError("is no folder and no file of masks", path=path, remedy=_REMEDY)
    with without_collector():
        found = read_json(path)
        if isinstance(found, dict):
            found = _by_file_name(path, found)
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise InputError("is no list of masks", path=path, remedy=_REMEDY)
        return replace(images, annotations=_from_results(images, path, found))


def _by_file_name(path: Path, document: dict[str, Any]) -> list[Any]:
    """The objects of an instances file, each naming its image by the file."""
    try:
        names = {entry["id"]: entry["file_name"] for entry in document["images"]}
        return [entry | {"image_id": names[entry["image_id"]]} for entry in document["annotations"]]
    except (KeyError, TypeError) as error:
        problem = f"is neither a COCO results nor an instances file ({type(error).__name__}: {error})"
        raise InputError(problem, path=path, remedy=_REMEDY) from error


def _from_results(images: ImageSet, path: Path, found: list[dict[str, Any]]) -> CocoAnnotations:
    place: dict[Any, int] = {}
    for index, name in enumerate(images.ids):
        place |= {str(PurePosixPath(name).with_suffix("")): index, name: index}
    if images.annotations is not None:
        place |= {entry.get("id"): index for index, entry in enumerate(images.annotations.entries)}
    strange = [entry.get("image_id") for entry in found if entry.get("image_id") not in place]
    if strange:
        some = first_names([repr(name) for name in dict.fromkeys(map(str, strange))])
        problem = f"{len(strange)} of {len(found)} masks are of images that are not among these: {some}"
        raise InputError(problem, path=path, remedy="name the images that the masks were made for.")
    sizes = image_sizes(images.paths, strict=False).tolist()
    objects = []
    for number, entry in enumerate(found, start=1):
        index, shape = place[entry["image_id"]], entry.get("segmentation")
        if tuple(sizes[index]) == UNREADABLE:
            continue
        try:
            box = entry.get("bbox") or _box(shape, *sizes[index])
        except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            problem = f"entry {number} has no valid segmentation ({one_line(error, None)})"
            raise InputError(problem, path=path, remedy=_REMEDY) from error
        one = {"id": number, "image_id": index, "category_id": 1, "bbox": box, "segmentation": shape}
        objects.append(one)
    return parse_coco(path, _document(images, sizes, objects))


def _box(shape: Any, height: int, width: int) -> list[float]:
    """x, y, width, height of polygons or run lengths. Results often have no box."""
    if not shape:
        raise ValueError("there is none")
    if isinstance(shape, dict) and isinstance(shape["counts"], str):
        coded: Any = {"size": shape["size"], "counts": shape["counts"].encode("ascii")}
    else:
        coded = rle.frPyObjects(shape, height, width)
        coded = rle.merge(coded) if isinstance(coded, list) else coded
    return [float(side) for side in rle.toBbox(coded)]


def _from_folder(images: ImageSet, folder: Path) -> CocoAnnotations:
    files = {index: folder / PurePosixPath(name).with_suffix(".png") for index, name in enumerate(images.ids)}
    files = {index: file for index, file in files.items() if file.is_file()}
    if not files:
        first = PurePosixPath(images.ids[0]).with_suffix(".png")
        problem = f"has a map of none of {len(images)} images, such as {first}"
        raise InputError(problem, path=folder, remedy=_REMEDY)
    sizes = image_sizes(images.paths, strict=False).tolist()
    objects, numbers, places = [], [], []
    for place, (index, file) in enumerate(files.items()):
        values = read_map(file)
        if tuple(sizes[index]) == UNREADABLE:
            continue
        if values.shape != tuple(sizes[index]):
            problem = f"is {values.shape[1]}×{values.shape[0]} px, its image {sizes[index][1]}×{sizes[index][0]}"
            raise InputError(problem, path=file, remedy="make a map of the image itself.")
        for value in np.unique(values[values > 0]).tolist():
            rows, columns = (np.flatnonzero((values == value).any(axis=axis)) for axis in (1, 0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
            objects.append({"id": len(objects) + 1, "image_id": index, "category_id": 1, "bbox": box})
            numbers.append(value)
            places.append(place)
    annotations = parse_coco(folder, _document(images, sizes, objects))
    kept = SegmentFiles(
        paths=tuple(files.values()),
        file_of=np.array(places, dtype=np.int64),
        numbers=np.array(numbers, dtype=np.int64),
        boxes=annotations.boxes,
        stand_in=np.zeros(len(numbers), dtype=bool),
        coloured=False,
    )
    return replace(annotations, segmentations=kept)


def _document(images: ImageSet, sizes: list[list[int]], objects: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [
        {"id": index, "file_name": name, "height": height, "width": width}
        for index, (name, (height, width)) in enumerate(zip(images.ids, sizes, strict=True))
    ]
    return {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "mask"}]}
