"""Lists of images: a text file with one path a line."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from d3ssl.data.folders import is_below, missing_files
from d3ssl.data.formats.format import Format
from d3ssl.data.image_set import ImageSet, named_images
from d3ssl.errors import InputError
from d3ssl.files import read_text


@dataclass(frozen=True, kw_only=True)
class ImageList(Format):
    """The images that a text file names."""

    what = "a list of images (.txt)"

    @classmethod
    def detect(cls, path: Path) -> ImageList | None:
        return cls(path=path) if path.suffix.lower() == ".txt" and path.exists() else None

    def images(self) -> ImageSet:
        return named_images(self.path, self.path.parent, _read_list(self.path))


def _read_list(file: Path) -> tuple[str, ...]:
    """The paths of a list, as they stand there: relative to the list's folder, with forward slashes. Blank lines and
    lines that begin with ``#`` are passed over; spaces at the ends of a line do not count.

    Raises:
        InputError: with the number of the line: a path outside the folder, an image that is not there or that stands
            in the list already; or a list without images.
    """
    try:
        lines = read_text(file, "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read as a list of images ({error})"
        raise InputError(problem, path=file, remedy="a list is UTF-8 text with one image path a line.") from error
    line_of: dict[str, int] = {}
    names: list[str] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if not is_below(line) or not line.isprintable():
            problem = f"line {number}: {line!r} is no path below the list's folder"
            remedy = f"write paths relative to {file.absolute().parent}, with '/'; or move the list above the images."
            raise InputError(problem, path=file, remedy=remedy)
        key = unicodedata.normalize("NFC", PurePosixPath(line).as_posix())
        if key in line_of:
            problem = f"line {number}: {line} stands on line {line_of[key]} already"
            raise InputError(problem, path=file, remedy="remove one of the two lines.")
        line_of[key] = number
        names.append(line)
    if not names:
        raise InputError("names no images", path=file, remedy="write one image path a line.")
    missing = missing_files(file.parent, names)
    if missing:
        first = line_of[unicodedata.normalize("NFC", PurePosixPath(missing[0]).as_posix())]
        others = f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        problem = f"line {first}: there is no image {missing[0]}{others}"
        raise InputError(problem, path=file, remedy=f"paths are relative to {file.absolute().parent}; fix the list.")
    return tuple(names)
