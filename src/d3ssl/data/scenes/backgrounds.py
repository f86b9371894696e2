"""Backgrounds: drawn from formulas, a few kinds and a range of hues to each theme, or cropped from photographs."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from d3ssl.data.scenes.config import ScenesConfig

Field = Float32[np.ndarray, "S S"]


class Background(NamedTuple):
    """One drawn background."""

    image: UInt8[np.ndarray, "S S 3"]
    source: int = -1
    """Number of the photograph that it was cropped from, where that is kept count of; −1: of none."""


@runtime_checkable
class Backgrounds(Protocol):
    """A source of backgrounds."""

    def render(self, theme: int, labels: Collection[int], rng: np.random.Generator) -> Background | None:
        """Draw a background of a theme that shows no object of some classes, everything else at random; None: the
        theme has no such background."""
        ...


@lru_cache(maxsize=64)
def _interpolation(size: int, knots: int) -> Float32[np.ndarray, "S n"]:
    """Weights that interpolate ``knots`` values smoothly (3t² − 2t³ between neighbours) at ``size`` places."""
    place = np.linspace(0, knots - 1, size, dtype=np.float64)
    lower = np.minimum(place.astype(int), knots - 2)
    t = place - lower
    t = t * t * (3 - 2 * t)
    weights = np.zeros((size, knots), np.float32)
    weights[np.arange(size), lower] = 1 - t
    weights[np.arange(size), lower + 1] += t
    return weights


def _noise(size: int, rows: int, columns: int, rng: np.random.Generator) -> Field:
    """Smooth value noise in 0..1 with a grid of random values stretched over the scene."""
    grid = rng.random((rows, columns), dtype=np.float32)
    return _interpolation(size, rows) @ grid @ _interpolation(size, columns).T


def _fractal(size: int, rng: np.random.Generator, coarsest: int = 3, octaves: int = 4) -> Field:
    """Noise of several scales, each half as strong as the one before; about 0..1."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        knots = min(coarsest * 2**octave, size)
        total += _noise(size, knots, knots, rng) * np.float32(0.5**octave)
    return total / np.float32(2 - 0.5 ** (octaves - 1))


