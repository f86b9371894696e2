"""A folder of images, with its subfolders."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from d3ssl.data.formats.format import Format
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.data.semantic import SemanticSet
from d3ssl.data.shards.find import compressed_tars
from d3ssl.data.shards.tar import compressed
from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Folder(Format):
    """All images below a folder."""

    what = "a folder of images"

    @classmethod
    def detect(cls, path: Path) -> Folder | None:
        return cls(path=path) if path.is_dir() else None

    def images(self) -> ImageSet:
        root = self.path
        found = sorted((_name(root, path), path) for path in walk(root))
        if not found:
            for tar in compressed_tars(root):
                raise compressed(tar, tar.suffix.lstrip("."))
            remedy = f"name a folder with files of these kinds: {', '.join(sorted(IMAGE_SUFFIXES))}."
            raise InputError("holds no images", path=root, remedy=remedy)
        for (name, path), (other, other_path) in pairwise(found):
            if name == other:
                problem = f"differs from {other_path} in Unicode form only"
                raise InputError(problem, path=path, remedy="rename one of them.")
        names, paths = zip(*found, strict=True)
        return ImageSet(root=root, paths=paths, ids=names)

    def maps(self) -> SemanticSet:
        remedy = (
            "give data with masks: a folder of `d3ssl scenes`, a folder with annotations.json beside images/, a COCO "
            "file (instances or panoptic), COCO's folder with annotations/ in it, a VOC tree or ADEChallengeData2016."
        )
        raise InputError("holds no data with classes of pixels that d3ssl knows", path=self.path, remedy=remedy)


def walk(root: Path) -> list[Path]:
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
