"""Sound inputs of every reader, and ways to spoil them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from d3ssl.models import create_backbone, save_backbone
from d3ssl.regions.table import write_regions
from tests.data.test_coco import document
from tests.data.test_formats import build_panoptic, voc_xml
from tests.regions.test_region_table import make_table


def pixels(shape: tuple[int, ...] = (20, 30, 3), dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def images() -> list[bytes]:
    """Of every kind that is read."""
    found = []
    for kind, mode in (
        ("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"),
        ("BMP", "RGB"), ("GIF", "P"), ("PPM", "RGB"), ("TIFF", "RGB"),
    ):  # fmt: skip
        buffer = io.BytesIO()
        picture = Image.fromarray(pixels((20, 30), np.uint16)) if mode == "I;16" else Image.fromarray(pixels())
        (picture if mode == "I;16" else picture.convert(mode)).save(buffer, kind)
        found.append(buffer.getvalue())
    for shape, options in (
        ((20, 30, 5), {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}),
        ((5, 20, 30), {"photometric": "minisblack", "planarconfig": "separate"}),
        ((64, 64, 3), {"photometric": "rgb", "tile": (16, 16)}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels(shape, np.uint16), **options)  # type: ignore[arg-type]
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.save(buffer, pixels((20, 30, 3)))
    return [*found, buffer.getvalue()]


def tars() -> list[bytes]:
    """Of every layout; with an image in."""
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name in ("a.png", "folder/b.jpg", "n" * 120 + ".png" if form != tarfile.USTAR_FORMAT else "c.png"):
                info = tarfile.TarInfo(name)
                info.size = len(images()[0])
                tar.addfile(info, io.BytesIO(images()[0]))
        found.append(buffer.getvalue())
    return found


def sound(name: str, folder: Path) -> list[bytes]:
    """Inputs that can be read; what has to lie beside them is put into the folder, which is not there yet."""
    folder.mkdir()
    if name == "coco":
        panoptic, _ = build_panoptic(folder / "built")
        shutil.copytree(
            panoptic.with_suffix(""), folder / "annotations"
        )  # the maps lie in a folder named like the file
        return [json.dumps(document()).encode(), panoptic.read_bytes()]
    if name == "voc":
        for part in ("Annotations", "JPEGImages", "ImageSets"):
            (folder / part).mkdir()
        Image.fromarray(pixels()).save(folder / "JPEGImages" / "a.jpg")
        objects: list[tuple[str, tuple[Any, Any, Any, Any], int]] = [
            ("cat", (2, 3, 9, 9), 0),
            ("dog", (5, 5, 20, 9), 1),
        ]
        return [voc_xml(objects, (30, 20)).encode()]
    if name == "manifest":
        save_backbone(folder, create_backbone("test_resnet"), {"steps": 3})
        return [(folder / "manifest.json").read_bytes()]
    if name == "regions":
        write_regions(folder / "r.parquet", make_table())
        return [(folder / "r.parquet").read_bytes()]
    return tars() if name == "tar" else images()


_SIMPLE = (
    None, True, False, 0, -1, 1, 2, 3, 7, 10**9, -(2**70), 2**70, 0.5, 1e8, 1e300, -1e18, float("nan"), float("inf"),
    "", "a", "a.jpg", "../a", "\0", "\ud800", "timm", "module", "torchvision", "resnet10t", "c4", "\u212b" * 9,
)  # fmt: skip
_NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"77777777", b"<!--", b"&a;")


def _value(random: Random, depth: int = 0) -> Any:
    """Any JSON."""
    kind = random.random()
    if kind < 0.7 or depth > 3:
        return random.choice(_SIMPLE)
    if kind < 0.85:
        return [_value(random, depth + 1) for _ in range(random.randrange(5))]
    return {random.choice(["id", "counts", "size", "a"]): _value(random, depth + 1) for _ in range(random.randrange(4))}


def spoiled_json(random: Random, sound: bytes) -> bytes:
    """Up to three of a document's values, wherever they stand, become others, vanish or are doubled."""
    found = json.loads(sound)
    for _ in range(random.randint(1, 3)):
        places = list(_places(found))
        if not places:
            break
        parent, key = random.choice(places)
        what = random.choice(["other", "other", "near", "near", "gone", "double"])
        number = type(parent[key]) in (int, float)
        if what == "gone":
            del parent[key]
        elif what == "double" and isinstance(parent, list):
            parent.append(parent[key])
        elif what == "near" and number:
            parent[key] += random.choice([-1, 1, 0.5, 3])
        else:
            parent[key] = _value(random)
    return json.dumps(found).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def spoiled_bytes(random: Random, sound: bytes) -> bytes:
    """Some bytes become others, half of them at the beginning, where headers are; some are cut out, put in, or cut off
    at the end."""
    found = bytearray(sound)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(max(1, min(len(found), 600) if random.random() < 0.5 else len(found)))
        what = random.choice(["other", "other", "other", "bit", "bit", "number", "cut", "put", "end"])
        if what == "other":
            found[at : at + 1] = random.randbytes(1)
        elif what == "bit" and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif what == "number":
            found[at : at + 4] = random.choice(_NUMBERS)
        elif what == "cut":
            del found[at : at + random.randint(1, 20)]
        elif what == "put":
            found[at:at] = random.randbytes(random.randrange(20))
        elif random.random() < 0.3:
            del found[at:]
    return bytes(found)


def right_checksums(tar: bytes) -> bytes:
    """A spoiled tar whose headers have the checksums of what they say now, so that it is read on."""
    found = bytearray(tar)
    for at in range(0, len(found) - 511, 512):
        if found[at + 257 : at + 262] == b"ustar":
            total = sum(found[at : at + 512]) - sum(found[at + 148 : at + 156]) + 8 * 32
            found[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(found)
