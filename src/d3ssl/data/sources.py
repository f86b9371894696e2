"""Where images come from: a folder, an annotations file with its images, a list, the tree of a known data set, or tar
shards."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from d3ssl.data.coco import CocoAnnotations, image_names, parse_coco, without_collector
from d3ssl.data.folders import images_folder, is_below
from d3ssl.data.image_list import read_image_list
from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.data.open_images.read import open_box_file
from d3ssl.data.panoptic import is_panoptic_document, panoptic_annotations
from d3ssl.data.shards.find import compressed_tars, find_shards
from d3ssl.data.shards.members import read_members
from d3ssl.data.shards.tar import compressed
from d3ssl.data.trees import VOC_OBJECT_PARTS, ade_folder, voc_folder, voc_list_folder
from d3ssl.data.voc import voc_annotations
from d3ssl.errors import InputError, first_names
from d3ssl.files import read_json


def open_images(data: str | Path) -> ImageSet:
    """Open DATA:

    - a folder of images (with its subfolders);
    - COCO: a folder with ``annotations.json`` beside ``images/``, or an annotations file: instances, panoptic (its
      things are the objects), or ``image_info_….json`` without annotations (images only);
    - Pascal VOC: ``VOCdevkit/VOC2012`` or a folder above; or one of its lists, ``ImageSets/Main/train.txt``;
    - ADE20K scene parsing: ``ADEChallengeData2016`` or the folder above (the training images, without objects);
    - Open Images: a file of boxes, ``[oidv6-]SPLIT-annotations-bbox.csv``, with its class names beside it and the
      images in a folder named like the split;
    - a list: a text file (``.txt``) with one image path a line, relative to its folder;
    - tar shards: a folder of them (with ``annotations.json`` beside, if any), one ``.tar``, or a pattern such as
      ``shards/{000..012}.tar``.

    No image is opened. With annotations or a list, the set is what they name. For a COCO file elsewhere, images are
    looked for in the customary folders: ``images/`` beside the file or one level up, a folder named like the end of
    the file's name (``instances_train2017.json`` → ``train2017``), and the file's own folder.

    Raises:
        InputError: no such file or folder, no images in it, several data sets in it, annotations that are malformed or
            name missing images, shards that are damaged, compressed or not all there.
    """
    path = Path(data)
    if shards := find_shards(path):
        return _open_shards(path, shards)
    if path.is_dir():
        return _open_json(path / ANNOTATIONS) if (path / ANNOTATIONS).exists() else _open_tree(path)
    if path.suffix.lower() == ".json":
        return _open_json(path)
    if path.suffix.lower() == ".txt" and path.exists():
        if tree := voc_list_folder(path):
            return _named(path, tree / "JPEGImages", voc_annotations(tree, path))
        return _named(path, path.parent, read_image_list(path))
    if path.name.lower().endswith((".csv", ".csv.gz")) and path.exists():
        return open_box_file(path)
    remedy = (
        f"DATA is a folder of images, a folder with {ANNOTATIONS} beside images/, an annotations file (.json), a tree "
        "of Pascal VOC or ADE20K, a file of boxes of Open Images (.csv), a list of images (.txt), or tar shards "
        "('DIR/{000..012}.tar')."
    )
    if path.exists():
        raise InputError("is neither a folder nor an annotations file nor a list", path=path, remedy=remedy)
    raise InputError("no such file or folder", path=path, remedy=remedy)


def _open_tree(root: Path) -> ImageSet:
    if tree := voc_folder(root, VOC_OBJECT_PARTS):
        return _named(tree, tree / "JPEGImages", voc_annotations(tree))
    if tree := ade_folder(root):
        return _open_folder(tree / "images" / "training")
    return _open_folder(root)


def _open_folder(root: Path) -> ImageSet:
    parts = sorted(child.parent.name for child in root.glob(f"*/{ANNOTATIONS}"))
    if parts:
        listed = ", ".join(parts)
        raise InputError(
            f"holds several data sets: {listed}", path=root, remedy=f"name one, such as {root / parts[0]}."
        )
    found = sorted((_name(root, path), path) for path in _walk(root))
    if not found:
        for tar in compressed_tars(root):
            raise compressed(tar, tar.suffix.lstrip("."))
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError("holds no images", path=root, remedy=f"name a folder with files of these kinds: {suffixes}.")
    for (name, path), (other, other_path) in pairwise(found):
        if name == other:
            raise InputError(f"differs from {other_path} in Unicode form only", path=path, remedy="rename one of them.")
    names, paths = zip(*found, strict=True)
    return ImageSet(root=root, paths=paths, ids=names)


def _walk(root: Path) -> list[Path]:
    """All image files below a folder; links to folders are followed once, hidden files and folders passed over."""
    found, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_cannot_list):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        images = (name for name in files if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES)
        found.extend(Path(folder, name) for name in images)
    return found


def _cannot_list(error: OSError) -> None:
    raise InputError(f"cannot be listed ({error.strerror})", path=error.filename, remedy="check its permissions.")


def _name(root: Path, path: Path) -> str:
    name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    if not name.isprintable():  # line breaks, and bytes that are no UTF-8
        raise InputError("has a file name that is not plain Unicode text", path=repr(str(path)), remedy="rename it.")
    return name


def _open_json(file: Path) -> ImageSet:
    if file.name == ANNOTATIONS and (shards := find_shards(file.parent)):
        return _open_shards(file.parent, shards)
    found = _read_json(file)
    names = found.file_names if isinstance(found, CocoAnnotations) else found
    return _named(file, images_folder(file, names), found)


def _read_json(file: Path) -> CocoAnnotations | tuple[str, ...]:
    """What an annotations file says of its images, or their names alone where it says nothing."""
    with without_collector():
        document = read_json(file)
        found = image_names(file, document)
        if found is None:
            found = _annotations(file, document)
    for name in found.file_names if isinstance(found, CocoAnnotations) else found:
        if not is_below(name):
            problem = f"names the image {name!r}, which is not below the images' folder"
            raise InputError(problem, path=file, remedy="write file names relative to the images' folder, with '/'.")
    return found


def _annotations(file: Path, document: Any) -> CocoAnnotations:
    is_panoptic = is_panoptic_document(document)
    return panoptic_annotations(file, document) if is_panoptic else parse_coco(file, document)


def _named(source: Path, root: Path, found: CocoAnnotations | tuple[str, ...]) -> ImageSet:
    """The images that annotations, or a list, name below a folder, in the order of their ids."""
    file_names, ids, annotations = _in_order(source, found)
    paths = tuple(root / name for name in file_names)
    return ImageSet(root=root, paths=paths, ids=ids, annotations=annotations)


def _in_order(
    source: Path, found: CocoAnnotations | tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], CocoAnnotations | None]:
    """File names, ids and annotations in the order of the ids."""
    file_names = found.file_names if isinstance(found, CocoAnnotations) else found
    names = [unicodedata.normalize("NFC", PurePosixPath(name).as_posix()) for name in file_names]
    order = sorted(range(len(names)), key=names.__getitem__)
    for one, other in pairwise(order):
        if names[one] == names[other]:
            problem = f"names the image {names[one]!r} twice, as {file_names[other]!r} too"
            raise InputError(problem, path=source, remedy="keep one of the two entries.")
    return (
        tuple(file_names[index] for index in order),
        tuple(names[index] for index in order),
        found.subset(order) if isinstance(found, CocoAnnotations) else None,
    )


def _open_shards(data: Path, shards: Sequence[Path]) -> ImageSet:
    """Images in shards, as ``annotations.json`` beside them names them, or one a sample where there is none.

    In a folder, all images that the annotations name must be there. Of shards that are named by themselves, those
    images are taken that are both in them and in the annotations.
    """
    folder, whole = shards[0].parent, data.is_dir()
    if whole and (stray := next(iter(_walk(data)), None)):
        remedy = "name the shards alone ('DIR/{000..012}.tar'), or move them into a folder of their own."
        raise InputError(f"holds tar shards and also images, such as {stray.name}", path=data, remedy=remedy)
    file = folder / ANNOTATIONS
    if not file.exists():
        found = read_members(shards, one_a_sample=True)
        if not found:
            raise InputError("holds no images", path=data, remedy="name shards with image files in them.")
        ids = tuple(sorted(found))
        return ImageSet(root=folder, paths=tuple(found[name] for name in ids), ids=ids)
    _, ids, annotations = _in_order(file, _read_json(file))
    found = read_members(shards, one_a_sample=False)
    there = [index for index, name in enumerate(ids) if name in found]
    if not there or (whole and len(there) < len(ids)):
        missing = [name for name in ids if name not in found]
        problem = f"names {len(missing)} of {len(ids)} images that are missing in the shards: {first_names(missing)}"
        raise InputError(problem, path=file, remedy=f"add the shards that hold them to {folder}, or correct the names.")
    return ImageSet(
        root=folder,
        paths=tuple(found[ids[index]] for index in there),
        ids=tuple(ids[index] for index in there),
        annotations=None if annotations is None else annotations.subset(there),
    )
