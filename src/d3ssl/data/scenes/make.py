"""Making a set of scenes on disk: three splits in COCO format, with semantic maps."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from faster_coco_eval.core import mask as rle
from jaxtyping import Shaped, UInt8
from PIL import Image

from d3ssl import console
from d3ssl.data.scenes.backgrounds import ProceduralBackgrounds
from d3ssl.data.scenes.compose import Scene, World, compose, draw_habits
from d3ssl.data.scenes.config import ScenesConfig
from d3ssl.data.scenes.cutouts import CUTOUT_SUFFIXES, CutoutObjects
from d3ssl.data.scenes.objects import ProceduralObjects
from d3ssl.data.scenes.photos import PHOTO_SUFFIXES, PhotoBackgrounds
from d3ssl.data.scenes.walk import find_pictures
from d3ssl.errors import D3sslError, InputError
from d3ssl.files import digest, read_json, write_json, write_text
from d3ssl.seeds import numpy_generator

VERSION = 1
"""Raised whenever the same options no longer give the same scenes."""
CHUNK = 50
"""Scenes a process makes at a time."""


class Split(NamedTuple):
    """One of the three splits."""

    name: str
    images: int
    cooccurrence: float
    place_preference: float


def splits(config: ScenesConfig) -> tuple[Split, Split, Split]:
    """train and val with the habits, val_shuffled without."""
    habits = (config.cooccurrence, config.place_preference)
    return (
        Split("train", config.images, *habits),
        Split("val", config.num_val(), *habits),
        Split("val_shuffled", config.num_val(), 0.0, 0.0),
    )


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


def draw_scene(world: World, split: Split, index: int) -> Scene:
    """Scene ``index`` of a split: a pure function of (seed, split, index) and the options."""
    rng = numpy_generator(world.config.seed, "scene", split.name, index)
    return compose(world, split.cooccurrence, split.place_preference, rng)


def make_scenes(out: str | Path, config: ScenesConfig) -> None:
    """Write ``out/train``, ``out/val`` and ``out/val_shuffled``, and ``out/scenes.json`` that tells how they were made.

    Each split holds ``images/``, ``annotations.json`` (COCO: categories, boxes of the visible part, visible masks as
    RLE; additionally ``theme`` and ``background`` an image, ``visible`` (share) and ``place`` an object) and
    ``semantic/`` (PNG a scene: 0 on the background, class index + 1 on an object; 16 bit from 256 classes on).
    Everything is written beside ``out`` first and renamed at the end, so ``out`` is either whole or not there. If it
    is there, made with the same options from the same files, nothing is done.

    Raises:
        InputError: impossible options, unusable cut-outs or photographs, or ``out`` holds something else.
        D3sslError: the disk is full or the folder cannot be written.
    """
    config.check()
    out = Path(out).resolve()
    identity = {"version": VERSION, "config": config.identity(), "sources": _sources_digest(config)}
    if _is_made(out, identity):
        console.say(f"{out}: the same scenes are there already.")
        return
    world = open_world(config)
    with _written_beside(out) as partial:
        for split in splits(config):
            for folder in ("images", "semantic"):
                (partial / split.name / folder).mkdir(parents=True)
        _write_splits(partial, world)
        write_json(partial / "scenes.json", {**identity, "classes": _describe_classes(world)})
    console.say(f"{out}: {config.images} scenes to train on, {config.num_val()} in each of val and val_shuffled.")


def _sources_digest(config: ScenesConfig) -> str:
    """Names and sizes of the files that objects and backgrounds are taken from."""
    parts = []
    for root, suffixes in ((config.cutouts, CUTOUT_SUFFIXES), (config.backgrounds, PHOTO_SUFFIXES)):
        for path in find_pictures(Path(root), suffixes, config.exclude) if root is not None else ():
            parts += [path.as_posix(), str((Path(root or "") / path).stat().st_size)]
    return digest(*parts)


def _is_made(out: Path, identity: dict[str, Any]) -> bool:
    """True if ``out`` holds exactly these scenes, False if nothing; anything else is an error."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / "scenes.json").is_file():
        problem = "is there already and does not hold scenes"
        raise InputError(problem, path=out, remedy="choose another folder.")
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


def _describe_classes(world: World) -> list[dict[str, Any]]:
    return [
        {"name": name, "theme": int(theme), "place": [round(float(value), 4) for value in place]}
        for name, theme, place in zip(world.objects.names, *world.habits, strict=True)
    ]


# -------------------------------------------------------------------------------------------- files, by many processes


