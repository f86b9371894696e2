"""Making scenes with many processes, and their files: images, semantic maps and annotations."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import simplejpeg
from faster_coco_eval.core import mask as rle
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from d3ssl import console
from d3ssl.data.scenes.compose import Scene, Split
from d3ssl.data.scenes.config import ScenesConfig
from d3ssl.errors import D3sslError
from d3ssl.files import write_text

VERSION = 1
"""Raised whenever the same options no longer give the same scenes."""
CHUNK = 50
"""Scenes a process makes at a time."""


@runtime_checkable
class Maker(Protocol):
    """What draws scenes. It is sent to the processes that make them."""

    @property
    def config(self) -> ScenesConfig: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    def classes(self) -> list[dict[str, Any]]:
        """What ``scenes.json`` says of each class."""
        ...

    def draw(self, split: Split, index: int) -> Scene:
        """Scene ``index`` of a split: always the same."""
        ...


Described = dict[str, Any]
"""What is said about a scene: its entry ``image`` and its ``objects``' entries in the annotations, without ids; and
``photograph`` and ``instances``, the sources that it was made of."""
Plan = Sequence[tuple[Split, Maker]]
"""The splits to make, each with what draws it."""


def write_splits(folder: Path, plan: Plan, workers: int) -> dict[str, list[Described]]:
    """Make all scenes of the splits, each by its maker, and write them; return what they are, by split, in order."""
    for split, _ in plan:
        for kind in ("images", "semantic"):
            (folder / split.name / kind).mkdir(parents=True)
    chunks = [
        (number, start, min(start + CHUNK, split.images))
        for number, (split, _) in enumerate(plan)
        for start in range(0, split.images, CHUNK)
    ]
    total = sum(split.images for split, _ in plan)
    described: dict[str, list[Described]] = {split.name: [] for split, _ in plan}
    with console.progress("making scenes", total) as ticker:
        for (number, start, stop), part in zip(chunks, _run(folder, plan, chunks, workers), strict=True):
            described[plan[number][0].name] += part
            ticker.advance(stop - start)
    for split, maker in plan:
        document = coco_document(described[split.name], maker.names)
        write_text(folder / split.name / "annotations.json", json.dumps(document) + "\n")
    return described


def _run(folder: Path, plan: Plan, chunks: list[tuple[int, int, int]], workers: int) -> Iterator[list[Described]]:
    """The chunks' descriptions, in order, made by as many processes as asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = workers or max(1, min(cores, sum(split.images for split, _ in plan) // 600))
    if workers == 1:
        yield from (_make_chunk(folder, plan, *chunk) for chunk in chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # fork is unsafe beside torch's threads
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(folder, plan)) as pool:
        try:
            yield from pool.map(_make_chunk_in_worker, chunks)
        except BrokenProcessPool as error:
            remedy = "it may have run out of memory: set workers to 1; call make_scenes under `if __name__ == ...`."
            raise D3sslError("a process that makes scenes died", path=folder, remedy=remedy) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Path, Plan] | None = None


def _start_worker(folder: Path, plan: Plan) -> None:
    global _worker
    _worker = (folder, plan)


def _make_chunk_in_worker(chunk: tuple[int, int, int]) -> list[Described]:
    assert _worker is not None
    return _make_chunk(*_worker, *chunk)


def _make_chunk(folder: Path, plan: Plan, number: int, start: int, stop: int) -> list[Described]:
    """Write the scenes start … stop − 1 of one of the splits."""
    split, maker = plan[number]
    described = []
    for index in range(start, stop):
        scene = maker.draw(split, index)
        name = f"{index:06d}." + ("jpg" if maker.config.image_format == "jpeg" else "png")
        _write_image(folder / split.name / "images" / name, scene.image, maker.config.quality)
        _write_semantic(folder / split.name / "semantic" / f"{index:06d}.png", scene, len(maker.names))
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


def _describe(scene: Scene, file_name: str) -> Described:
    size = scene.owner.shape[0]
    masks = scene.owner[..., None] == np.arange(1, len(scene.objects) + 1, dtype=np.uint8)
    objects = []
    for one, drawn in zip(scene.objects, mask_entries(masks), strict=True):
        visible, place = round(drawn["area"] / one.pixels, 4), [round(value, 4) for value in one.place]
        if not one.queried:  # as a crowd is in COCO: there, but neither asked about nor counted as a mistake
            drawn["iscrowd"] = 1
        objects.append({"category_id": one.label + 1, **drawn, "visible": visible, "place": place})
    image = {"file_name": file_name, "height": size, "width": size, **scene.about}
    instances = [one.source for one in scene.objects]
    return {"image": image, "objects": objects, "photograph": scene.photograph, "instances": instances}


def mask_entries(masks: Bool[np.ndarray, "H W n"]) -> list[dict[str, Any]]:
    """What COCO says of some masks, none of them empty; ``segmentation`` as packed run lengths."""
    entries = []
    for number, code in enumerate(rle.encode(np.asfortranarray(masks, dtype=np.uint8))):
        mask, counts = masks[..., number], code["counts"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = int(columns[0]), int(rows[0])
        packed = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
        entries.append(
            {
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(mask.shape), "counts": packed},
            }
        )
    return entries


def coco_document(scenes: list[Described], names: Sequence[str]) -> dict[str, Any]:
    """Number images, categories and objects without an id from 1 and put them into COCO's three lists."""
    images, annotations = [], []
    for image_id, scene in enumerate(scenes, start=1):
        images.append({"id": image_id, **scene["image"]})
        for one in scene["objects"]:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **one})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    info = {"description": f"scenes made by d3ssl, version {VERSION}"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}
