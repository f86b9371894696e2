"""Backgrounds cropped from photographs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from d3ssl import console
from d3ssl.data.images import IMAGE_SUFFIXES, read_canvas
from d3ssl.data.scenes.backgrounds import Background
from d3ssl.data.scenes.config import ScenesConfig
from d3ssl.data.scenes.walk import find_pictures
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

PHOTO_SUFFIXES = frozenset(IMAGE_SUFFIXES) - {".npy"}
STORED = 2.5
"""Photographs are kept as squares of this many scene sides (stretched; crops undo the stretch)."""
CROP = (0.45, 1.0)
"""Side of the crop, share of the photograph's shorter side (uniform)."""


def deal_to_themes(
    paths: tuple[PurePosixPath, ...], themes: int, rng: np.random.Generator
) -> tuple[tuple[tuple[PurePosixPath, ...], ...], ...]:
    """Deal the top-level subfolders to the themes at random, evenly; the files, where there are fewer subfolders.

    Returns:
        for each theme its groups of files: the files of a group show related things (or the same at several sizes),
        so groups are drawn with equal probability, and then a file of the group.

    Raises:
        InputError: fewer files than themes.
    """
    if len(paths) < themes:
        problem = f"{len(paths)} usable photographs for {themes} themes"
        raise InputError(problem, remedy="give at least one photograph a theme, or lower themes.")
    folders: dict[str, list[PurePosixPath]] = {}
    for path in paths:
        folders.setdefault(path.parts[0], []).append(path)  # a file in the top folder is a group by itself
    groups = [tuple(folders[name]) for name in sorted(folders)]
    if len(groups) < themes:
        groups = [(path,) for path in paths]
    order = rng.permutation(len(groups))
    return tuple(tuple(groups[number] for number in sorted(order[theme::themes])) for theme in range(themes))


class Photo(NamedTuple):
    """A photograph to crop backgrounds from."""

    canvas: UInt8[np.ndarray, "s s 3"]
    """Stretched to a square."""
    size: tuple[int, int]
    """Height and width of the photograph, px."""
    source: int = -1
    """As in ``Background``."""
    shows: frozenset[int] = frozenset()
    """Labels of the objects that it is known to show."""


class DealtPhotos:
    """Random square crops of photographs; each photograph belongs to one theme.

    Args:
        size: side of the crops, px.
        themes: for each theme its groups of photographs, drawn from with equal probability.
        least: crops are at least so many px of the photograph wide, so that they are not enlarged.
    """

    def __init__(self, size: int, themes: tuple[tuple[tuple[Photo, ...], ...], ...], least: int = 0) -> None:
        self._size, self._themes, self._least = size, themes, least

    def render(self, theme: int, labels: Collection[int], rng: np.random.Generator) -> Background | None:
        groups = [[photo for photo in group if photo.shows.isdisjoint(labels)] for group in self._themes[theme]]
        groups = [group for group in groups if group]
        if not groups:
            return None
        group = groups[int(rng.integers(len(groups)))]
        photo = group[int(rng.integers(len(group)))]
        return Background(self._crop(photo, rng), photo.source)

    def _crop(self, photo: Photo, rng: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
        canvas, (height, width) = photo.canvas, photo.size
        short = min(height, width)
        lowest = min(max(CROP[0], self._least / short), CROP[1])
        side = rng.uniform(lowest, CROP[1]) * short  # px of the photograph; the canvas is stretched to a square
        share_x, share_y = side / width, side / height
        left, top = rng.uniform(0, 1 - share_x), rng.uniform(0, 1 - share_y)
        if rng.random() < 0.5:
            canvas = canvas[:, ::-1]
        stored = canvas.shape[0]
        box = tuple(float(edge) * stored for edge in (left, top, left + share_x, top + share_y))
        window = _around(box, stored)
        shifted = (box[0] - window[0], box[1] - window[1], box[2] - window[0], box[3] - window[1])
        part = Image.fromarray(np.ascontiguousarray(canvas[window[1] : window[3], window[0] : window[2]]))
        return np.asarray(part.resize((self._size, self._size), Image.Resampling.BILINEAR, box=shifted))


class PhotoBackgrounds(DealtPhotos):
    """Crops of the photographs in a folder."""

    def __init__(self, config: ScenesConfig) -> None:
        if config.backgrounds is None:
            raise InputError("no folder of photographs is given", remedy="set backgrounds.")
        root = Path(config.backgrounds)
        paths = find_pictures(root, PHOTO_SUFFIXES, config.exclude)
        if len(paths) > config.max_backgrounds:
            drawn = numpy_generator(config.seed, "photographs").permutation(len(paths))[: config.max_backgrounds]
            paths = tuple(paths[number] for number in sorted(drawn))
        photos = self._read(root, paths, round(STORED * config.size))
        try:
            dealt = deal_to_themes(tuple(photos), config.themes, numpy_generator(config.seed, "backgrounds"))
        except InputError as error:
            raise InputError(error.problem, path=root, remedy=error.remedy) from error
        themes = tuple(tuple(tuple(photos[path] for path in group) for group in theme) for theme in dealt)
        super().__init__(config.size, themes)

    @staticmethod
    def _read(root: Path, paths: tuple[PurePosixPath, ...], side: int) -> dict[PurePosixPath, Photo]:
        photos, bad = {}, []
        with console.progress("reading photographs", len(paths)) as ticker:
            for path in paths:
                try:
                    canvas, (height, width) = read_canvas(root / path, side)
                    photos[path] = Photo(canvas, (int(height), int(width)))
                except InputError as error:
                    bad.append(str(error.problem))
                ticker.advance()
        if bad:
            problem = f"{len(bad)} of {len(paths)} photographs in {root} cannot be read; the first: {bad[0]}"
            console.warn(problem, "remove or exclude them.")
        return photos


def _around(box: tuple[float, ...], side: int) -> tuple[int, int, int, int]:
    """The smallest window of whole pixels that holds the box."""
    low = (max(int(np.floor(box[0])), 0), max(int(np.floor(box[1])), 0))
    high = (min(int(np.ceil(box[2])), side), min(int(np.ceil(box[3])), side))
    return (*low, *high)
