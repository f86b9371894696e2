"""COCO as it is unpacked: ``annotations/instances_train2017.json`` and so on, beside the folders of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d3ssl.data.formats.coco import Coco
from d3ssl.data.formats.coco_panoptic import CocoPanoptic
from d3ssl.data.formats.folder import Folder
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.semantic import SemanticSet
from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CocoTree(Folder):
    """All images of the tree; its parts are what the files of training and validation annotate."""

    what = "COCO as it is unpacked (a folder with annotations/instances_train2017.json in it)"

    @classmethod
    def detect(cls, path: Path) -> CocoTree | None:
        tree = cls(path=path)
        return tree if tree._files("instances", "train") or tree._files("panoptic", "train") else None

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        if kind == "maps":
            return self._annotated().parts(kind)
        found = [self._files("instances", part) for part in ("train", "val")]
        if any(len(files) != 1 for files in found):
            return None
        train, val = (Coco(path=files[0], file=files[0]) for files in found)
        return train, val, f"the files {train.file.name}, {val.file.name}"

    def maps(self) -> SemanticSet:
        return self._annotated().maps()

    def _annotated(self) -> Coco:
        """The one file of training."""
        found = [*self._files("instances", "train"), *self._files("panoptic", "train")]
        if len(found) > 1:
            problem = f"has several sets of annotations: {', '.join(file.name for file in found)}"
            raise InputError(problem, path=self.path, remedy=f"name one, such as {found[-1]}.")
        file = found[0]
        return CocoPanoptic.detect(file) or Coco(path=file, file=file)

    def _files(self, kind: str, part: str) -> list[Path]:
        return sorted((self.path / "annotations").glob(f"{kind}_{part}*.json"))
