"""Making a set of scenes on disk: three splits in COCO format, with semantic maps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d3ssl import console
from d3ssl.data.scenes.annotated import Side, gather, open_sides, sides_digest
from d3ssl.data.scenes.backgrounds import ProceduralBackgrounds
from d3ssl.data.scenes.compose import Split, World, draw_habits
from d3ssl.data.scenes.config import OutOfContextConfig, ScenesConfig
from d3ssl.data.scenes.cutouts import CUTOUT_SUFFIXES, CutoutObjects
from d3ssl.data.scenes.objects import ProceduralObjects
from d3ssl.data.scenes.photos import PHOTO_SUFFIXES, PhotoBackgrounds
from d3ssl.data.scenes.walk import find_pictures
from d3ssl.data.scenes.write import VERSION, write_splits
from d3ssl.errors import D3sslError, InputError
from d3ssl.files import digest, read_json, write_json


def splits(config: ScenesConfig) -> tuple[Split, ...]:
    """The splits whose images are scenes: train and val with the habits, val_shuffled without."""
    habits = (config.cooccurrence, config.place_preference)
    train = Split("train", config.images, *habits)
    tested = (Split("val", config.num_val(), *habits), Split("val_shuffled", config.num_val(), 0.0, 0.0))
    return tested if _keeps_photographs(config) else (train, *tested)


def open_world(config: ScenesConfig) -> World:
    """Read cut-outs and photographs, if any, and draw the habits of the classes.

    Raises:
        InputError: an option is out of range, or a folder does not hold what it should.
    """
    config.check()
    objects = ProceduralObjects(config) if config.cutouts is None else CutoutObjects(config)
    habits = draw_habits(len(objects.names), config)
    backgrounds = ProceduralBackgrounds(config) if config.backgrounds is None else PhotoBackgrounds(config)
    return World(config=config, objects=objects, backgrounds=backgrounds, habits=habits)


def make_scenes(out: str | Path, config: ScenesConfig) -> None:
    """Write ``out/train``, ``out/val`` and ``out/val_shuffled`` (with ``OutOfContextConfig.conditions`` its conditions
    instead of the latter two), and ``out/scenes.json`` that tells how they were made.

    Each split holds ``images/``, ``annotations.json`` (COCO: categories, boxes of the visible part, visible masks as
    RLE; additionally ``theme`` and ``background`` an image, ``visible`` (share) and ``place`` an object; of conditions
    ``photograph`` and ``blend`` an image, and neighbours that are not asked about are crowds, ``iscrowd`` 1) and
    ``semantic/`` (PNG a scene: 0 on the background, class index + 1 on an object; 16 bit from 256 classes on).
    Everything is written beside ``out`` first and renamed at the end, so ``out`` is either whole or not there. If it
    is there, made with the same options from the same files, nothing is done.

    With an ``OutOfContextConfig``, objects are cut from annotated photographs, ``train`` may be photographs instead of
    scenes, and ``out/manifest.json`` says which objects, photographs and backgrounds every image was made of: none is
    shared between ``train`` and the two validation splits.

    Raises:
        InputError: impossible options, unusable data, cut-outs or photographs, or ``out`` holds something else.
        D3sslError: the disk is full or the folder cannot be written.
    """
    config.check()
    out = Path(out).resolve()
    _refuse_what_is_no_scenes(out)
    sides = open_sides(config) if isinstance(config, OutOfContextConfig) else None
    identity = {"version": VERSION, "config": config.identity(), "sources": _sources_digest(config, sides)}
    if _is_made(out, identity):
        console.say(f"{out}: the same scenes are there already.")
        return
    if isinstance(config, OutOfContextConfig) and sides is not None:
        material = gather(config, sides, splits(config))
        plan = material.plan
    else:
        material, world = None, open_world(config)
        plan = [(split, world) for split in splits(config)]
    with _written_beside(out) as partial:
        described = write_splits(partial, plan, config.workers)
        if material is not None:
            material.finish(partial, described)
        write_json(partial / "scenes.json", {**identity, "classes": plan[-1][1].classes()})
    kept = _keeps_photographs(config)
    trained = "photographs to train on: DATA's own" if kept else f"{config.images} scenes to train on"
    tested = [split.name for split, _ in plan if split.name != "train"]
    console.say(f"{out}: {trained}, {plan[-1][0].images} scenes in each of {', '.join(tested)}.")


def _keeps_photographs(config: ScenesConfig) -> bool:
    return isinstance(config, OutOfContextConfig) and config.keeps_photographs


def _sources_digest(config: ScenesConfig, sides: tuple[Side, Side] | None) -> str:
    """Names and sizes of the files that objects and backgrounds are taken from, and what annotations say."""
    parts = [] if sides is None else [sides_digest(sides)]
    for root, suffixes in ((config.cutouts, CUTOUT_SUFFIXES), (config.backgrounds, PHOTO_SUFFIXES)):
        for path in find_pictures(Path(root), suffixes, config.exclude) if root is not None else ():
            parts += [path.as_posix(), str((Path(root or "") / path).stat().st_size)]
    return digest(*parts)


def _is_free(out: Path) -> bool:
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def _refuse_what_is_no_scenes(out: Path) -> None:
    if not _is_free(out) and not (out / "scenes.json").is_file():
        problem = "is there already and does not hold scenes"
        raise InputError(problem, path=out, remedy="choose another folder.")


def _is_made(out: Path, identity: dict[str, Any]) -> bool:
    """True if ``out`` holds exactly these scenes, False if nothing; other scenes are an error."""
    if _is_free(out):
        return False
    made = read_json(out / "scenes.json")
    same = isinstance(made, dict) and all(made.get(key) == value for key, value in identity.items())
    if same:
        return True
    before = made.get("config", {}) if isinstance(made, dict) else {}
    names = [
        name for name, value in identity["config"].items() if before.get(name, value) != value or name not in before
    ]
    problem = f"holds scenes made differently ({', '.join(names) or 'other source files or another version'})"
    raise InputError(problem, path=out, remedy="choose another folder, remove this one, or use the same options.")


@contextmanager
def _written_beside(out: Path) -> Iterator[Path]:
    """Yield a new folder beside ``out`` that becomes ``out`` on success and is removed on an exception."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        if partial.exists():  # left by a killed run
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise D3sslError(
                "the disk is full", path=out, remedy="free some space or choose another folder."
            ) from error
        problem = f"cannot be written ({error.strerror or error})"
        raise D3sslError(problem, path=out, remedy="choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
