"""One scene: which objects, where, what hides what, and the picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from d3ssl.data.scenes.backgrounds import Backgrounds
from d3ssl.data.scenes.config import ScenesConfig
from d3ssl.data.scenes.objects import Objects, Sprite
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

PLACE_TRIES = 30
"""Places tried for an object before it is left out of the scene."""
SCENE_TRIES = 100
"""Scenes tried before the options are called impossible."""


class Habits(NamedTuple):
    """What classes are used to: the theme each belongs to and the place each prefers."""

    theme: Int64[np.ndarray, "classes"]
    place: Float64[np.ndarray, "classes 2"]
    """(x, y), each 0..1: share of the range of places at which the object is wholly inside."""


def draw_habits(num_classes: int, config: ScenesConfig) -> Habits:
    """Deal the classes to the themes at random, evenly, and give each a place of its own, spread over the scene.

    The deal is random, so that appearance (a shape, a folder of related things) does not tell the theme. The places
    are a low-discrepancy sequence (R2: Roberts 2018, the plastic number) with a random start, within 0.1..0.9. Classes
    of one theme take consecutive members, which are far from each other, so that they seldom hide one another.
    """
    if config.themes > num_classes:
        problem = f"{config.themes} themes for {num_classes} classes"
        raise InputError(problem, remedy="lower themes to at most the number of classes.")
    rng = numpy_generator(config.seed, "habits")
    theme = np.empty(num_classes, np.int64)
    theme[rng.permutation(num_classes)] = np.arange(num_classes) % config.themes
    plastic = 1.324717957244746
    steps = np.arange(1, num_classes + 1)[:, None] * np.array([1 / plastic, 1 / plastic**2])
    place = np.empty((num_classes, 2))
    place[np.argsort(theme, kind="stable")] = 0.1 + 0.8 * ((rng.random(2) + steps) % 1)
    return Habits(theme, place)


class Split(NamedTuple):
    """A split whose images are scenes."""

    name: str
    images: int
    cooccurrence: float = 0.0
    place_preference: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that scenes are composed from."""

    config: ScenesConfig
    objects: Objects
    backgrounds: Backgrounds
    habits: Habits

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.objects.names

    def classes(self) -> list[dict[str, Any]]:
        """What ``scenes.json`` says of each class."""
        return [
            {"name": name, "theme": int(theme), "place": [round(float(value), 4) for value in place]}
            for name, theme, place in zip(self.names, *self.habits, strict=True)
        ]

    def draw(self, split: Split, index: int) -> Scene:
        """Scene ``index`` of a split: a pure function of (seed, split, index) and the options."""
        rng = numpy_generator(self.config.seed, "scene", split.name, index)
        return compose(self, split.cooccurrence, split.place_preference, rng)


class Placed(NamedTuple):
    """One object in a scene."""

    label: int
    place: tuple[float, float]
    """As in ``Habits``."""
    pixels: int
    """Pixels of alpha ≥ 128 before occlusion."""
    source: int = -1
    """As in ``Sprite``."""
    queried: bool = True
    """False: a neighbour that is there and not asked about."""


class Scene(NamedTuple):
    """A composed scene."""

    image: UInt8[np.ndarray, "S S 3"]
    owner: UInt8[np.ndarray, "S S"]
    """n + 1 where object n is visible, 0 on the background."""
    objects: tuple[Placed, ...]
    """From back to front."""
    about: Mapping[str, Any]
    """What the annotations say of the image beside its size; of a composed one its ``theme`` and its background's."""
    photograph: int = -1
    """``source`` of the background."""


