"""Objects to compose scenes from; here the procedural ones: a class is a shape and a texture, colours are random.

Neither shape nor texture alone tells the class, and the mean colour tells nothing, so that a feature that scores well
has seen form and pattern. Shapes are signed distances in the object's own frame, (u, v) in −1..1, positive inside, so
that edges are antialiased from one evaluation a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from d3ssl.data.scenes.config import PROCEDURAL_CLASSES, ScenesConfig
from d3ssl.errors import InputError

Field = Float32[np.ndarray, "h w"]


class Sprite(NamedTuple):
    """One drawn object, trimmed to where it is visible."""

    colour: UInt8[np.ndarray, "h w 3"]
    """Premultiplied with alpha."""
    alpha: UInt8[np.ndarray, "h w"]
    """0 outside … 255 inside."""
    source: int = -1
    """Number of the instance that it shows, where objects are cut from annotated photographs; −1: of none."""


@runtime_checkable
class Objects(Protocol):
    """A source of objects."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    def render(self, label: int, side: float, rng: np.random.Generator) -> Sprite:
        """Draw an object of a class with √(width·height) = ``side`` px (before rotation), everything else at random."""
        ...


def trim(sprite: Sprite) -> Sprite:
    """Cut away the margins without a pixel of alpha ≥ 128 within one px (an antialiased border stays)."""
    inside = sprite.alpha >= 128
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if rows.size == 0:
        return Sprite(sprite.colour[:0, :0], sprite.alpha[:0, :0])
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    window = np.s_[top : rows[-1] + 2, left : columns[-1] + 2]
    return Sprite(np.ascontiguousarray(sprite.colour[window]), np.ascontiguousarray(sprite.alpha[window]))


def straight_rgba(sprite: Sprite) -> UInt8[np.ndarray, "h w 4"]:
    """The sprite with colours not premultiplied: what an RGBA image file holds."""
    alpha = sprite.alpha[..., None].astype(np.float32)
    colour = np.divide(
        sprite.colour * np.float32(255), alpha, out=np.zeros_like(sprite.colour, np.float32), where=alpha > 0
    )
    return np.concatenate([colour.round().clip(0, 255).astype(np.uint8), sprite.alpha[..., None]], axis=2)


# ---------------------------------------------------------------- shapes: (u, v) → signed distance, positive inside


def _disc(u: Field, v: Field) -> Field:
    return 1 - np.hypot(u, v)


def _square(u: Field, v: Field) -> Field:
    return 0.9 - np.maximum(np.abs(u), np.abs(v))


def _triangle(u: Field, v: Field) -> Field:
    return np.minimum(0.85 - v, (v + 1 - 1.9 * np.abs(u)) / np.float32(np.hypot(1, 1.9)))


def _plus(u: Field, v: Field) -> Field:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.minimum(1 - long, 0.38 - short)


def _ring(u: Field, v: Field) -> Field:
    radius = np.hypot(u, v)
    return np.minimum(1 - radius, radius - 0.5)


def _star(u: Field, v: Field) -> Field:
    turn = np.float32(2 * np.pi / 5)
    folded = np.abs((np.arctan2(u, -v) + turn / 2) % turn - turn / 2)  # angle to the nearest tip
    radius = np.hypot(u, v)
    x, y = radius * np.cos(folded), radius * np.sin(folded)
    inner_x, inner_y = 0.48 * np.cos(turn / 2), 0.48 * np.sin(turn / 2)  # the dent between two tips; the tip is (1, 0)
    return ((inner_y * (1 - x) + (inner_x - 1) * y) / np.hypot(inner_x - 1, inner_y)).astype(np.float32)


def _heart(u: Field, v: Field) -> Field:
    side = np.abs(u)
    lobe = 0.52 - np.hypot(side - 0.48, v + 0.4)
    # ψ = 0.689 rad: slope of the line through the tip (0, 1) that touches the lobe, at v = −0.07
    cone = np.minimum(-(side * np.cos(0.689) + (v - 1) * np.sin(0.689)), v + 0.07)
    bridge = np.minimum(np.minimum(0.48 - side, v + 0.4), 0.1 - v)  # fills the gap between lobes and cone
    return np.maximum(np.maximum(lobe, cone), bridge).astype(np.float32)


def _hourglass(u: Field, v: Field) -> Field:
    return np.minimum((0.1 + 0.85 * np.abs(v) - np.abs(u)) / np.float32(np.hypot(1, 0.85)), 0.95 - np.abs(v))


# ------------------------------------------------- textures: (u, v, distance, rng) → share of the second colour, 0..1


def _edge(wave: Field, sharpness: float = 4.0) -> Field:
    """Turn a wave around 0 into two colours with a soft border."""
    return np.clip(0.5 + sharpness * wave, 0, 1)


def _plain(u: Field, v: Field, distance: Field, rng: np.random.Generator) -> Field:
    return np.zeros_like(u)


def _stripes(u: Field, v: Field, distance: Field, rng: np.random.Generator) -> Field:
    slant, frequency, phase = 0.3 * rng.uniform(-1, 1), rng.uniform(7.5, 10), rng.uniform(0, 6.3)
    return _edge(np.sin((v + slant * u) * frequency + phase).astype(np.float32))


