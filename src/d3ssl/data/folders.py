"""Where the images that an annotations file or a list names are looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from d3ssl.errors import InputError, first_names


def is_below(name: str) -> bool:
    """Whether a file name stays below the folder it is relative to."""
    place = PurePosixPath(name)
    return not place.is_absolute() and ".." not in place.parts and "\\" not in name


def candidate_folders(file: Path) -> list[Path]:
    """The customary folders of the images that an annotations file names, whether they are there or not."""
    end = file.stem.rpartition("_")[2]
    above = file.absolute().parent.parent
    return [file.parent / "images", file.parent / end, above / "images", above / end, file.parent]


def images_folder(file: Path, names: Sequence[str]) -> Path:
    """The first of the customary folders that has all the images."""
    candidates = candidate_folders(file)
    lacking = {folder: missing_files(folder, names) for folder in candidates if folder.is_dir()}
    best = min(lacking, key=lambda folder: len(lacking[folder]))
    if not (missing := lacking[best]):
        return best
    problem = f"names {len(missing)} of {len(names)} images that are missing: {first_names(missing)}"
    if len(missing) == len(names):
        tried = ", ".join(str(folder) for folder in candidates)
        raise InputError(problem, path=file, remedy=f"put the images into one of these folders: {tried}.")
    raise InputError(problem, path=file, remedy=f"put them into {best}, or remove them from the file.")


def maps_folder(file: Path, names: Sequence[str]) -> Path:
    """The folder of a COCO panoptic file's PNGs, named like the file.

    Raises:
        InputError: one of the named maps is not in it.
    """
    folder = file.with_suffix("")
    missing = missing_files(folder, names)
    if missing:
        problem = f"{len(missing)} of {len(names)} maps are not in {folder}: {first_names(missing)}"
        raise InputError(problem, path=file, remedy="put the panoptic PNGs into the folder named like the file.")
    return folder


def missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """The names that are not below a folder. Lists each folder once: asking for every file is slow over networks."""
    listings: dict[PurePosixPath, set[str]] = {}
    missing = []
    for name in names:
        place = PurePosixPath(name)
        if place.parent not in listings:
            inside = folder / place.parent
            listings[place.parent] = set(os.listdir(inside)) if inside.is_dir() else set()
        if place.name not in listings[place.parent]:
            missing.append(name)
    return missing
