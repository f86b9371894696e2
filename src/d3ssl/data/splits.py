"""Data that comes in two parts, one to train on and one to validate on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.sources import open_images
from d3ssl.data.trees import VOC_OBJECT_PARTS, voc_folder, voc_list_folder
from d3ssl.errors import InputError


class Parts(NamedTuple):
    """Two sets with the same categories."""

    train: ImageSet
    val: ImageSet
    rule: str
    """How the parts came about, for people."""


def open_parts(data: str | Path) -> Parts | None:
    """The parts for training and validation that DATA brings; None: it does not come in two parts.

    - a folder with ``train`` and ``val``, each with its ``annotations.json``;
    - Pascal VOC: a tree (its lists ``ImageSets/Main/train.txt`` and ``val.txt``), or a list ``train.txt`` of it with
      ``val.txt`` beside it, such as that of ``ImageSets/Segmentation``, whose images have masks;
    - COCO as it is unpacked: ``annotations/instances_train*.json`` and ``instances_val*.json``, one of each.

    Raises:
        InputError: a part cannot be opened, or the two have different categories.
    """
    root = Path(data)
    found = _folders(root) or _voc_lists(root) or _coco_files(root)
    if found is None:
        return None
    *paths, rule = found
    train, val = (open_images(path) for path in paths)
    check_categories(train, val)
    return Parts(train, val, rule)


def check_categories(train: ImageSet, other: ImageSet) -> None:
    """Raise InputError if the two sets do not have the same category ids and names."""
    assert train.annotations is not None and other.annotations is not None
    if train.annotations.categories != other.annotations.categories:
        problem = f"has other categories than {train.annotations.path}"
        raise InputError(problem, path=other.annotations.path, remedy="write the same categories into both files.")


def _folders(root: Path) -> tuple[Path, Path, str] | None:
    parts = (root / "train", root / "val")
    return (*parts, "the folders train, val") if all((part / ANNOTATIONS).exists() for part in parts) else None


def _voc_lists(root: Path) -> tuple[Path, Path, str] | None:
    tree = voc_folder(root, VOC_OBJECT_PARTS) if root.is_dir() else None
    train = tree / "ImageSets" / "Main" / "train.txt" if tree else root
    is_list = train.name == "train.txt" and voc_list_folder(train) is not None
    val = train.with_name("val.txt")
    if not (is_list and train.is_file() and val.is_file()):
        return None
    return train, val, f"Pascal VOC's lists {train.name}, {val.name}"


def _coco_files(root: Path) -> tuple[Path, Path, str] | None:
    found = [sorted((root / "annotations").glob(f"instances_{part}*.json")) for part in ("train", "val")]
    if any(len(files) != 1 for files in found):
        return None
    (train,), (val,) = found
    return train, val, f"the files {train.name}, {val.name}"
