"""Open Images: the images of a split that are on disk, with the boxes and masks of its CSV files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.formats.format import Format, image_sizes
from d3ssl.data.image_set import ImageSet
from d3ssl.data.masks import pack_masks
from d3ssl.data.open_images.boxes import GROUP, stream_boxes
from d3ssl.data.open_images.classes import read_classes
from d3ssl.data.open_images.columns import find_file
from d3ssl.data.open_images.masks import find_mask_files, match_masks, run_lengths
from d3ssl.data.open_images.objects import gather_objects, with_masks
from d3ssl.errors import InputError

BOX_FILE = re.compile(r"(oidv\d+-)?(?P<split>train|validation|test)-annotations-bbox\.csv(\.gz)?")
"""Names of the files of boxes, of all releases."""
_CHUNK_BYTES = 16_000_000
_ID_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class OpenImages(Format):
    """A split, named by its file of boxes, ``[oidv6-]SPLIT-annotations-bbox.csv``, also with ``.gz``.

    Images are looked for in a folder named like the split (``train``, ``validation``, ``test``) beside the file or one
    level up, or below a folder ``images`` there; masks in a folder ``masks`` at these places, if their CSV file lies
    beside that of the boxes.
    """

    what = "a file of boxes of Open Images (.csv)"

    @classmethod
    def detect(cls, path: Path) -> OpenImages | None:
        return cls(path=path) if path.name.lower().endswith((".csv", ".csv.gz")) and path.exists() else None

    def images(self) -> ImageSet:
        named = BOX_FILE.fullmatch(self.path.name)
        if named is None:
            remedy = "of CSV files, DATA may be [oidv6-]SPLIT-annotations-bbox.csv of Open Images."
            raise InputError("is no file of boxes of Open Images by its name", path=self.path, remedy=remedy)
        split, folder = named["split"], self.path.absolute().parent
        places = [below / split for base in (folder, folder.parent) for below in (base, base / "images")]
        images = next((place for place in places if place.is_dir()), None)
        if images is None:
            tried = ", ".join(str(place) for place in places)
            raise InputError(
                "has no folder of images near it", path=self.path, remedy=f"put them into one of these: {tried}."
            )
        masks = next((place for place in (folder / "masks", folder.parent / "masks") if place.is_dir()), None)
        if masks is not None and find_file(folder, f"{split}-annotations-object-segmentation.csv") is None:
            masks = None
        return read_open_images(images, folder, split, masks=masks)


def read_open_images(
    images: str | Path, metadata: str | Path, split: str, *, masks: str | Path | None = None
) -> ImageSet:
    """Open a folder of images named ``IMAGE_ID.jpg`` with the boxes that the metadata have for them.

    Categories are all boxable classes, sorted by label; the category id of a class is its place there, from 1. Groups
    (IsGroupOf 1) are crowds; boxes with unknown flags (−1) and depictions are objects as all others. An image without
    boxes stays, without objects. The header of every image is read for its size.

    Args:
        images: any part of the split; files of other names are passed over.
        metadata: folder with ``class-descriptions-boxable.csv`` and ``SPLIT-annotations-bbox.csv`` (V4 to V7).
        split: ``train``, ``validation`` or ``test``.
        masks: folder (searched recursively) of the mask PNG files; needs ``SPLIT-annotations-object-segmentation.csv``.

    Raises:
        InputError: no images; a file is missing or malformed.
    """
    root, folder = Path(images), Path(metadata)
    paths = _image_files(root)
    class_file, box_file = (
        _needed(folder, name) for name in ("class-descriptions-boxable.csv", f"{split}-annotations-bbox.csv")
    )
    classes = read_classes(class_file)
    numbers = np.array([int(path.stem, 16) for path in paths], dtype=np.uint64)
    chunks = stream_boxes(box_file, classes, _CHUNK_BYTES, f"objects of {split}")
    table, _ = gather_objects(chunks, numbers, np.ones(len(classes), dtype=bool))
    if masks is not None:
        mask_file = _needed(folder, f"{split}-annotations-object-segmentation.csv")
        table = with_masks(table, match_masks(mask_file, classes, numbers, table, _CHUNK_BYTES)[0])
    sizes = image_sizes(paths)
    of_size = sizes[table.image]
    segmentations = [None] * len(table)
    if masks is not None:
        files = find_mask_files(Path(masks), table)
        names = zip(table.masks, of_size.tolist(), strict=True)
        segmentations = [None if name is None else run_lengths(files[name], *size) for name, size in names]
    limit = of_size[:, [1, 0, 1, 0]]
    starts = np.searchsorted(table.image, np.arange(1, len(paths)))
    annotations = CocoAnnotations(
        path=box_file,
        categories={number + 1: name for number, name in enumerate(classes.names)},
        file_names=tuple(path.name for path in paths),
        sizes=sizes,
        entries=tuple(
            {"id": path.stem, "file_name": path.name, "height": height, "width": width}
            for path, (height, width) in zip(paths, sizes.tolist(), strict=True)
        ),
        objects_of=tuple(np.split(np.arange(len(table), dtype=np.int64), starts)),
        boxes=(table.sides[:, [0, 2, 1, 3]] * limit).astype(np.float32),
        labels=table.label,
        crowd=table.flags[:, GROUP] == 1,
        ids=np.arange(1, len(table) + 1, dtype=np.int64),
        segmentations=pack_masks(segmentations, of_size)[0],
    )
    return ImageSet(root=root, paths=paths, ids=tuple(path.name for path in paths), annotations=annotations)


def _image_files(root: Path) -> tuple[Path, ...]:
    digits = set("0123456789abcdef")
    files = root.iterdir() if root.is_dir() else ()
    named = (path for path in files if path.suffix == ".jpg" and len(path.stem) == _ID_DIGITS)
    found = tuple(sorted(path for path in named if set(path.stem) <= digits))
    if not found:
        remedy = "name a folder with images of Open Images, such as 0001eeaf4aed83f9.jpg."
        raise InputError("holds no images named by their ids", path=root, remedy=remedy)
    return found


def _needed(folder: Path, name: str) -> Path:
    found = find_file(folder, name)
    if found is None:
        raise InputError(f"has no {name}", path=folder, remedy="put it there.")
    return found
