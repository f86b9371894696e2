"""Folders ``train`` and ``val``, each a data set with its ``annotations.json``: what ``d3ssl scenes`` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d3ssl.data.formats.coco import Coco
from d3ssl.data.formats.coco_panoptic import CocoPanoptic
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.formats.shards import Shards
from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SplitFolders(Format):
    """A folder of data sets: it has parts, and is none itself."""

    what = "for evaluations, a folder with train/ and val/"

    @classmethod
    def detect(cls, path: Path) -> SplitFolders | None:
        return cls(path=path) if next(path.glob(f"*/{ANNOTATIONS}"), None) else None

    def images(self) -> ImageSet:
        names = sorted(child.parent.name for child in self.path.glob(f"*/{ANNOTATIONS}"))
        problem = f"holds several data sets: {', '.join(names)}"
        raise InputError(problem, path=self.path, remedy=f"name one, such as {self.path / names[0]}.")

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        found = [_open(self.path / name) for name in ("train", "val")]
        return None if None in found else (found[0], found[1], "the folders train, val")  # type: ignore[return-value]


def _open(folder: Path) -> Format | None:
    if not (folder / ANNOTATIONS).exists():
        return None
    return Shards.detect(folder) or CocoPanoptic.detect(folder) or Coco.detect(folder)
