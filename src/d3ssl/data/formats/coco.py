"""COCO: an annotations file of instances, or one that lists images alone, with the images near it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.coco import image_names, parse_coco
from d3ssl.data.folders import candidate_folders, images_folder, is_below
from d3ssl.data.formats.folder import Folder
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.image_set import ANNOTATIONS, ImageSet, named_images
from d3ssl.errors import InputError
from d3ssl.files import read_json
from d3ssl.memory import without_collector


@dataclass(frozen=True, kw_only=True)
class Coco(Format):
    """A folder with ``annotations.json`` beside ``images/``, or an annotations file.

    Images of a file are looked for in the customary folders: ``images/`` beside it or one level up, a folder named like
    the end of the file's name (``instances_train2017.json`` → ``train2017``), and the file's own folder.
    """

    what = f"COCO (a folder with {ANNOTATIONS} beside images/, or an annotations file, .json)"
    file: Path

    @classmethod
    def detect(cls, path: Path) -> Coco | None:
        file = path / ANNOTATIONS if path.is_dir() else path
        return cls(path=path, file=file) if file.suffix.lower() == ".json" and file.exists() else None

    def images(self) -> ImageSet:
        found = self.found()
        names = found.file_names if isinstance(found, CocoAnnotations) else found
        return named_images(self.file, images_folder(self.file, names), found)

    def found(self) -> CocoAnnotations | tuple[str, ...]:
        """What the file says of its images, or their names alone where it says nothing."""
        with without_collector():
            found = self._parse(read_json(self.file))
        for name in found.file_names if isinstance(found, CocoAnnotations) else found:
            if not is_below(name):
                problem = f"names the image {name!r}, which is not below the images' folder"
                remedy = "write file names relative to the images' folder, with '/'."
                raise InputError(problem, path=self.file, remedy=remedy)
        return found

    def _parse(self, document: Any) -> CocoAnnotations | tuple[str, ...]:
        names = image_names(self.file, document)
        return parse_coco(self.file, document, self.max_bad_share) if names is None else names

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        """Of a file for maps: the other split's file beside it."""
        other = self.file.with_name(self.file.name.replace("train", "val"))
        if kind == "objects" or self.path.is_dir() or other == self.file or not other.is_file():
            return None
        return self, type(self)(path=other, file=other), f"the files {self.file.name} and {other.name}"

    def document(self) -> Any:
        return read_json(self.file)

    def images_alone(self) -> ImageSet | None:
        for folder in candidate_folders(self.file):
            if folder.is_dir() and folder != self.file.parent:
                return Folder(path=folder).images()
        return None