def compose(world: World, cooccurrence: float, place_preference: float, rng: np.random.Generator) -> Scene:
    """Draw a scene. With ``cooccurrence`` and ``place_preference`` 0, classes, places and backgrounds are independent.

    Raises:
        InputError: the least number of objects does not fit, or no background is free of their classes.
    """
    config = world.config
    lacking = False
    for _ in range(SCENE_TRIES):
        # a theme is as probable as it has classes, so that every class is equally frequent, whatever the co-occurrence
        theme = int(world.habits.theme[rng.integers(len(world.habits.theme))])
        background = theme if rng.random() < cooccurrence else int(rng.integers(config.themes))
        owner = np.zeros((config.size, config.size), np.uint8)
        placed: list[Placed] = []
        layers: list[tuple[Sprite, int, int]] = []
        wanted = int(rng.integers(config.min_objects, config.max_objects + 1))
        while len(placed) < wanted and wanted >= config.min_objects:
            label = _draw_label(world.habits, theme, cooccurrence, rng)
            sprite = world.objects.render(label, config.size * rng.uniform(*config.object_side), rng)
            preferred = world.habits.place[label] if rng.random() < place_preference else None
            found = find_place(owner, placed, sprite, preferred, config, rng)
            if found is not None:
                place, left, top = found
                pixels = put(owner, sprite, left, top, len(placed) + 1)
                placed.append(Placed(label, place, pixels, sprite.source))
                layers.append((sprite, left, top))
            else:
                wanted -= 1  # this one is left out
        if wanted < config.min_objects:
            continue
        behind = world.backgrounds.render(background, {one.label for one in placed}, rng)
        if behind is not None:
            about = {"theme": theme, "background": background}
            return Scene(paint(behind.image, layers), owner, tuple(placed), about, behind.source)
        lacking = True
    if lacking:
        problem = f"in {SCENE_TRIES} draws no photograph was found that shows none of a scene's classes"
        raise InputError(problem, remedy="lower max_objects or themes, or give a folder of --backgrounds.")
    problem = f"{config.min_objects} objects with object_side {config.object_side} do not fit in a scene"
    raise InputError(problem, remedy="lower min_objects, object_side or min_visible.")


def _draw_label(habits: Habits, theme: int, cooccurrence: float, rng: np.random.Generator) -> int:
    if rng.random() < cooccurrence:
        mates = np.flatnonzero(habits.theme == theme)
        return int(mates[rng.integers(len(mates))])
    return int(rng.integers(len(habits.theme)))


def _draw_place(preferred: np.ndarray | None, spread: float, rng: np.random.Generator) -> tuple[float, float]:
    """Uniform in the unit square, or a Gaussian around the preferred place, mirrored at the borders."""
    if preferred is None:
        x, y = rng.random(2)
    else:
        x, y = 1 - np.abs(1 - np.abs(rng.normal(preferred, spread)) % 2)
    return float(x), float(y)


def find_place(
    owner: UInt8[np.ndarray, "S S"],
    placed: list[Placed],
    sprite: Sprite,
    preferred: np.ndarray | None,
    config: ScenesConfig,
    rng: np.random.Generator,
) -> tuple[tuple[float, float], int, int] | None:
    """A place at which every object already there stays visible enough: (place, left px, top px); None: not found."""
    height, width = sprite.alpha.shape
    room_x, room_y = config.size - width, config.size - height
    if min(room_x, room_y) < 0 or min(height, width) == 0:
        return None
    inside = sprite.alpha >= 128
    seen = np.bincount(owner.ravel(), minlength=len(placed) + 1)[1:]
    least = config.min_visible * np.array([one.pixels for one in placed], np.float64)
    for _ in range(PLACE_TRIES):
        x, y = _draw_place(preferred, config.place_spread, rng)
        left, top = round(x * room_x), round(y * room_y)
        hidden = owner[top : top + height, left : left + width][inside]
        left_over = seen - np.bincount(hidden, minlength=len(placed) + 1)[1:]
        if np.all((left_over >= least) & (left_over > 0)):
            return (x, y), left, top
    return None


def put(owner: UInt8[np.ndarray, "S S"], sprite: Sprite, left: int, top: int, number: int) -> int:
    """Mark the object's pixels as its own; return how many they are."""
    height, width = sprite.alpha.shape
    inside = sprite.alpha >= 128
    owner[top : top + height, left : left + width][inside] = number
    return int(inside.sum())


def paint(background: UInt8[np.ndarray, "S S 3"], layers: list[tuple[Sprite, int, int]]) -> UInt8[np.ndarray, "S S 3"]:
    """Lay the premultiplied sprites over the background, from back to front."""
    image = background.copy()
    for sprite, left, top in layers:
        height, width = sprite.alpha.shape
        window = image[top : top + height, left : left + width]
        through = (255 - sprite.alpha)[..., None].astype(np.uint16)
        window[...] = sprite.colour + ((window * through + 127) // 255).astype(np.uint8)
    return image
