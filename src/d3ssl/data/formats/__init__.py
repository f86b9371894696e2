"""The formats of data sets, one file each. A new one is a file and a line in the table below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3ssl.data.formats.ade20k import Ade20k
from d3ssl.data.formats.coco import Coco
from d3ssl.data.formats.coco_panoptic import CocoPanoptic
from d3ssl.data.formats.coco_parts import CocoParts
from d3ssl.data.formats.folder import Folder
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.formats.hugging_face import HuggingFace
from d3ssl.data.formats.image_list import ImageList
from d3ssl.data.formats.open_images import OpenImages
from d3ssl.data.formats.shards import Shards
from d3ssl.data.formats.torch_dataset import TorchDataset
from d3ssl.data.formats.voc import Voc
from d3ssl.data.formats.yolo import Yolo
from d3ssl.errors import InputError

FORMATS: list[type[Format]] = [
    Shards,
    CocoPanoptic,
    Coco,
    Voc,
    Yolo,
    HuggingFace,
    Ade20k,
    CocoParts,
    OpenImages,
    ImageList,
    TorchDataset,
    Folder,
]
"""Each is asked whether a path is its own, in this order: a folder of anything is a folder of images."""

__all__ = ["FORMATS", "Format", "Kind", "detect_format", "find_format"]


def detect_format(data: Any) -> Format | None:
    """The data set that DATA is, a path or a data set from Python; None: there is none of a known format. No image is
    opened."""
    if not isinstance(data, (str, Path)):
        return TorchDataset.given(data)
    return next((found for kind in FORMATS if (found := kind.detect(Path(data)))), None)


def find_format(data: Any) -> Format:
    """As ``detect_format``.

    Raises:
        InputError: there is no such file or folder, or it is of no known format.
    """
    if found := detect_format(data):
        return found
    known = "; ".join(kind.what for kind in FORMATS)
    there = Path(data).exists()
    problem = "is neither a folder nor a file of a format that is known" if there else "no such file or folder"
    raise InputError(problem, path=data, remedy=f"DATA may be: {known}.")
