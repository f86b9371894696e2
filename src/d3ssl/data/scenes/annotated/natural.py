"""Photographs taken as they are: links to the images, and annotations of their objects that have masks."""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from d3ssl import console
from d3ssl.data.place import Member, Place, open_place
from d3ssl.data.scenes.annotated.instances import Instance
from d3ssl.data.scenes.annotated.sides import Side
from d3ssl.data.scenes.write import Described, coco_document, mask_entries
from d3ssl.files import write_text


def write_natural(
    folder: Path, side: Side, instances: tuple[Instance, ...], classes: tuple[str, ...]
) -> list[Described]:
    """Write ``folder/images`` and ``folder/annotations.json``: the photographs that show one of the objects.

    Images keep their names. They are links, except images that lie in tar shards or where links are not possible: these
    are copied. Annotations keep their ids; categories are numbered as in scenes.

    Args:
        instances: photograph by photograph.
    """
    own = side.annotations
    category = {own.names.index(name): number for number, name in enumerate(classes, start=1)}
    described: list[Described] = []
    with console.progress(f"photographs of {side.name}", len({one.image for one in instances})) as ticker:
        for image, group in groupby(enumerate(instances), key=lambda pair: pair[1].image):
            numbers, shown = zip(*group, strict=True)
            masks = own.masks(image, [one.place for one in shown])
            kept = np.flatnonzero(masks.any(axis=(1, 2))).tolist()  # a thin polygon may hold no pixel
            numbers, shown = [numbers[place] for place in kept], [shown[place] for place in kept]
            name = side.images.ids[image]
            _link(side.images.paths[image], folder / "images" / name)
            height, width = own.sizes[image].tolist()
            objects: list[dict[str, Any]] = [
                {"id": one.annotation, "category_id": category[one.label], **entry, "bbox": _box(side, one)}
                for one, entry in zip(shown, mask_entries(masks[kept].transpose(1, 2, 0)), strict=True)
            ]
            entry = {"file_name": name, "height": height, "width": width}
            described.append({"image": entry, "objects": objects, "photograph": image, "instances": numbers})
            ticker.advance()
    write_text(folder / "annotations.json", json.dumps(coco_document(described, classes)) + "\n")
    return described


def _box(side: Side, one: Instance) -> list[float]:
    """x, y, width, height as annotated, px."""
    left, top, right, bottom = side.annotations.boxes[side.annotations.objects_of[one.image][one.place]].tolist()
    return [round(value, 3) for value in (left, top, right - left, bottom - top)]


def _link(place: Place, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(place, Member):
        try:
            path.symlink_to(place.resolve())
            return
        except OSError:  # the file system has no links
            pass
    with open_place(place) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
