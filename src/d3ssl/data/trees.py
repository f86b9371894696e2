"""Folders that are unpacked data sets, recognised by what they hold: Pascal VOC and ADE20K."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d3ssl.errors import InputError

# fmt: off
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
"""Pascal VOC's classes; position = pixel value."""
VOC_PARTS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
"""What a VOC tree with segmentations holds."""
VOC_OBJECT_PARTS = ("JPEGImages", "Annotations")
"""What a VOC tree with objects holds."""
ADE_PARTS = ("images/training", "images/validation", "annotations/training", "annotations/validation")
"""What an ADE20K scene parsing tree holds."""


def voc_folder(root: Path, parts: Sequence[str] = VOC_PARTS) -> Path | None:
    """The VOC tree that DATA is or holds (``VOCdevkit``, or the folder with ``VOCdevkit`` in it); None: there is none.

    Args:
        parts: the folders by which a tree is recognised.

    Raises:
        InputError: it holds several.
    """
    if _holds(root, parts):
        return root
    found = [folder for below in ("VOC*", "VOCdevkit/VOC*") for folder in sorted(root.glob(below))]
    found = [folder for folder in found if _holds(folder, parts)]
    if len(found) > 1:
        listed = ", ".join(folder.name for folder in found)
        raise InputError(f"holds several data sets: {listed}", path=root, remedy=f"name one, such as {found[-1]}.")
    return found[0] if found else None


def voc_list_folder(file: Path) -> Path | None:
    """The VOC tree with objects whose list of images (``ImageSets/Main/train.txt``, …) this file is; None: of none."""
    folder = file.absolute().parent.parent.parent
    is_list = file.suffix == ".txt" and file.absolute().parent.parent.name == "ImageSets"
    return folder if is_list and _holds(folder, VOC_OBJECT_PARTS) else None


def ade_folder(root: Path) -> Path | None:
    """The ADE20K scene parsing tree that DATA is or holds (``ADEChallengeData2016``); None: there is none."""
    candidates = (root, root / "ADEChallengeData2016")
    return next((folder for folder in candidates if _holds(folder, ADE_PARTS)), None)


def _holds(folder: Path, parts: Sequence[str]) -> bool:
    return all((folder / part).is_dir() for part in parts)
