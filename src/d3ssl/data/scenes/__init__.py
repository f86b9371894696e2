"""Scenes of several objects, made on the spot: the data set and benchmark that d3ssl carries with itself."""

from d3ssl.data.scenes.compose import Scene, World
from d3ssl.data.scenes.config import OutOfContextConfig, ScenesConfig
from d3ssl.data.scenes.make import make_scenes, open_world, splits
from d3ssl.data.scenes.objects import Sprite, straight_rgba

__all__ = [
    "OutOfContextConfig",
    "Scene",
    "ScenesConfig",
    "Sprite",
    "World",
    "make_scenes",
    "open_world",
    "splits",
    "straight_rgba",
]
