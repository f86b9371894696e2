"""Folders that hold COCO data in parts: as COCO is unpacked, and as ``d3ssl scenes`` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d3ssl.data.formats.coco import Coco
from d3ssl.data.formats.coco_panoptic import CocoPanoptic
from d3ssl.data.formats.folder import Folder
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.formats.shards import Shards
from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.semantic import SemanticSet
from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CocoParts(Format):
    """``train/`` and ``val/``, each with its ``annotations.json``; or ``annotations/instances_train2017.json`` and so
    on beside the folders of images, which as a whole is all images."""

    what = "for two parts, a folder with train/ and val/, or COCO as it is unpacked"

    @classmethod
    def detect(cls, path: Path) -> CocoParts | None:
        places = (f"*/{ANNOTATIONS}", "annotations/instances_train*.json", "annotations/panoptic_train*.json")
        return cls(path=path) if any(next(path.glob(place), None) for place in places) else None

    def images(self) -> ImageSet:
        if names := sorted(child.parent.name for child in self.path.glob(f"*/{ANNOTATIONS}")):
            problem = f"holds several data sets: {', '.join(names)}"
            raise InputError(problem, path=self.path, remedy=f"name one, such as {self.path / names[0]}.")
        return Folder(path=self.path).images()

    def maps(self) -> SemanticSet:
        return _open(self._training_file()).maps()

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        train, val = (self.path / name for name in ("train", "val"))
        if all((part / ANNOTATIONS).exists() for part in (train, val)):
            return _open(train), _open(val), "the folders train, val"
        if kind == "maps":
            return _open(self._training_file()).parts(kind)
        found = [self._files("instances", part) for part in ("train", "val")]
        if any(len(files) != 1 for files in found):
            return None
        (train,), (val,) = found
        return _open(train), _open(val), f"the files {train.name}, {val.name}"

    def _training_file(self) -> Path:
        """The one of COCO's own layout."""
        found = [*self._files("instances", "train"), *self._files("panoptic", "train")]
        if len(found) > 1:
            problem = f"has several sets of annotations: {', '.join(file.name for file in found)}"
            raise InputError(problem, path=self.path, remedy=f"name one, such as {found[-1]}.")
        return found[0] if found else self.path / "train"

    def _files(self, kind: str, part: str) -> list[Path]:
        return sorted((self.path / "annotations").glob(f"{kind}_{part}*.json"))


def _open(path: Path) -> Format:
    """An annotations file, or a folder with one."""
    found = Shards.detect(path) or CocoPanoptic.detect(path) or Coco.detect(path)
    return found or Folder(path=path)
