"""Building an OpenImage-MINI from the metadata of Open Images: two passes over the boxes, in bounded memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d3ssl import __version__
from d3ssl.console import say, show_table, warn
from d3ssl.data.image_set import ANNOTATIONS
from d3ssl.data.open_images.boxes import stream_boxes
from d3ssl.data.open_images.card import write_card
from d3ssl.data.open_images.classes import BoxableClasses, read_classes
from d3ssl.data.open_images.coco_json import SplitData, write_coco
from d3ssl.data.open_images.columns import find_file, image_name
from d3ssl.data.open_images.config import SPLITS, BuildConfig
from d3ssl.data.open_images.masks import find_mask_files, match_masks
from d3ssl.data.open_images.objects import ObjectTable, gather_objects, with_masks, write_objects
from d3ssl.data.open_images.select import Pool, keep_classes, order_pool, take_census
from d3ssl.data.open_images.sizes import read_sizes, write_sizes
from d3ssl.data.open_images.statistics import (
    SplitStatistics,
    describe,
    effective_number,
    write_class_table,
)
from d3ssl.data.open_images.tree import CLASSES, DEFINITION, IDS, OBJECTS, sha256, write_checksums
from d3ssl.errors import D3sslError, InputError
from d3ssl.files import make_folder, write_json, write_text

RULE = 1
"""Version of the rule: the same rule, options and metadata give the same lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    classes: Path
    boxes: dict[str, Path]
    masks: dict[str, Path]
    sizes: Path | None

    def all(self) -> list[Path]:
        return [self.classes, *self.boxes.values(), *self.masks.values(), *([self.sizes] if self.sizes else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    pool: Pool
    images: np.ndarray
    """Ids of the chosen images, uint64."""
    objects: ObjectTable
    notes: dict[str, Any]
    """For the definition."""


def build_benchmark(metadata: str | Path, out: str | Path, config: BuildConfig) -> dict[str, Any]:
    """Choose images and write the benchmark.

    ``out`` appears when it is finished and not before: it is made beside its place and renamed.

    Args:
        metadata: folder with ``class-descriptions-boxable.csv``, ``train-annotations-bbox.csv`` and, for the other
            splits and masks, ``validation-…``, ``test-annotations-bbox.csv``, ``…-annotations-object-segmentation.csv``
            (a release in front such as ``oidv6-`` and compression, ``.csv.gz``, are fine).
        out: folder to make; it must not exist, or be empty.

    Returns:
        What ``benchmark.json`` says.

    Raises:
        InputError: an option is out of range; a file is missing or malformed (with line and column); nothing satisfies
            the rule; ``out`` is not empty.
    """
    config.check()
    sources = _find_sources(Path(metadata), config)
    with _appears_when_finished(Path(out)) as root:
        classes = read_classes(sources.classes)
        kept, splits = _choose(sources, classes, config)
        definition = _definition(sources, classes, kept, splits, config)
        statistics = {}
        for name, split in splits.items():
            statistics[name] = describe(split.objects, len(split.images), kept, config.unknown_counts)
            _write_split(root / name, name, split, classes, kept, sources, config)
        pools = {name: split.pool for name, split in splits.items()}
        write_class_table(root / CLASSES, classes, kept, pools, statistics)
        write_json(root / "statistics.json", {name: found.summary() for name, found in statistics.items()})
        write_json(root / DEFINITION, definition)
        write_card(root, definition, classes, kept, pools, statistics)
        files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        write_checksums(root, files)
    _show(Path(out), definition, statistics)
    return definition


def _find_sources(metadata: Path, config: BuildConfig) -> _Sources:
    if not metadata.is_dir():
        raise InputError("no such folder of metadata", path=metadata, remedy="check --metadata.")
    boxes, masks = {}, {}
    for split in SPLITS:
        found = find_file(metadata, f"{split}-annotations-bbox.csv")
        if config.wanted(split) == 0:
            continue
        if found is None:
            option = {"train": "", "validation": ", or give --val_images 0", "test": ", or give --test_images 0"}[split]
            problem = f"has no {split}-annotations-bbox.csv (nor with a release in front, nor .csv.gz)"
            raise InputError(problem, path=metadata, remedy=f"put it there{option}.")
        boxes[split] = found
        mask_file = find_file(metadata, f"{split}-annotations-object-segmentation.csv")
        if mask_file is not None:
            masks[split] = mask_file
    classes = find_file(metadata, "class-descriptions-boxable.csv")
    if classes is None:
        raise InputError("has no class-descriptions-boxable.csv", path=metadata, remedy="put it there.")
    sizes = Path(config.sizes) if config.sizes is not None else find_file(metadata, "image_sizes.csv")
    if config.masks is not None and (sizes is None or not masks):
        lacking = "sizes of images" if sizes is None else "…-annotations-object-segmentation.csv"
        problem = f"masks can be decoded only with {lacking}"
        raise InputError(problem, path=config.masks, remedy="give them, or give --masks to download.")
    for path in (config.sizes, config.masks):
        if path is not None and not Path(path).exists():
            raise InputError("no such file or folder", path=path, remedy="check the path.")
    return _Sources(classes=classes, boxes=boxes, masks=masks, sizes=sizes)


@contextmanager
def _appears_when_finished(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when all has gone well, and is removed otherwise."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is there already and not empty", path=out, remedy="choose another --out, or remove it.")
    out = out.absolute()
    root = out.with_name(f".{out.name}.{os.getpid()}.partial")
    make_folder(root)
    try:
        yield root
        try:
            os.replace(root, out)
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
            raise D3sslError(problem, path=out, remedy="choose another --out.") from error
    finally:
        if root.exists():
            shutil.rmtree(root)


def _choose(sources: _Sources, classes: BoxableClasses, config: BuildConfig) -> tuple[np.ndarray, dict[str, _Split]]:
    """The kept classes, by the training split, and the chosen images and objects of every split."""
    chunk_bytes, kept, splits = config.chunk_mb * 1_000_000, None, {}
    for name, path in sources.boxes.items():
        chunks = stream_boxes(path, classes, chunk_bytes, f"counting the objects of {name}")
        census = take_census(chunks, len(classes), config.unknown_counts)
        if kept is None:
            kept = keep_classes(census, config)
        pool = order_pool(census, kept, config)
        del census
        images = pool.take(config.wanted(name), config.per_class_cap)
        if len(images) == 0:
            problem = "no image satisfies the rule"
            raise InputError(problem, path=path, remedy="lower min_class_images, min_classes or min_boxes.")
        if len(images) < config.wanted(name):
            why = "satisfy the rule" if config.per_class_cap is None else "satisfy the rule and the cap"
            warn(f"{name}: {len(images):,} images {why}, {config.wanted(name):,} were wanted; all are taken")
        again = stream_boxes(path, classes, chunk_bytes, f"gathering the objects of {name}")
        objects, others = gather_objects(again, images, kept)
        notes = {
            "images": len(images),
            "wanted": config.wanted(name),
            "satisfy_the_rule": len(pool.images),
            "reached_cap": float(pool.keys[len(images) - 1]),
            "boxes_of_other_classes": others,
        }
        if name in sources.masks:
            masks, unmatched = match_masks(sources.masks[name], classes, images, objects, chunk_bytes)
            objects, notes["masks_without_box"] = with_masks(objects, masks), unmatched
        splits[name] = _Split(pool=pool, images=images, objects=objects, notes=notes)
    assert kept is not None  # train is always there
    return kept, splits


def _definition(
    sources: _Sources, classes: BoxableClasses, kept: np.ndarray, splits: dict[str, _Split], config: BuildConfig
) -> dict[str, Any]:
    return {
        "name": "OpenImage-MINI by d3ssl",
        "rule": RULE,
        "d3ssl": __version__,
        "options": config.identity(),
        "boxable_classes": len(classes),
        "kept_classes": int(kept.sum()),
        "splits": {name: split.notes for name, split in splits.items()},
        "sources": [{"file": p.name, "bytes": p.stat().st_size, "sha256": sha256(p)} for p in sources.all()],
    }


def _write_split(
    folder: Path,
    name: str,
    split: _Split,
    classes: BoxableClasses,
    kept: np.ndarray,
    sources: _Sources,
    config: BuildConfig,
) -> None:
    make_folder(folder)
    ids = tuple(image_name(number) for number in split.images.tolist())
    write_text(folder / IDS, "".join(f"{image}\n" for image in ids))
    write_objects(folder / OBJECTS, split.objects)
    sizes, mask_files = None, None
    if sources.sizes is not None:
        sizes = read_sizes(sources.sizes, split.images, config.chunk_mb * 1_000_000)
        write_sizes(folder / "image_sizes.csv", list(ids), sizes)
    if config.masks is not None:
        mask_files = find_mask_files(Path(config.masks), split.objects)
    data = SplitData(ids=ids, objects=split.objects, classes=classes, kept=kept, sizes=sizes, mask_files=mask_files)
    write_coco(folder / ANNOTATIONS, data, coco_info(name), np.ones(len(ids), dtype=bool))


def coco_info(split: str) -> dict[str, Any]:
    """The field ``info`` of a split's COCO file."""
    return {
        "description": f"OpenImage-MINI by d3ssl, {split}: images of Open Images chosen by rule",
        "version": str(RULE),
        "contributor": "annotations: Google LLC, CC BY 4.0; images: by their authors on Flickr",
    }


def _show(out: Path, definition: dict[str, Any], statistics: dict[str, SplitStatistics]) -> None:
    rows = [
        (
            name,
            f"{found.images:,}",
            f"{definition['splits'][name]['satisfy_the_rule']:,}",
            f"{found.objects:,}",
            f"{np.count_nonzero(found.class_objects)}",
            f"{effective_number(found.class_objects):.1f}",
        )
        for name, found in statistics.items()
    ]
    show_table(
        "OpenImage-MINI", ("split", "images", "satisfy the rule", "objects", "classes", "effective classes"), rows
    )
    say(f"{out}: images are fetched by d3ssl benchmark openimage-mini download {out} --base_url URL")
