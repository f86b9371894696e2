"""Objects cut out of photographs: images whose transparency is the outline of one object."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from d3ssl import console
from d3ssl.data.pil_formats import open_picture
from d3ssl.data.scenes.config import ScenesConfig
from d3ssl.data.scenes.objects import Sprite, trim
from d3ssl.data.scenes.walk import find_pictures
from d3ssl.errors import InputError
from d3ssl.files import open_file
from d3ssl.seeds import numpy_generator

CUTOUT_SUFFIXES = frozenset({".png", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 178_956_970
"""Larger files are left out unread (PIL's own limit against decompression bombs)."""
MIN_SIDE = 16
"""Least width and height of a useful cut-out, px, after trimming."""
MIN_OPAQUE = 0.02
"""Least opaque share of a useful cut-out's trimmed box: less is a line or dust."""
MAX_LONG_SIDE = 0.75
"""Greatest longer side of an object, share of the scene: keeps very long objects inside after rotation."""


class NotUsable(Exception):
    """Why a file cannot serve as a cut-out, in a few words."""


def read_cutout(path: Path, most: float) -> Sprite:
    """Read an image with transparency, trim it, and shrink it until √(width·height) ≤ ``most`` px; never enlarge it.

    Raises:
        NotUsable: unreadable, too large, or no transparency that outlines an object.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here; PIL warns about it and about odd metadata
            with open_file(path) as file, open_picture(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise NotUsable("more pixels than allowed")
                if not image.has_transparency_data:
                    raise NotUsable("no transparency")
                pixels = np.asarray(image.convert("RGBA").convert("RGBa"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise NotUsable("unreadable") from error
    opaque = pixels[..., 3] >= 128
    if not opaque.any():
        raise NotUsable("wholly transparent")
    if opaque.all():
        raise NotUsable("wholly opaque")
    sprite = trim(Sprite(pixels[..., :3], pixels[..., 3]))
    height, width = sprite.alpha.shape
    if min(height, width) < MIN_SIDE:
        raise NotUsable("too small")
    if (sprite.alpha >= 128).mean() < MIN_OPAQUE:
        raise NotUsable("nearly empty")
    return shrunk(sprite, most)


def shrunk(sprite: Sprite, most: float) -> Sprite:
    """Shrink until √(width·height) ≤ ``most`` px; never enlarge."""
    height, width = sprite.alpha.shape
    factor = min(1.0, most / float(np.sqrt(width * height)))
    return resized(sprite, (max(round(width * factor), 1), max(round(height * factor), 1)))


def largest_side(config: ScenesConfig) -> float:
    """√(width·height) at which pictures of objects are kept, px: a quarter in reserve, as they are rotated at it."""
    return 1.25 * config.object_side[1] * config.size


def _picture(sprite: Sprite) -> Image.Image:
    pixels = np.concatenate([sprite.colour, sprite.alpha[..., None]], axis=2)
    return Image.frombytes("RGBa", (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


def _sprite(picture: Image.Image) -> Sprite:
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, 4)
    return Sprite(np.minimum(pixels[..., :3], pixels[..., 3:]), pixels[..., 3])  # filters may overshoot alpha


def resized(sprite: Sprite, size: tuple[int, int]) -> Sprite:
    """Resize to (width, height) px with antialiasing."""
    if size == (sprite.alpha.shape[1], sprite.alpha.shape[0]):
        return sprite
    return _sprite(_picture(sprite).resize(size, Image.Resampling.BICUBIC))


def name_classes(
    paths: tuple[PurePosixPath, ...], class_from: Literal["auto", "folder", "file"]
) -> tuple[str | None, ...]:
    """The class of each file by the rule of ``ScenesConfig.class_from``; None for a file that has none."""
    if class_from == "auto":
        class_from = "folder" if any(len(path.parts) > 1 for path in paths) else "file"
    if class_from == "file":
        stems = [path.with_suffix("").as_posix() for path in paths]
        return tuple(s if stems.count(s) == 1 else p.as_posix() for s, p in zip(stems, paths, strict=True))
    return tuple(path.parent.as_posix() if len(path.parts) > 1 else None for path in paths)


def draw_classes(names: list[str], count: int, seed: int) -> list[str]:
    """Some of the classes at random, in their order."""
    chosen = numpy_generator(seed, "classes").permutation(len(names))[:count]
    return [names[number] for number in sorted(chosen.tolist())]


class SpriteObjects:
    """Objects that are kept as pictures by class, at about the size at which they are used."""

    def __init__(self, config: ScenesConfig, names: Sequence[str], sprites: Sequence[Sequence[Sprite]]) -> None:
        self._size, self._flip, self._brightness = config.size, config.flip, config.brightness
        self._rotation = config.rotation
        self._names = tuple(names)
        self._sprites = tuple(tuple(own) for own in sprites)

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def render(self, label: int, side: float, rng: np.random.Generator) -> Sprite:
        """Draw one of the class's pictures, rotated, mirrored, resized and brightened at random."""
        sprites = self._sprites[label]
        sprite = sprites[int(rng.integers(len(sprites)))]
        source = sprite.source
        height, width = sprite.alpha.shape
        factor = side / float(np.sqrt(width * height))
        factor = min(factor, MAX_LONG_SIDE * self._size / max(width, height))
        picture = _picture(sprite)
        if rng.random() < self._flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        angle = rng.uniform(-self._rotation, self._rotation)
        if angle != 0:
            picture = picture.rotate(angle, Image.Resampling.BILINEAR, expand=True)  # three times faster than bicubic
        size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
        sprite = _sprite(picture.resize(size, Image.Resampling.BICUBIC))
        sprite = trim(brightened(sprite, rng.uniform(1 - self._brightness, 1 + self._brightness)))
        return sprite._replace(source=source)


class CutoutObjects(SpriteObjects):
    """Cut-outs of a folder by class."""

    def __init__(self, config: ScenesConfig) -> None:
        if config.cutouts is None:
            raise InputError("no folder of cut-outs is given", remedy="set cutouts.")
        root = Path(config.cutouts)
        paths = find_pictures(root, CUTOUT_SUFFIXES, config.exclude)
        if not paths:
            problem = f"holds no {', '.join(sorted(CUTOUT_SUFFIXES))} file that is not excluded"
            raise InputError(problem, path=root, remedy="give a folder of images with transparency as cutouts.")
        by_class = self._read(root, paths, config)
        if len(by_class) < 2:
            problem = f"holds {len(by_class)} classes of usable cut-outs; scenes need at least 2"
            raise InputError(problem, path=root, remedy="add images with transparency, or set class_from to file.")
        names = sorted(by_class)
        if config.num_classes is not None:
            if config.num_classes > len(names):
                problem = f"num_classes = {config.num_classes}, but only {len(names)} classes have usable cut-outs"
                raise InputError(problem, path=root, remedy="lower num_classes, or set class_from to file.")
            names = draw_classes(names, config.num_classes, config.seed)
        super().__init__(config, names, [by_class[name] for name in names])

    @staticmethod
    def _read(root: Path, paths: tuple[PurePosixPath, ...], config: ScenesConfig) -> dict[str, list[Sprite]]:
        by_class: dict[str, list[Sprite]] = {}
        why_not: dict[str, list[PurePosixPath]] = {}
        most = largest_side(config)
        classes = name_classes(paths, config.class_from)
        with console.progress("reading cut-outs", len(paths)) as ticker:
            for path, name in zip(paths, classes, strict=True):
                try:
                    if name is None:
                        raise NotUsable("beside the class folders")
                    by_class.setdefault(name, []).append(read_cutout(root / path, most))
                except NotUsable as reason:
                    why_not.setdefault(str(reason), []).append(path)
                ticker.advance()
        if why_not:
            counts = ", ".join(f"{len(files)} {reason} (as {files[0]})" for reason, files in sorted(why_not.items()))
            total = sum(map(len, why_not.values()))
            problem = f"{total} of {len(paths)} files in {root} were left out as cut-outs: {counts}"
            console.warn(problem, "nothing, if you expected this; exclude leaves files out without a warning.")
        return {name: sprites for name, sprites in by_class.items() if sprites}


def brightened(sprite: Sprite, factor: float) -> Sprite:
    """Multiply the colours, up to white."""
    limit: UInt8[np.ndarray, "h w 1"] = sprite.alpha[..., None]  # premultiplied white
    colour = np.minimum(sprite.colour * np.float32(factor) + np.float32(0.5), limit)
    return Sprite(colour.astype(np.uint8), sprite.alpha)