def _write_splits(folder: Path, world: World) -> None:
    """Make all scenes and write each split's annotations in the order of the scenes."""
    chunks = [
        (split, start, min(start + CHUNK, split.images))
        for split in splits(world.config)
        for start in range(0, split.images, CHUNK)
    ]
    total = sum(split.images for split in splits(world.config))
    described: dict[str, list[dict[str, Any]]] = {split.name: [] for split in splits(world.config)}
    with console.progress("making scenes", total) as ticker:
        for (split, start, stop), part in zip(chunks, _run(folder, world, chunks, total), strict=True):
            described[split.name] += part
            ticker.advance(stop - start)
    for name, scenes in described.items():
        write_text(folder / name / "annotations.json", json.dumps(_coco(scenes, world.objects.names)) + "\n")


def _run(
    folder: Path, world: World, chunks: list[tuple[Split, int, int]], total: int
) -> Iterator[list[dict[str, Any]]]:
    """The chunks' descriptions, in order, made by as many processes as asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = world.config.workers or max(1, min(cores, total // 600))
    if workers == 1:
        yield from (_make_chunk(folder, world, *chunk) for chunk in chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # fork is unsafe beside torch's threads
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(folder, world)) as pool:
        try:
            yield from pool.map(_make_chunk_in_worker, chunks)
        except BrokenProcessPool as error:
            remedy = "it may have run out of memory: set workers to 1; call make_scenes under `if __name__ == ...`."
            raise D3sslError("a process that makes scenes died", path=folder, remedy=remedy) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Path, World] | None = None


def _start_worker(folder: Path, world: World) -> None:
    global _worker
    _worker = (folder, world)


def _make_chunk_in_worker(chunk: tuple[Split, int, int]) -> list[dict[str, Any]]:
    assert _worker is not None
    return _make_chunk(*_worker, *chunk)


def _make_chunk(folder: Path, world: World, split: Split, start: int, stop: int) -> list[dict[str, Any]]:
    """Write the scenes start … stop − 1 of a split; return what the annotations say about each."""
    described = []
    for index in range(start, stop):
        scene = draw_scene(world, split, index)
        name = f"{index:06d}." + ("jpg" if world.config.image_format == "jpeg" else "png")
        _write_image(folder / split.name / "images" / name, scene.image, world.config.quality)
        _write_semantic(folder / split.name / "semantic" / f"{index:06d}.png", scene, len(world.objects.names))
        described.append(_describe(scene, name))
    return described


def _write_image(path: Path, image: UInt8[np.ndarray, "S S 3"], quality: int) -> None:
    if path.suffix == ".jpg":
        image = np.ascontiguousarray(image)
        path.write_bytes(simplejpeg.encode_jpeg(image, quality, colorspace="RGB", colorsubsampling="444"))
    else:
        Image.fromarray(image).save(path, compress_level=1)


def _write_semantic(path: Path, scene: Scene, num_classes: int) -> None:
    dtype = np.uint8 if num_classes <= 255 else np.uint16
    values: Shaped[np.ndarray, "n"] = np.array([0, *(one.label + 1 for one in scene.objects)], dtype)
    Image.fromarray(values[scene.owner]).save(path, compress_level=1)


def _describe(scene: Scene, file_name: str) -> dict[str, Any]:
    """A scene's entry and its objects' entries, without ids."""
    size = scene.owner.shape[0]
    masks = scene.owner[..., None] == np.arange(1, len(scene.objects) + 1, dtype=np.uint8)
    objects = []
    for number, (one, code) in enumerate(
        zip(scene.objects, rle.encode(np.asfortranarray(masks, dtype=np.uint8)), strict=True)
    ):
        rows, columns = np.flatnonzero(masks[..., number].any(1)), np.flatnonzero(masks[..., number].any(0))
        left, top = int(columns[0]), int(rows[0])
        area = int(masks[..., number].sum())
        counts = code["counts"]
        objects.append(
            {
                "category_id": one.label + 1,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": area,
                "iscrowd": 0,
                "segmentation": {
                    "size": [size, size],
                    "counts": counts.decode("ascii") if isinstance(counts, bytes) else str(counts),
                },
                "visible": round(area / one.pixels, 4),
                "place": [round(value, 4) for value in one.place],
            }
        )
    image = {
        "file_name": file_name,
        "height": size,
        "width": size,
        "theme": scene.theme,
        "background": scene.background,
    }
    return {"image": image, "objects": objects}


def _coco(scenes: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Number images, objects and categories from 1 and put them into COCO's three lists."""
    images, annotations = [], []
    for image_id, scene in enumerate(scenes, start=1):
        images.append({"id": image_id, **scene["image"]})
        for one in scene["objects"]:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **one})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    info = {"description": f"scenes made by d3ssl, version {VERSION}"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}