def _checks(u: Field, v: Field, distance: Field, rng: np.random.Generator) -> Field:
    frequency, phase = rng.uniform(5, 7), rng.uniform(0, 6.3, 2)
    return _edge((np.sin(u * frequency + phase[0]) * np.sin(v * frequency + phase[1])).astype(np.float32), 6.0)


def _dots(u: Field, v: Field, distance: Field, rng: np.random.Generator) -> Field:
    frequency, phase = rng.uniform(7, 9.5), rng.uniform(0, 6.3, 2)
    return _edge((np.cos(u * frequency + phase[0]) + np.cos(v * frequency + phase[1]) - 0.7).astype(np.float32), 2.0)


def _rings(u: Field, v: Field, distance: Field, rng: np.random.Generator) -> Field:
    return _edge(np.sin(np.hypot(u, v) * rng.uniform(9, 11.5) + rng.uniform(0, 6.3)).astype(np.float32))


def _rim(u: Field, v: Field, distance: Field, rng: np.random.Generator) -> Field:
    return np.clip((rng.uniform(0.14, 0.2) - distance) * 12, 0, 1).astype(np.float32)


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "plus": _plus,
    "ring": _ring,
    "star": _star,
    "heart": _heart,
    "hourglass": _hourglass,
}
TEXTURES: dict[str, Callable[[Field, Field, Field, np.random.Generator], Field]] = {
    "plain": _plain,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "rim": _rim,
}


def procedural_classes(num_classes: int) -> tuple[tuple[str, str], ...]:
    """The first ``num_classes`` of the 48 (shape, texture) pairs, in an order that uses all shapes and textures evenly.

    Raises:
        InputError: more than there are pairs.
    """
    shapes, textures = list(SHAPES), list(TEXTURES)
    if num_classes > len(shapes) * len(textures):
        problem = f"{num_classes} procedural classes asked for, {len(shapes) * len(textures)} exist"
        raise InputError(problem, remedy="lower num_classes, or give a folder of cut-outs.")
    rounds = [divmod(number, len(shapes)) for number in range(num_classes)]
    return tuple((shapes[shape], textures[(2 * turn + turn // 3 + shape) % len(textures)]) for turn, shape in rounds)


def two_colours(rng: np.random.Generator) -> tuple[Float32[np.ndarray, "3"], Float32[np.ndarray, "3"]]:
    """Two random colours, 0..255, whose brightness differs by at least 80; either may be the brighter one."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        pair = rng.uniform(10, 245, (2, 3))
        if abs(float((pair[0] - pair[1]) @ weights)) >= 80:
            return pair[0].astype(np.float32), pair[1].astype(np.float32)


class ProceduralObjects:
    """Objects drawn from formulas: class = shape × texture; colours, aspect, rotation, light and phase are random."""

    def __init__(self, config: ScenesConfig) -> None:
        self._classes = procedural_classes(config.num_classes or PROCEDURAL_CLASSES)
        self._rotation, self._flip, self._brightness = config.rotation, config.flip, config.brightness

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{shape}-{texture}" for shape, texture in self._classes)

    def render(self, label: int, side: float, rng: np.random.Generator) -> Sprite:
        shape, texture = self._classes[label]
        aspect = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
        half = np.array([side * np.sqrt(aspect) / 2, side / np.sqrt(aspect) / 2])
        u, v = self._frame(half, np.radians(rng.uniform(-self._rotation, self._rotation)))
        if rng.random() < self._flip:
            u = -u
        distance = SHAPES[shape](u, v)
        alpha = np.clip(0.5 + distance * np.float32(half.min()), 0, 1)
        first, second = two_colours(rng)
        share = TEXTURES[texture](u, v, distance, rng)[..., None]
        towards = rng.uniform(0, 2 * np.pi)  # where the light comes from: a smooth change of brightness
        light = 1 + 0.18 * (np.cos(towards) * u + np.sin(towards) * v)
        light = light * rng.uniform(1 - self._brightness, 1 + self._brightness)
        colour = np.clip((first + share * (second - first)) * light[..., None].astype(np.float32), 0, 255)
        premultiplied = (colour * alpha[..., None] + 0.5).astype(np.uint8)
        return trim(Sprite(premultiplied, (alpha * 255 + 0.5).astype(np.uint8)))

    @staticmethod
    def _frame(half: np.ndarray, angle: float) -> tuple[Field, Field]:
        """(u, v) of every pixel of the smallest grid that holds the box of half sides ``half`` px, rotated."""
        cos, sin = np.cos(angle), np.sin(angle)
        width = np.ceil(abs(half[0] * cos) + abs(half[1] * sin))
        height = np.ceil(abs(half[0] * sin) + abs(half[1] * cos))
        x = np.arange(-width, width, dtype=np.float32)[None, :] + 0.5
        y = np.arange(-height, height, dtype=np.float32)[:, None] + 0.5
        u, v = (cos * x + sin * y) / half[0], (cos * y - sin * x) / half[1]
        return u.astype(np.float32), v.astype(np.float32)
