"""What objects are pasted on: photographs of a folder, or the data's own that do not show the pasted classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from d3ssl import console
from d3ssl.data.images import image_size, read_canvas
from d3ssl.data.place import Place
from d3ssl.data.scenes.annotated.sides import Side, file_digest
from d3ssl.data.scenes.config import OutOfContextConfig
from d3ssl.data.scenes.photos import PHOTO_SUFFIXES, STORED, DealtPhotos, Photo, deal_to_themes
from d3ssl.data.scenes.walk import find_pictures
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator


class Scenery(NamedTuple):
    """A photograph that backgrounds may be cropped from."""

    name: str
    """In the manifest."""
    place: Place
    path: PurePosixPath
    """Photographs with the same first part show related things."""
    shows: frozenset[int] = frozenset()
    """Labels, among the classes that are used, of the objects that it is known to show."""


def own_scenery(side: Side, classes: tuple[str, ...], config: OutOfContextConfig) -> list[Scenery]:
    """The side's own photographs that are no smaller than a scene, at most ``max_backgrounds``.

    Raises:
        InputError: none is large enough, or every one shows the same class.
    """
    own = side.annotations
    large = [index for index, size in enumerate(own.sizes.tolist()) if min(size) >= config.size]
    if len(large) < config.themes:
        raise too_small(len(large), len(own), config, Path(own.path), f"photographs of {side.name}")
    found, shown = [], side.shows(classes)
    for number in _draw(len(large), config, side.name):
        index = large[number]
        shows = frozenset(np.flatnonzero(shown[index]).tolist())
        alone = PurePosixPath(str(index))
        found.append(Scenery(side.photographs[index], side.images.paths[index], alone, shows))
    for label, name in enumerate(classes):
        if all(label in one.shows for one in found):
            raise no_background(side, name)
    return found


def folder_scenery(config: OutOfContextConfig, parts: Sequence[str]) -> dict[str, list[Scenery]]:
    """The photographs of the folder ``backgrounds``, dealt to the sides at random: whole subfolders, as these often
    hold one motif at several sizes. Files that are smaller than a scene, or the same as another, are left out.

    Raises:
        InputError: no folder, or too few photographs that are large enough.
    """
    root = Path(config.backgrounds or "")
    paths = find_pictures(root, PHOTO_SUFFIXES, config.exclude)
    large = _large_files(root, paths, config.size)
    if len(large) < config.themes * len(parts):
        raise too_small(len(large), len(paths), config, root, "files")
    group_of = {path: path.parts[0] for path in large}
    if len(set(group_of.values())) < config.themes * len(parts):  # few subfolders: files are dealt
        group_of = {path: path.as_posix() for path in large}
    groups = sorted(set(group_of.values()))
    order = numpy_generator(config.seed, "backgrounds of sides").permutation(len(groups))
    dealt = {groups[number]: parts[turn % len(parts)] for turn, number in enumerate(order.tolist())}
    found = {}
    for part in parts:
        own = [path for path in large if dealt[group_of[path]] == part]
        own = [own[number] for number in _draw(len(own), config, part)]
        found[part] = [Scenery(f"BACKGROUNDS/{path.as_posix()}", root / path, path) for path in own]
    return found


def read_backgrounds(side: str, scenery: list[Scenery], config: OutOfContextConfig) -> DealtPhotos:
    """Read the photographs and deal them to the themes; a background's ``source`` is its place in ``scenery``.

    Those that cannot be read are left out with a warning.

    Raises:
        InputError: too few are left.
    """
    photos: dict[PurePosixPath, Photo] = {}
    bad: list[str] = []
    with console.progress(f"reading backgrounds of {side}", len(scenery)) as ticker:
        for number, one in enumerate(scenery):
            ticker.advance()
            try:
                canvas, (height, width) = read_canvas(one.place, round(STORED * config.size))
            except InputError as error:
                bad.append(str(error))
                continue
            photos[one.path] = Photo(canvas, (int(height), int(width)), number, one.shows)
    if bad:
        console.warn(f"{len(bad)} backgrounds of {side} are left out; the first: {bad[0]}", "fix or remove them.")
    dealt = deal_to_themes(tuple(photos), config.themes, numpy_generator(config.seed, "backgrounds", side))
    themes = tuple(tuple(tuple(photos[path] for path in group) for group in theme) for theme in dealt)
    return DealtPhotos(config.size, themes, least=config.size)


def _draw(count: int, config: OutOfContextConfig, side: str) -> list[int]:
    """The numbers of those of ``count`` photographs that are kept, ascending."""
    order = numpy_generator(config.seed, "photographs", side).permutation(count)[: config.max_backgrounds]
    return np.sort(order).tolist()


def _large_files(root: Path, paths: tuple[PurePosixPath, ...], size: int) -> list[PurePosixPath]:
    """Those that are no smaller than a scene; of files that are the same, the first."""
    large, bad, seen = [], [], set()
    with console.progress("looking at backgrounds", len(paths)) as ticker:
        for path in paths:
            ticker.advance()
            try:
                if min(image_size(root / path)) < size:
                    continue
            except InputError as error:
                bad.append(str(error.problem))
                continue
            content = file_digest(root / path)
            if content not in seen:
                large.append(path)
            seen.add(content)
    if bad:
        console.warn(f"{len(bad)} files in {root} are left out; the first {bad[0]}", "fix or remove them.")
    return large


def no_background(side: Side, name: str) -> InputError:
    """What to say where a class is everywhere."""
    problem = f"every photograph of {side.name} shows {name}, so none can be its background"
    remedy = "give a folder of other photographs: --backgrounds."
    return InputError(problem, path=side.annotations.path, remedy=remedy)


def too_small(found: int, of: int, config: OutOfContextConfig, path: Path, what: str) -> InputError:
    """What to say of too few photographs that are large enough."""
    problem = (
        f"only {found} of {of} {what} can serve as backgrounds: their shorter side must be at least the scenes' "
        f"{config.size} px"
    )
    if config.conditions:
        return InputError(problem, path=path, remedy="give larger photographs, or lower --size.")
    problem += f", and every one of {config.themes} themes needs one"
    return InputError(
        problem, path=path, remedy="give larger photographs (--backgrounds FOLDER), or lower --size or --themes."
    )
