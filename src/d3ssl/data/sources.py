"""Opening DATA, whatever its format: the images, and the two parts that it may come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from d3ssl.data.formats import detect_format, find_format
from d3ssl.data.image_set import ImageSet
from d3ssl.errors import InputError


def open_images(data: Any) -> ImageSet:
    """The images of DATA, with their objects as far as it has any: a path to data of any format, or from Python a
    ``torch.utils.data.Dataset`` (docs/data.md); an ``ImageSet`` is given back as it is.

    No image is opened. With annotations or a list, the set is what they name.

    Raises:
        InputError: no such file or folder, no images in it, several data sets in it, annotations that are malformed or
            name missing images, shards that are damaged, compressed or not all there.
    """
    return data if isinstance(data, ImageSet) else find_format(data).images()


def name_of(data: Any) -> str:
    """What messages and records call DATA."""
    return str(data) if isinstance(data, (str, Path)) else f"{type(data).__name__} given from Python"


class Parts(NamedTuple):
    """Two sets with the same categories."""

    train: ImageSet
    val: ImageSet
    rule: str
    """How the parts came about, for people."""


def open_parts(data: Any) -> Parts | None:
    """The parts for training and validation that DATA brings; None: it does not come in two parts.

    Raises:
        InputError: a part cannot be opened, or the two have different categories.
    """
    found = detect_format(data)
    parts = found and found.parts("objects")
    if parts is None:
        return None
    train, val = (part.images() for part in parts[:2])
    check_categories(train, val)
    return Parts(train, val, parts[2])


def check_categories(train: ImageSet, other: ImageSet) -> None:
    """Raise InputError if the two sets do not have objects of the same category ids and names."""
    if train.annotated.categories != other.annotated.categories:
        problem = f"has other categories than {train.annotated.path}"
        raise InputError(problem, path=other.annotated.path, remedy="write the same categories into both files.")
