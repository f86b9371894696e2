"""The ADE20K scene parsing benchmark: images without objects, with a PNG of class numbers each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from d3ssl.data.formats.folder import Folder
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.image_set import ImageSet
from d3ssl.data.semantic import IGNORED, SemanticSet, from_files
from d3ssl.errors import InputError
from d3ssl.files import read_text

ADE_PARTS = ("images/training", "images/validation", "annotations/training", "annotations/validation")
"""What a tree holds."""
ADE_CLASSES = 150
"""Of the benchmark, where no ``objectInfo150.txt`` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Ade20k(Format):
    """``ADEChallengeData2016``, or the folder above; as a whole, its training images."""

    what = "a tree of ADE20K"
    tree: Path
    part: Literal["training", "validation"] = "training"

    @classmethod
    def detect(cls, path: Path) -> Ade20k | None:
        for tree in (path, path / "ADEChallengeData2016"):
            if all((tree / part).is_dir() for part in ADE_PARTS):
                return cls(path=path, tree=tree)
        return None

    def images(self) -> ImageSet:
        return Folder(path=self.tree / "images" / self.part).images()

    def maps(self) -> SemanticSet:
        """Pixel value v > 0 is label v − 1; 0 ("other") is ignored. Names come from ``objectInfo150.txt``, if any."""
        place = self.tree / "images" / self.part
        names = sorted(path.stem for path in place.glob("*.jpg") if not path.name.startswith("."))
        if not names:
            raise InputError("holds no images (*.jpg)", path=place, remedy="put the split's images there.")
        classes = _ade_names(self.tree / "objectInfo150.txt")
        known = {0: IGNORED} | {label + 1: label for label in range(len(classes))}
        meaning = f"classes are 1 to {len(classes)}, and 0 is ignored"
        folders = (f"images/{self.part}", f"annotations/{self.part}")
        return from_files(self.tree, place, names, folders, classes, known, meaning)

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        if kind == "objects":
            return None
        train, val = replace(self, part="training"), replace(self, part="validation")
        return train, val, "ADE20K's training and validation"


def _ade_names(path: Path) -> tuple[str, ...]:
    """The last column of the benchmark's table, in the order of its first (1, 2, …)."""
    if not path.is_file():
        return tuple(f"class {number}" for number in range(1, ADE_CLASSES + 1))
    lines = [line.split("\t") for line in read_text(path).splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line] for line in lines if line[0].strip().isdecimal()]
    if not rows or [int(row[0]) for row in rows] != list(range(1, len(rows) + 1)) or any(len(row) < 2 for row in rows):
        remedy = "one row per class, tab-separated: number (from 1), …, name; or remove the file."
        raise InputError("is no list of classes", path=path, remedy=remedy)
    return tuple(row[-1] for row in rows)
