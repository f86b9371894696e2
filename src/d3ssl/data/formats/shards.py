"""Tar shards in the WebDataset layout, read in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3ssl.data.formats.coco import Coco
from d3ssl.data.formats.coco_panoptic import CocoPanoptic
from d3ssl.data.formats.folder import walk
from d3ssl.data.formats.format import Format
from d3ssl.data.image_set import ANNOTATIONS, ImageSet, in_order
from d3ssl.data.shards.find import find_shards
from d3ssl.data.shards.members import read_members
from d3ssl.errors import InputError, first_names


@dataclass(frozen=True, kw_only=True)
class Shards(Format):
    """Images in shards, as ``annotations.json`` beside them names them, or one a sample where there is none.

    In a folder, all images that the annotations name must be there. Of shards that are named by themselves, those
    images are taken that are both in them and in the annotations.
    """

    what = "tar shards (a folder of them, one .tar, or 'DIR/{000..012}.tar')"
    shards: tuple[Path, ...]

    @classmethod
    def detect(cls, path: Path) -> Shards | None:
        path = path.parent if path.name == ANNOTATIONS and path.is_file() else path
        shards = find_shards(path)
        return cls(path=path, shards=shards) if shards else None

    @property
    def _annotated(self) -> Coco | None:
        file = self.shards[0].parent / ANNOTATIONS
        return CocoPanoptic.detect(file) or Coco.detect(file)

    def images(self) -> ImageSet:
        data, folder, whole = self.path, self.shards[0].parent, self.path.is_dir()
        if whole and (stray := next(iter(walk(data)), None)):
            remedy = "name the shards alone ('DIR/{000..012}.tar'), or move them into a folder of their own."
            raise InputError(f"holds tar shards and also images, such as {stray.name}", path=data, remedy=remedy)
        coco = self._annotated
        if coco is None:
            found = read_members(self.shards, one_a_sample=True)
            if not found:
                raise InputError("holds no images", path=data, remedy="name shards with image files in them.")
            ids = tuple(sorted(found))
            return ImageSet(root=folder, paths=tuple(found[name] for name in ids), ids=ids)
        _, ids, annotations = in_order(coco.file, coco.found())
        found = read_members(self.shards, one_a_sample=False)
        there = [index for index, name in enumerate(ids) if name in found]
        if not there or (whole and len(there) < len(ids)):
            missing = [name for name in ids if name not in found]
            problem = (
                f"names {len(missing)} of {len(ids)} images that are missing in the shards: {first_names(missing)}"
            )
            remedy = f"add the shards that hold them to {folder}, or correct the names."
            raise InputError(problem, path=coco.file, remedy=remedy)
        return ImageSet(
            root=folder,
            paths=tuple(found[ids[index]] for index in there),
            ids=tuple(ids[index] for index in there),
            annotations=None if annotations is None else annotations.subset(there),
        )

    def document(self) -> Any:
        return None if self._annotated is None else self._annotated.document()