def _axes(size: int, rng: np.random.Generator, tilt: float) -> tuple[Field, Field]:
    """Coordinates in 0..1, turned by at most ``tilt`` radians."""
    angle = rng.uniform(-tilt, tilt)
    line = np.linspace(0, 1, size, dtype=np.float32)
    x, y = line[None, :], line[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


# --------------------------------------------------------------------------- kinds: (side in px, rng) → field in 0..1


def _sky(size: int, rng: np.random.Generator) -> Field:
    _, y = _axes(size, rng, 0.2)
    return 0.7 * y + 0.4 * _fractal(size, rng, 3, 3)


def _clouds(size: int, rng: np.random.Generator) -> Field:
    return np.clip(2.2 * (_fractal(size, rng, 4, 4) - 0.28), 0, 1)


def _planks(size: int, rng: np.random.Generator) -> Field:
    x, y = _axes(size, rng, 0.12)
    place = (y + 1) * rng.uniform(4, 7)
    board = place.astype(np.int64)
    shade = rng.random(32, dtype=np.float32)[board % 32]
    gap = np.clip((np.abs(place - board - 0.5) - 0.45) * 30, 0, 1).astype(np.float32)
    return np.clip(0.45 * shade + 0.55 * _noise(size, size // 3, 5, rng) + 0.1 * x, 0, 1) * (1 - 0.8 * gap)


def _tiles(size: int, rng: np.random.Generator) -> Field:
    return _blocks(size, rng, rng.uniform(4, 7), 1.0, 0.0)


def _bricks(size: int, rng: np.random.Generator) -> Field:
    return _blocks(size, rng, rng.uniform(3, 4.5), 2.2, 0.5)


def _blocks(size: int, rng: np.random.Generator, columns: float, aspect: float, offset: float) -> Field:
    x, y = _axes(size, rng, 0.1)
    y = (y + 1) * columns * aspect
    row = y.astype(np.int64)
    x = (x + 1) * columns + offset * (row % 2)
    column = x.astype(np.int64)
    shade = rng.random((32, 32), dtype=np.float32)[row % 32, column % 32]
    border = np.maximum(np.abs(x - column - 0.5), (np.abs(y - row - 0.5) - 0.5) / aspect + 0.5)
    joint = np.clip((border - 0.44) * 30, 0, 1).astype(np.float32)
    return (0.35 + 0.45 * shade + 0.2 * _fractal(size, rng, 8, 2)) * (1 - joint)


def _grass(size: int, rng: np.random.Generator) -> Field:
    return np.clip(0.65 * _noise(size, 9, size // 2, rng) + 0.5 * _fractal(size, rng, 4, 2) - 0.1, 0, 1)


def _waves(size: int, rng: np.random.Generator) -> Field:
    _, y = _axes(size, rng, 0.25)
    bend = _noise(size, 4, 4, rng) * rng.uniform(1.5, 3)
    return (0.5 + 0.3 * np.sin(y * rng.uniform(35, 60) + 2 * bend) + 0.15 * (bend - 1)).astype(np.float32)


def _marble(size: int, rng: np.random.Generator) -> Field:
    x, y = _axes(size, rng, np.pi)
    return np.abs(np.sin((x + y) * rng.uniform(3, 6) + 7 * _fractal(size, rng, 4, 4))).astype(np.float32)


def _pebbles(size: int, rng: np.random.Generator) -> Field:
    """Cells around random points, darker at their borders; drawn at half the resolution."""
    small = size // 2
    seeds = rng.random((rng.integers(25, 45), 2), dtype=np.float32)
    line = np.linspace(0, 1, small, dtype=np.float32)
    squared = (line[None, :, None] - seeds[:, 0]) ** 2 + (line[:, None, None] - seeds[:, 1]) ** 2
    nearest = np.sqrt(np.partition(squared, 1, axis=-1)[..., :2])
    shade = rng.random(len(seeds), dtype=np.float32)[squared.argmin(-1)]
    cells = np.clip((nearest[..., 1] - nearest[..., 0]) * 18, 0, 1) * (0.45 + 0.55 * shade)
    weights = _interpolation(size, small)
    return weights @ cells @ weights.T


def _bokeh(size: int, rng: np.random.Generator) -> Field:
    field = 0.5 * _noise(size, 3, 3, rng)
    line = np.linspace(0, 1, size, dtype=np.float32)
    for _ in range(int(rng.integers(8, 16))):
        (x, y), radius, strength = rng.random(2), rng.uniform(0.04, 0.13), rng.uniform(0.15, 0.5)
        distance = np.sqrt((line[None, :] - np.float32(x)) ** 2 + (line[:, None] - np.float32(y)) ** 2)
        field += np.float32(strength) * np.clip((np.float32(radius) - distance) * 30, 0, 1)
    return np.clip(field, 0, 1)


def _hills(size: int, rng: np.random.Generator) -> Field:
    line = np.linspace(0, 1, size, dtype=np.float32)
    field = np.broadcast_to(0.95 - 0.2 * line[:, None], (size, size)).copy()
    for layer in range(4):
        knots = 4 + 2 * layer
        ridge = 0.25 + 0.18 * layer + 0.25 * (_interpolation(size, knots) @ rng.random(knots, dtype=np.float32) - 0.5)
        below = np.clip((line[:, None] - ridge[None, :]) * size / 2, 0, 1)
        field += below * (np.float32(0.62 - 0.17 * layer) - field)
    return field + 0.12 * (_fractal(size, rng, 8, 2) - 0.5)


def _weave(size: int, rng: np.random.Generator) -> Field:
    x, y = _axes(size, rng, 0.6)
    frequency = rng.uniform(35, 60)
    return (0.5 + 0.3 * np.sin(x * frequency) * np.sin(y * frequency) + 0.3 * (_noise(size, 4, 4, rng) - 0.5)).astype(
        np.float32
    )


KINDS: tuple[Callable[[int, np.random.Generator], Field], ...] = (
    _sky,
    _clouds,
    _planks,
    _marble,
    _tiles,
    _weave,
    _grass,
    _hills,
    _waves,
    _bokeh,
    _pebbles,
    _bricks,
)


class ProceduralBackgrounds:
    """Two of the twelve kinds and a range of hues to each theme; everything else is random.

    Colours are muted, so that most objects stand out; hue and kind both tell the theme, as they do in photographs.
    """

    def __init__(self, config: ScenesConfig) -> None:
        self._size, self._themes = config.size, config.themes

    def render(self, theme: int, labels: Collection[int], rng: np.random.Generator) -> Background:
        kind = KINDS[(2 * theme + int(rng.integers(2))) % len(KINDS)]
        field = kind(self._size, rng)
        hue = (theme + rng.uniform(-0.3, 0.3)) / self._themes
        dark = self._colour(hue, rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.45))
        light = self._colour(hue + rng.uniform(-0.05, 0.05), rng.uniform(0.1, 0.45), rng.uniform(0.6, 0.92))
        if rng.random() < 0.5:
            dark, light = light, dark
        grain = rng.standard_normal((self._size, self._size), dtype=np.float32) * np.float32(rng.uniform(1, 4))
        picture = dark + field[..., None] * (light - dark)
        picture += grain[..., None]
        return Background(np.clip(picture, 0, 255, out=picture).astype(np.uint8))

    @staticmethod
    def _colour(hue: float, saturation: float, value: float) -> Float32[np.ndarray, "3"]:
        return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255
