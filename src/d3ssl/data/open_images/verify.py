"""Checking a finished benchmark: nothing changed, lists and annotations agree, images are there and whole."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3ssl.console import progress, say
from d3ssl.data.image_set import ANNOTATIONS
from d3ssl.data.open_images.config import SPLITS
from d3ssl.data.open_images.fetch import FetchError, check_jpeg
from d3ssl.data.open_images.records import ImageRecord, read_records
from d3ssl.data.open_images.tree import DEFINITION, IDS, IMAGE_RECORDS, IMAGES, check_whole, read_ids
from d3ssl.errors import InputError
from d3ssl.files import read_json

_AGAIN = "fetch it with d3ssl benchmark openimage-mini download."


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """How much is checked."""

    decode: bool = True
    """Whether every downloaded image is read whole, compared with its checksum and decoded; otherwise only its size in
    bytes is compared."""


def verify_benchmark(root: str | Path, config: VerifyConfig) -> dict[str, Any]:
    """Check a benchmark.

    Returns:
        Split → ``images`` in the list, ``objects`` in the annotations, ``downloaded`` images.

    Raises:
        InputError: with the first file at fault: missing, changed, at odds with another, unreadable.
    """
    root = Path(root)
    listed = check_whole(root)
    definition = read_json(root / DEFINITION)
    found = {}
    for split in (split for split in SPLITS if f"{split}/{IDS}" in listed):
        ids = read_ids(root / split / IDS)
        wanted = definition["splits"][split]["images"]
        if len(ids) != wanted:
            problem = f"lists {len(ids)} images, {DEFINITION} says {wanted}"
            raise InputError(problem, path=root / split / IDS, remedy="build the benchmark again.")
        records = None
        if f"{split}/{IMAGE_RECORDS}" in listed:
            records = read_records(root / split / IMAGE_RECORDS)
        elif (root / split / IMAGES).is_dir():
            here = sum((root / split / IMAGES / f"{name}.jpg").is_file() for name in ids)
            problem = f"has {here} of {len(ids)} images: their download is not finished"
            raise InputError(problem, path=root / split / IMAGES, remedy="call download again.")
        objects = _check_annotations(root / split / ANNOTATIONS, ids, records)
        if records is not None:
            _check_images(root / split / IMAGES, split, records, config)
        found[split] = {"images": len(ids), "objects": objects, "downloaded": len(records or ())}
        fetched = "not downloaded" if records is None else f"{len(records)} images downloaded and checked"
        say(f"{split}: {len(ids)} images, {objects} objects, {fetched}")
    return found


def _check_annotations(path: Path, ids: tuple[str, ...], records: dict[str, ImageRecord] | None) -> int:
    """Compare the annotations with the list and the downloaded images. Returns the number of objects."""
    document = read_json(path)
    remedy = "build the benchmark again."
    present = [name for name in ids if records is None or name in records]
    names = [entry["file_name"] for entry in document["images"]]
    if names != [f"{name}.jpg" for name in present]:
        differs = next(
            (a or b for a, b in zip(names, (f"{n}.jpg" for n in present), strict=False) if a != b), "their number"
        )
        problem = f"names other images than {IDS}, or in another order; the first that differs: {differs}"
        raise InputError(problem, path=path, remedy=remedy)
    for entry in document["images"] if records is not None else ():
        record = records[entry["file_name"][:16]] if records is not None else None
        if record is not None and (entry["height"], entry["width"]) != (record.height, record.width):
            problem = f"gives {entry['file_name']} another size than {IMAGE_RECORDS}"
            raise InputError(problem, path=path, remedy=remedy)
    images = {entry["id"] for entry in document["images"]}
    categories = {entry["id"] for entry in document["categories"]}
    for entry in document["annotations"]:
        if entry["image_id"] not in images or entry["category_id"] not in categories:
            problem = (
                f"annotation {entry['id']} is of an image or category that is not there: {json.dumps(entry)[:200]}"
            )
            raise InputError(problem, path=path, remedy=remedy)
    return len(document["annotations"])


def _check_images(folder: Path, split: str, records: dict[str, ImageRecord], config: VerifyConfig) -> None:
    missing = [name for name in records if not (folder / f"{name}.jpg").is_file()]
    if missing:
        problem = f"lacks {len(missing)} of {len(records)} images, such as {missing[0]}.jpg"
        raise InputError(problem, path=folder, remedy=_AGAIN)
    with progress(f"checking images of {split}", len(records)) as ticker:
        for name, record in records.items():
            _check_image(folder / f"{name}.jpg", record, config.decode)
            ticker.advance()


def _check_image(path: Path, record: ImageRecord, decode: bool) -> None:
    remedy = f"remove it and {_AGAIN}"
    if path.stat().st_size != record.bytes:
        raise InputError(f"has another size than the downloaded file ({record.bytes} bytes)", path=path, remedy=remedy)
    if not decode:
        return
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise InputError("was changed since it was downloaded", path=path, remedy=remedy)
    try:
        check_jpeg(data)
    except FetchError as error:
        raise InputError(str(error), path=path, remedy=remedy) from error
